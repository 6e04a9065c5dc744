
# ---- k3s and RKE2 -------------------------------------------------------------------------------

takes='unit mirror insecure'

prepare() {
    if [ -z "$unit" ]; then find_unit; fi
    use_unit
    begin
    need_systemd
    case $unit in
    rke2*) registries=/etc/rancher/rke2/registries.yaml ;;
    *) registries=/etc/rancher/k3s/registries.yaml ;;
    esac
    if [ "$mirror" = yes ]; then owner=${unit%.service}-mirror; fi
}

find_unit() {
    for unit in k3s k3s-agent rke2-server rke2-agent; do
        if [ -e "/etc/systemd/system/$unit.service" ] ||
            [ -e "/usr/local/lib/systemd/system/$unit.service" ] ||
            [ -e "/usr/lib/systemd/system/$unit.service" ]; then
            return 0
        fi
    done
    fail "neither k3s nor RKE2 is installed here (see --unit)"
}

set_up() {
    if [ "$mirror" = no ]; then
        set_up_unit
        return 0
    fi
    secure_mirror
    trust_if_tls
    check_mirror
    {
        say "$own_mark"
        say 'mirrors:'
        say '  "*":'
        say '    endpoint:'
        say "      - \"$proxy_url\""
    } >"$work/registries"
    own "$work/registries" "$registries"
    finish_set_up
}

undo() {
    owner=$unit
    claim "$dropin"
    undo_owner
    owner=${unit%.service}-mirror
    claim "$registries"
    undo_owner
    owner=${unit%.service}-mirror-tls
    undo_owner
    owner=$unit
    finish_undo
}
