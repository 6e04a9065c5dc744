
# ---- The mirror of dockerd ----------------------------------------------------------------------

takes=insecure
owner=docker-mirror
engine=docker.service
how=reload
settings=/etc/docker/daemon.json
# JSON has no comments: the file as it was is kept, and what was made of it is known by its hash.
kept=/etc/docker/daemon.json.before-entrepot
now=$settings # what the file holds now, or would

prepare() {
    begin
    case $mode in setup) [ -d /etc/docker ] || has dockerd || fail "there is no Docker here" ;; esac
}

# The first brace of the file, and a comma unless nothing follows.
add_mirror() {
    line="  \"registry-mirrors\": [\"$proxy_url\"]"
    content=
    if [ -f "$now" ]; then content=$(tr -d ' \t\r\n' <"$now"); fi
    case $content in
    '' | '{}')
        printf '{\n%s\n}\n' "$line" >"$work/daemon.json"
        ;;
    '{'*)
        sed -e '/{/!b' -e "s|{|{\\
$line,|" -e ':rest' -e n -e 'b rest' "$now" >"$work/daemon.json"
        ;;
    *) fail "$settings is not a JSON object" ;;
    esac
}

set_up() {
    secure_mirror
    trust_if_tls
    # dockerd reads the system's trust store once.
    if [ "$trust_altered" = yes ]; then how=restart; fi
    check_mirror
    if grep -qF -e "\"$proxy_url\"" "$settings" 2>/dev/null; then
        finish_set_up
        return 0
    fi
    if is_as_we_left_it; then
        restore
    elif take_over docker-mirror || take_over docker-mirror-tls; then
        :
    elif grep -q '"registry-mirrors"' "$settings" 2>/dev/null; then
        fail "$settings sets \"registry-mirrors\" already: put \"$proxy_url\" first in that list"
    fi
    add_mirror
    validate
    make_dirs /etc/docker
    if [ -f "$now" ]; then
        place "$now" "$kept" "$owner"
        if [ "$dry" = no ]; then chmod 0600 "$kept"; fi
        edited=edited
    else
        edited=made
    fi
    hash=$(sha256sum <"$work/daemon.json")
    remember "$owner" "$edited" "${hash%% *}"
    remember "$owner" restart pending
    note_change "$settings"
    write "$work/daemon.json" "$settings"
    altered=yes
    finish_set_up
}

# dockerd checks its settings itself, from version 23 on.
validate() {
    if ! has dockerd || ! dockerd --help 2>&1 | grep -q -e --validate; then return 0; fi
    dockerd --validate --config-file="$work/daemon.json" >"$work/validate" 2>&1 ||
        fail "$settings with a mirror would not be valid: $(cat "$work/validate")"
}

# Takes back what was made of the file when the same mirror was asked otherwise, with TLS or without,
# if nobody has changed it since.
take_over() {
    mine=$owner
    owner=$1
    if [ "$owner" = "$mine" ] || ! is_as_we_left_it; then
        owner=$mine
        return 1
    fi
    restore
    if recorded "$owner" file "$kept"; then
        note_change "$kept"
        if [ "$dry" = no ]; then rm -f "$kept"; fi
        forget "$owner" file "$kept"
    fi
    case $owner in
    # The certificate is still there for its undo.
    *-tls) remember "$owner" restart pending ;;
    *) forget "$owner" restart pending ;;
    esac
    if recorded "$owner" dir /etc/docker; then
        forget "$owner" dir /etc/docker
        remember "$mine" dir /etc/docker
    fi
    owner=$mine
}

# Whether nobody has changed the file since.
is_as_we_left_it() {
    [ -f "$settings" ] || return 1
    hash=$(sha256sum <"$settings")
    recorded "$owner" edited "${hash%% *}" || recorded "$owner" made "${hash%% *}"
}

restore() {
    hash=$(sha256sum <"$settings")
    hash=${hash%% *}
    note_change "$settings"
    if recorded "$owner" made "$hash"; then
        if [ "$dry" = no ]; then rm -f "$settings"; fi
        if [ "$dry" = yes ]; then now=$work/nothing; fi
        did removed "$settings"
    else
        if [ "$dry" = no ]; then cat "$kept" >"$settings"; fi
        if [ "$dry" = yes ]; then now=$kept; fi
        did restored "$settings"
    fi
    forget "$owner" made "$hash"
    forget "$owner" edited "$hash"
}

undo() {
    committed=yes
    for owner in docker-mirror docker-mirror-tls; do
        if ! owns_something "$owner"; then continue; fi
        remember "$owner" restart pending
        if is_as_we_left_it; then
            restore
        elif grep -qF -e "://${proxy_url#*://}\"" "$settings" 2>/dev/null; then
            fail "$settings was changed since: take ${proxy_url#*://} out of its" \
                "\"registry-mirrors\", and run this again"
        fi
        drop_hashes
        undo_owner
    done
    owner=docker-mirror
    finish_undo
}

drop_hashes() {
    while read -r who kind hash; do
        case "$who $kind" in
        "$owner edited" | "$owner made") printf '%s\n' "$who $kind $hash" ;;
        esac
    done <"$record" >"$work/hashes"
    while IFS= read -r line; do
        forget "$line"
    done <"$work/hashes"
}
