
# ---- An engine that systemd runs ----------------------------------------------------------------

# A file of our own, so that nobody else's is ever touched. Where two drop-ins set one variable the
# one whose name sorts last counts: behind "http-proxy.conf" and "override.conf", then.
dropin_name=zz-entrepot.conf

use_unit() {
    unit=${unit%.service}.service
    case $unit in
    .service | [!A-Za-z0-9]* | *[!A-Za-z0-9@._-]*) fail "not the name of a systemd service: $unit" ;;
    esac
    owner=$unit
    engine=$unit
    dropin_dir=/etc/systemd/system/$unit.d
    dropin=$dropin_dir/$dropin_name
}

need_systemd() {
    [ -d /etc/systemd ] ||
        fail "this machine has no /etc/systemd: this script is for engines that systemd runs"
}

# k3s and RKE2 hand what begins with CONTAINERD_ to their containerd alone; without that the
# kubelet would go through the proxy as well.
variable_prefix() {
    case $unit in
    k3s*.service | rke2*.service) prefix=CONTAINERD_ ;;
    *) prefix= ;;
    esac
}

# In a unit file % begins a specifier and is written twice.
write_dropin() {
    {
        say "$own_mark"
        say '[Service]'
        say "Environment=\"${prefix}HTTPS_PROXY=$proxy_url\""
        say "Environment=\"${prefix}NO_PROXY=$direct\""
    } | sed 's/%/%%/g' >"$work/dropin"
    make_dir /etc/systemd/system
    make_dir "$dropin_dir"
    place "$work/dropin" "$dropin" "$unit"
}

# Settings that win over a drop-in would leave the engine as it is while all looks well.
refuse_stronger_settings() {
    if [ "$unit" = docker.service ] &&
        grep -q '"proxies"' /etc/docker/daemon.json 2>/dev/null; then
        fail "/etc/docker/daemon.json sets \"proxies\", which wins over what this script sets:" \
            "remove that, or put $proxy_url there instead"
    fi
    if grep -q "^${prefix}HTTPS_PROXY=" "/etc/systemd/system/$unit.env" 2>/dev/null; then
        fail "/etc/systemd/system/$unit.env sets ${prefix}HTTPS_PROXY, which wins over what this" \
            "script sets: remove that, or put $proxy_url there instead"
    fi
}

mention_other_dropins() {
    for other in "$dropin_dir"/*.conf; do
        if [ "$other" != "$dropin" ] && grep -q 'HTTPS_PROXY=\|NO_PROXY=' "$other" 2>/dev/null; then
            say "note: $other sets a proxy too; it stays, and $dropin_name wins over it"
        fi
    done
}

set_up_unit() {
    join_direct
    variable_prefix
    refuse_stronger_settings
    trust
    check_through_proxy "$check"
    write_dropin
    mention_other_dropins
    finish_set_up
}
