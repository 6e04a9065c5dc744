
# ---- Options ------------------------------------------------------------------------------------

# What a script takes beside --undo and --check is in $takes; its defaults are set beside that.
takes=
check=https://registry-1.docker.io/v2/
mirror=no
insecure=no
tls=no
restart=yes
unit=
cluster=

# Private networks, the machine itself, the cloud's metadata service, and names inside a cluster.
direct=localhost,127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.169.254,.svc,.cluster.local,.local

accepts() {
    case " $takes " in
    *" $1 "*) return 0 ;;
    *) return 1 ;;
    esac
}

read_options() {
    check=${ENTREPOT_CHECK:-$check}
    restart=${ENTREPOT_RESTART:-$restart}
    if accepts unit; then unit=${ENTREPOT_UNIT:-$unit}; fi
    if accepts mirror; then mirror=${ENTREPOT_MIRROR:-$mirror}; fi
    if accepts insecure; then insecure=${ENTREPOT_INSECURE:-$insecure}; fi
    if accepts tls; then tls=${ENTREPOT_TLS:-$tls}; fi
    if accepts name; then cluster=${ENTREPOT_NAME:-$cluster}; fi
    extra_direct=${NO_PROXY:-${no_proxy:-}}
    unset NO_PROXY no_proxy
    known='--help, --dry-run, --undo, --check URL, --no-restart'
    if accepts unit; then known="$known, --unit NAME"; fi
    if accepts name; then known="$known, --name CLUSTER"; fi
    if accepts mirror; then known="$known, --mirror"; fi
    if accepts insecure; then known="$known, --insecure"; fi
    if accepts tls; then known="$known, --tls"; fi
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --dry-run) dry=yes ;;
        --undo) mode=undo ;;
        --no-restart) restart=no ;;
        --mirror)
            accepts mirror || unknown "$1"
            mirror=yes
            ;;
        --insecure)
            accepts insecure || unknown "$1"
            insecure=yes
            ;;
        --tls)
            accepts tls || unknown "$1"
            tls=yes
            ;;
        --check | --unit | --name)
            [ "$1" = --check ] || accepts "${1#--}" || unknown "$1"
            [ $# -ge 2 ] || fail "$1 wants a value"
            case $1 in
            --check) check=$2 ;;
            --unit) unit=$2 ;;
            --name) cluster=$2 ;;
            esac
            shift
            ;;
        *) unknown "$1" ;;
        esac
        shift
    done
    case $mirror in
    yes | no) ;;
    *) fail "ENTREPOT_MIRROR is neither yes nor no: $mirror" ;;
    esac
    case $insecure in
    yes | no) ;;
    *) fail "ENTREPOT_INSECURE is neither yes nor no: $insecure" ;;
    esac
    case $tls in
    yes | no) ;;
    *) fail "ENTREPOT_TLS is neither yes nor no: $tls" ;;
    esac
    case $tls$insecure in
    yesyes) fail "--tls and --insecure exclude each other" ;;
    *yes*)
        if accepts mirror && [ "$mirror$mode" = nosetup ]; then
            fail "--insecure and --tls are for --mirror: as a proxy nothing has to be taken on trust"
        fi
        ;;
    esac
    case $restart in
    yes | no) ;;
    *) fail "ENTREPOT_RESTART is neither yes nor no: $restart" ;;
    esac
    check_url_valid "$check"
}

unknown() {
    fail "unknown argument: $1 (there are $known)"
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
