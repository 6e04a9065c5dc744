
# ---- Podman, Buildah, Skopeo, CRI-O -------------------------------------------------------------

takes='unit mirror insecure'
unit=crio.service
settings=/etc/containers/containers.conf.d/zz-entrepot.conf
registries=/etc/containers/registries.conf.d/zz-entrepot.conf

# A mirror is of one registry; there is no pattern for all of them.
mirrored='docker.io ghcr.io quay.io gcr.io registry.k8s.io mcr.microsoft.com public.ecr.aws
    registry.gitlab.com nvcr.io docker.elastic.co registry.access.redhat.com registry.redhat.io
    registry.fedoraproject.org lscr.io cgr.dev registry.suse.com'

prepare() {
    use_unit
    begin
    if [ "$mirror" = yes ]; then owner=podman-mirror; else owner=podman; fi
}

has_crio() {
    [ -d /run/systemd/system ] && systemctl cat "$unit" >/dev/null 2>&1
}

write_mirrors() {
    insecure=false
    case $proxy_url in http:*) insecure=true ;; esac
    say "$own_mark"
    for registry in $mirrored; do
        say '[[registry]]'
        say "location = \"$registry\""
        say '[[registry.mirror]]'
        say "location = \"${proxy_url#*://}/$registry\""
        say "insecure = $insecure"
    done
}

# The engine's own variables, which are not for the containers: those lack the certificate.
write_settings() {
    say "$own_mark"
    say '[engine]'
    say "env = [\"HTTPS_PROXY=$proxy_url\", \"NO_PROXY=$direct\"]"
    say '[containers]'
    say 'http_proxy = false'
}

set_up() {
    if [ "$mirror" = yes ]; then
        secure_mirror
        trust_if_tls
        check_mirror
        write_mirrors >"$work/registries"
        own "$work/registries" "$registries"
    else
        join_direct
        trust
        check_through_proxy "$check"
        write_settings >"$work/settings"
        own "$work/settings" "$settings"
        write_for_crio
        engine=
    fi
    if ! has_crio; then engine=; fi
    finish_set_up
    restart_crio
    if [ "$mirror" = no ]; then
        say "note: skopeo reads no settings: run it with HTTPS_PROXY=$proxy_url"
    fi
}

write_for_crio() {
    if ! has_crio; then return 0; fi
    owner=$unit
    prefix=
    write_dropin
    mention_other_dropins
    owner=podman
}

restart_crio() {
    if recorded "$unit" restart pending; then
        owner=$unit
        engine=$unit
        restart_engine
        owner=podman
    fi
}

undo() {
    for owner in podman podman-mirror podman-mirror-tls "$unit"; do
        engine=$unit
        case $owner in
        podman)
            engine=
            claim "$settings"
            ;;
        podman-mirror) claim "$registries" ;;
        "$unit") claim "$dropin" ;;
        esac
        if ! has_crio; then engine=; fi
        undo_owner
    done
    owner=podman
    finish_undo
}
