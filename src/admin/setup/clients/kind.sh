
# ---- The nodes of kind --------------------------------------------------------------------------

takes=name

prepare() {
    join_direct
    has docker || fail "'docker' is not installed, and this script needs it"
    case $cluster in
    *[!A-Za-z0-9._-]*) fail "not the name of a cluster: $cluster" ;;
    esac
    case $proxy_url in
    *://127.* | *://localhost:* | *'://[::1]:'*)
        fail "the nodes can't reach $proxy_url, which is this machine to them: fetch this script by" \
            "an address that they can reach"
        ;;
    esac
    nodes=$(docker ps --quiet --filter "label=io.x-k8s.kind.cluster${cluster:+=$cluster}")
    [ -n "$nodes" ] || fail "no node of a kind cluster runs here${cluster:+ by the name of $cluster}"
}

# Each node is a machine with systemd and containerd: what is run there is below.
on_every_node() {
    if [ "$dry" = yes ]; then set -- "$@" --dry-run; fi
    for node in $nodes; do
        say "node $node:"
        node_script | docker exec --interactive --env "NO_PROXY=$direct" --env "ENTREPOT_CHECK=$check" \
            --env "ENTREPOT_RESTART=$restart" "$node" sh -s -- "$@" ||
            fail "node $node is not set up: run this again"
    done
}

set_up() {
    on_every_node
}

undo() {
    on_every_node --undo
}
