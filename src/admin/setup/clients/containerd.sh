
# ---- containerd ---------------------------------------------------------------------------------

takes='unit mirror insecure tls'
unit=containerd.service
hosts=/etc/containerd/certs.d/_default/hosts.toml
settings=/etc/containerd/config.toml

prepare() {
    use_unit
    begin
    need_systemd
    if [ "$mirror" = yes ]; then owner=containerd-mirror; fi
}

# Without config_path the CRI plugin reads no hosts.toml; from containerd 2.2 on it has one.
need_config_path() {
    if [ ! -e "$settings" ]; then
        {
            say "$own_mark"
            say 'version = 2'
            say '[plugins."io.containerd.grpc.v1.cri".registry]'
            say '  config_path = "/etc/containerd/certs.d"'
        } >"$work/config"
        own "$work/config" "$settings"
    elif ! grep -qxF -e "$own_mark" "$settings" &&
        ! grep -q '^[[:space:]]*config_path[[:space:]]*=.*/etc/containerd/certs\.d' "$settings"; then
        fail "$settings names no config_path, without which Kubernetes' part of containerd reads no" \
            "mirrors. Set config_path in this table, which may be there already, or add both lines (in" \
            "a file of version 3 the plugin is \"io.containerd.cri.v1.images\"), and run this again:
[plugins.\"io.containerd.grpc.v1.cri\".registry]
  config_path = \"/etc/containerd/certs.d\""
    fi
}

set_up() {
    if [ "$mirror" = no ]; then
        set_up_unit
        return 0
    fi
    if [ "$tls" = yes ]; then secure_mirror; fi
    trust_if_tls
    check_mirror
    need_config_path
    capabilities
    {
        say "$own_mark"
        say "[host.\"$proxy_url\"]"
        say "  capabilities = [$capabilities]"
    } >"$work/hosts"
    own "$work/hosts" "$hosts"
    finish_set_up
}

# What is pulled has a digest, which containerd checks. What is resolved is a tag, of which it takes
# a mirror's word: by plain HTTP that is the word of whoever is on the way.
capabilities() {
    capabilities='"pull", "resolve"'
    case $proxy_url in https:*) return 0 ;; esac
    if [ "$insecure" = yes ]; then
        warn_of_plain_http
    else
        capabilities='"pull"'
        say "note: over plain HTTP the mirror is asked for what has a digest alone: what tags stand for is" \
            "asked of the registries themselves (--tls has the mirror asked for both)"
    fi
}

undo() {
    owner=$unit
    claim "$dropin"
    undo_owner
    owner=containerd-mirror
    claim "$hosts"
    claim "$settings"
    undo_owner
    owner=containerd-mirror-tls
    undo_owner
    owner=$unit
    finish_undo
}
