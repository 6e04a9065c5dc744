
# ---- An engine that systemd runs ----------------------------------------------------------------

# A file of our own, so that nobody else's is ever touched. Where two drop-ins set one variable the
# one whose name sorts last counts: behind "http-proxy.conf" and "override.conf", then.
dropin_name=zz-entrepot.conf
dropin_mark="# Made by the set-up script of entrepot, whose undo removes it."

# Private networks, the machine itself, the cloud's metadata service, and names inside a cluster.
direct=localhost,127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.169.254,.svc,.cluster.local,.local

read_options() {
    unit=${ENTREPOT_UNIT:-docker.service}
    check=${ENTREPOT_CHECK:-https://registry-1.docker.io/v2/}
    extra_direct=${NO_PROXY:-${no_proxy:-}}
    unset NO_PROXY no_proxy
    while [ $# -gt 0 ]; do
        case $1 in
        --undo) mode=undo ;;
        --unit | --check)
            [ $# -ge 2 ] || fail "$1 wants a value"
            if [ "$1" = --unit ]; then unit=$2; else check=$2; fi
            shift
            ;;
        *) fail "unknown argument: $1 (there are --unit NAME, --check URL and --undo)" ;;
        esac
        shift
    done
    unit=${unit%.service}.service
    case $unit in
    .service | [!A-Za-z0-9]* | *[!A-Za-z0-9@._-]*) fail "not the name of a systemd service: $unit" ;;
    esac
    check_url_valid "$check"
    owner=$unit
    dropin_dir=/etc/systemd/system/$unit.d
    dropin=$dropin_dir/$dropin_name
}

# Adds the caller's list to ours, each entry once.
join_direct() {
    rest=$(printf '%s' "$extra_direct" | tr -d ' '),
    case $rest in
    *[!]A-Za-z0-9.,:*/_%[-]*) fail "NO_PROXY holds a character that has no place there: $rest" ;;
    esac
    case ,$rest in
    *,\*,*) fail "NO_PROXY holds '*': the engine would never use the proxy" ;;
    esac
    while [ -n "$rest" ]; do
        entry=${rest%%,*}
        rest=${rest#*,}
        case ,$direct, in
        *",$entry,"*) ;;
        *) direct=$direct${entry:+,$entry} ;;
        esac
    done
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
        say "$dropin_mark"
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

restart_unit() {
    if [ ! -d /run/systemd/system ]; then
        say "not restarted: $unit (systemd is not running here)"
    else
        systemctl daemon-reload || fail "'systemctl daemon-reload' failed: run this script again"
        if ! systemctl cat "$unit" >/dev/null 2>&1; then
            say "not restarted: $unit (it is not installed)"
        elif ! systemctl is-active --quiet "$unit"; then
            say "not restarted: $unit (it is not running)"
        else
            systemctl restart "$unit" ||
                fail "$unit did not restart: see 'journalctl -u $unit', then run this script again"
            say "restarted: $unit"
        fi
    fi
    forget "$unit" restart pending
}

mention_others() {
    others=$(other_owners "$unit")
    if [ -n "$others" ]; then
        # shellcheck disable=SC2086 # one line for all of them
        say "$1" $others
    fi
}

set_up() {
    join_direct
    variable_prefix
    refuse_stronger_settings
    find_trust_store
    download_ca
    verify_ca
    trust_ca
    check_through_proxy "$check"
    write_dropin
    mention_other_dropins
    committed=yes
    if recorded "$unit" restart pending; then
        restart_unit
    fi
    if [ "$trust_altered" = yes ]; then
        mention_others "note: the certificate is new, restart these too:"
    fi
    if [ "$altered" = yes ]; then
        say "$unit is set up to use $proxy_url"
    else
        say "nothing to change: $unit was set up to use $proxy_url before"
    fi
}

# What is already undone stays so if this fails: the record holds the rest for the next run.
undo() {
    committed=yes
    if [ -f "$dropin" ] && grep -qxF -e "$dropin_mark" "$dropin"; then
        remember "$unit" file "$dropin"
    fi
    if ! owns_something "$unit"; then
        say "nothing to undo for $unit"
        mention_others "note: set up on this machine (see --unit):"
        return 0
    fi
    remember "$unit" restart pending
    remove_made_by "$unit"
    if [ -z "$(other_owners "$unit")" ]; then
        distrust_ca
    else
        mention_others "kept: the CA certificate, used by"
    fi
    restart_unit
    say "$unit no longer uses the proxy"
}

main() {
    read_options "$@"
    begin
    [ -d /etc/systemd ] ||
        fail "this machine has no /etc/systemd: this script is for engines that systemd runs"
    case $mode in
    undo) undo ;;
    *) set_up ;;
    esac
}

# Only when all of this line has arrived is anything run; and nothing that is run may read standard
# input, because that is this script itself when it is piped into a shell.
{ main "$@" </dev/null; }
