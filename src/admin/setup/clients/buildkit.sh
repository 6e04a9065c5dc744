
# ---- BuildKit -----------------------------------------------------------------------------------

takes='unit insecure'
unit=buildkit.service
settings=/etc/buildkit/buildkitd.toml

# A mirror is of one registry; there is no pattern for all of them.
mirrored='docker.io ghcr.io quay.io gcr.io registry.k8s.io mcr.microsoft.com public.ecr.aws
    registry.gitlab.com nvcr.io docker.elastic.co registry.access.redhat.com registry.redhat.io
    registry.fedoraproject.org lscr.io cgr.dev registry.suse.com'

prepare() {
    use_unit
    owner=buildkit-mirror
    begin
}

write_settings() {
    address=${proxy_url#*://}
    say "$own_mark"
    for registry in $mirrored; do
        say "[registry.\"$registry\"]"
        say "  mirrors = [\"$address/$registry\"]"
    done
    say "[registry.\"$address\"]"
    case $proxy_url in
    http:*) say '  http = true' ;;
    # buildx takes the file along into the builder's container, which has no other trust store of
    # this machine's.
    *) say "  ca = [\"$ca_path\"]" ;;
    esac
}

set_up() {
    secure_mirror
    trust_if_tls
    check_mirror
    write_settings >"$work/settings"
    own "$work/settings" "$settings"
    finish_set_up
    say "for buildx: docker buildx create --use --buildkitd-config $settings"
}

undo() {
    for owner in buildkit-mirror buildkit-mirror-tls; do
        claim "$settings"
        undo_owner
    done
    owner=buildkit-mirror
    finish_undo
}
