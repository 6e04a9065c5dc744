
# ---- Setting up and undoing ---------------------------------------------------------------------

own_mark="# Made by the set-up script of entrepot, whose undo removes it."
engine=     # the unit that has to read its settings anew; none where nothing runs
how=restart # or "reload", where that will do
undone=no
upgraded=no # "yes" once a mirror is to be asked by TLS though the script came without

trust() {
    find_trust_store
    download_ca
    verify_ca
    trust_ca
}

# An engine believes its mirror what a tag stands for, so it is to ask it by TLS: else whoever is on
# the way chooses the images. The proxy speaks TLS on the very same port.
secure_mirror() {
    case $proxy_url in https:*) return 0 ;; esac
    if [ "$insecure" = yes ]; then
        warn_of_plain_http
        return 0
    fi
    proxy_url=https:${proxy_url#http:}
    upgraded=yes
}

warn_of_plain_http() {
    complain "INSECURE: whoever is on the way to $proxy_url chooses what a tag stands for, and so" \
        "which image runs here; as a proxy, or without --insecure, nobody does"
}

# A mirror that speaks plain HTTP needs no trust.
trust_if_tls() {
    case $proxy_url in
    https:*)
        owner=$owner-tls
        trust
        ;;
    esac
}

make_dirs() {
    if [ -d "$1" ]; then return 0; fi
    make_dirs "${1%/*}"
    make_dir "$1"
}

# own FROM TO: as place, for a file that this script alone makes.
own() {
    if [ -e "$2" ] && ! grep -qxF -e "$own_mark" "$2"; then
        fail "$2 is there already, and was not made by this script: put this into it, or move it away:
$(grep -v '^#' "$1")"
    fi
    make_dirs "${2%/*}"
    place "$1" "$2" "$owner"
}

restart_engine() {
    if [ -z "$engine" ]; then
        :
    elif [ ! -d /run/systemd/system ]; then
        say "not ${how}ed: $engine (systemd is not running here)"
    else
        [ "$dry" = yes ] || systemctl daemon-reload || fail "'systemctl daemon-reload' failed: run this script again"
        if ! systemctl cat "$engine" >/dev/null 2>&1; then
            say "not ${how}ed: $engine (it is not installed)"
        elif ! systemctl is-active --quiet "$engine"; then
            say "not ${how}ed: $engine (it is not running)"
        elif [ "$restart" = no ]; then
            say "not ${how}ed: $engine (--no-restart): do that when it suits, until then all is as it was"
        else
            [ "$dry" = yes ] || systemctl "$how" "$engine" ||
                fail "$engine did not $how: see 'journalctl -u $engine', then run this script again"
            did "${how}ed" "$engine"
        fi
    fi
    forget "$owner" restart pending
}

# Everything is in its place: from here on nothing is put back.
finish_set_up() {
    committed=yes
    if recorded "$owner" restart pending; then
        restart_engine
    fi
    if [ "$trust_altered" = yes ]; then
        mention_others "note: the certificate is new, restart these too:"
    fi
    if [ "$dry" = yes ] && [ "$altered" = yes ]; then
        say "$owner would be set up to use $proxy_url"
    elif [ "$altered" = yes ]; then
        say "$owner is set up to use $proxy_url"
    else
        say "nothing to change: $owner was set up to use $proxy_url before"
    fi
}

# claim PATH: what has our mark is ours, whatever became of the record.
claim() {
    if [ -f "$1" ] && grep -qxF -e "$own_mark" "$1"; then
        remember "$owner" file "$1"
    fi
}

# What is already undone stays so if this fails: the record holds the rest for the next run.
undo_owner() {
    committed=yes
    if ! owns_something "$owner"; then return 0; fi
    undone=yes
    remember "$owner" restart pending
    remove_made_by "$owner"
    case $owner in
    *-mirror) ;;
    *)
        if [ -z "$(users_of_trust "$owner")" ]; then
            distrust_ca
        else
            mention_others "kept: the CA certificate, used by"
        fi
        ;;
    esac
    restart_engine
    if [ "$dry" = yes ]; then
        say "$owner would no longer use the proxy"
    else
        say "$owner no longer uses the proxy"
    fi
}

finish_undo() {
    if [ "$undone" = yes ]; then return 0; fi
    say "nothing to undo for $owner"
    mention_others "note: set up on this machine:"
}

# The owners in the record that need the certificate, but for the one given.
users_of_trust() {
    other_owners "$1" | sed '/-mirror$/d'
}

mention_others() {
    others=$(users_of_trust "$owner")
    if [ -n "$others" ]; then
        # shellcheck disable=SC2086 # one line for all of them
        say "$1" $others
    fi
}

# The image that is asked for to try a mirror: one that the proxy keeps, where it keeps any, so that
# this works without its registry as well. An older proxy names none.
sample() {
    image=$(curl -q --globoff --fail --silent --insecure --connect-timeout 10 --max-time 30 \
        --noproxy '*' "$proxy_url/check/image") || image=
    case $image in
    '' | *[!A-Za-z0-9._:/-]* | *:*:*) image=docker.io/library/hello-world:latest ;;
    *:*) ;;
    *) image=docker.io/library/hello-world:latest ;;
    esac
}

# A mirror is asked for a manifest, as an engine would.
check_mirror() {
    if [ "$check" = no ]; then
        say "not checked: the mirror"
        return 0
    fi
    find_bundle
    if ! has curl; then
        say "not checked: the mirror (that needs curl)"
        return 0
    fi
    sample
    url=$proxy_url/v2/${image%:*}/manifests/${image##*:}
    code=$(curl -q --globoff --silent --show-error --connect-timeout 10 --max-time 60 --head \
        --cacert "$bundle" --noproxy '*' --output "$work/answer" --write-out '%{http_code}' \
        --header 'Accept: application/vnd.oci.image.index.v1+json' \
        --header 'Accept: application/vnd.docker.distribution.manifest.list.v2+json' \
        "$url" 2>"$work/check.log") || code=none
    case $code in
    200) say "checked: $url is there" ;;
    none)
        advice=
        if [ "$upgraded" = yes ]; then
            advice=" (Its certificate is for the proxy's own names: set external-url to $proxy_url there,
or name it in mirror-names, and use that name here. --insecure does without TLS: then whoever is on
the way chooses the images.)"
        fi
        fail "$url could not be had: $(cat "$work/check.log")$advice"
        ;;
    *) fail "$url could not be had: HTTP status $code, where 200 was expected" ;;
    esac
}
