
# ---- What every client's set-up shares ----------------------------------------------------------

# One line for each thing made here: whose it is, what kind of thing, its path. A line is written
# before its thing is made and goes after its thing has gone, so that a run that was cut short can
# be finished by the next one.
record=/etc/entrepot-setup.list

dry=no       # "yes" where it is only told what would be done

work=        # a private directory for what is only needed during the run
committed=no # "yes" once a failure must no longer put everything back
changes=0    # how many paths were noted for putting back
altered=no   # "yes" once a file of the machine was changed
trust_altered=no
owner= # whose set-up this is, as the record names it

say() {
    printf '%s\n' "$*"
}

complain() {
    printf 'entrepot: %s\n' "$*" >&2
}

fail() {
    complain "$@"
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# did WORD REST: what was done, or would be: "created: PATH".
did() {
    if [ "$dry" = yes ]; then
        case $1 in
        created) set -- create "$2" ;;
        changed) set -- change "$2" ;;
        removed) set -- remove "$2" ;;
        restored) set -- restore "$2" ;;
        refreshed) set -- refresh "$2" ;;
        restarted) set -- restart "$2" ;;
        reloaded) set -- reload "$2" ;;
        esac
        say "would $1: $2"
    else
        say "$1: $2"
    fi
}

# write FROM TO: gives TO the content of FROM in place, and says VERB of it.
write() {
    if [ "$dry" = no ]; then
        cat "$1" >"$2"
    fi
    did changed "$2"
    show "$1"
}

# show FILE: its content, where that is not written.
show() {
    if [ "$dry" = yes ]; then
        sed 's/^/    | /' "$1"
    fi
}

begin() {
    umask 022
    # `su` leaves the directories of the system tools out.
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    export PATH
    # The proxy is asked directly and judged by the machine's own trust store: neither a proxy nor
    # a bundle of the calling shell may come between.
    unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY
    unset CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR
    [ "$(id -u)" -eq 0 ] || [ "$dry" = yes ] ||
        fail 'this changes system files: run it as root (... | sudo sh)'
    for tool in base64 sha256sum sed grep tr fold readlink mktemp; do
        has "$tool" || fail "'$tool' is not installed, and this script needs it"
    done
    work=$(mktemp -d)
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [ "$dry" = yes ]; then pretend; fi
}

# What is noted of what was done goes to a copy, and nothing is put back, since nothing is changed.
pretend() {
    committed=yes
    if [ -f "$record" ]; then cat "$record" >"$work/record"; fi
    record=$work/record
}

finish() {
    status=$?
    trap - EXIT
    trap '' HUP INT TERM
    set +e
    if [ "$committed" = no ] && [ "$changes" -gt 0 ]; then
        complain "putting everything back as it was"
        put_back
    fi
    rm -rf "$work"
    exit "$status"
}

# ---- Changing files so that it can be taken back ------------------------------------------------

# Keeps what PATH holds now, for put_back.
note_change() {
    if [ -f "$1" ]; then
        cp -p "$1" "$work/was.$((changes + 1))"
    fi
    printf '%s\n' "$1" >"$work/path.$((changes + 1))"
    changes=$((changes + 1))
}

put_back() {
    while [ "$changes" -gt 0 ]; do
        IFS= read -r path <"$work/path.$changes"
        if [ -d "$path" ]; then
            rmdir "$path"
        elif [ -f "$work/was.$changes" ]; then
            cat "$work/was.$changes" >"$path"
        else
            rm -f "$path"
        fi
        changes=$((changes - 1))
    done
    if [ "$trust_altered" = yes ]; then
        drop_ca_links
        "$refresh" >/dev/null 2>&1 || complain "'$refresh' failed: run it by hand"
    fi
}

same_content() {
    [ -f "$1" ] && [ -f "$2" ] && [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]
}

# place FROM TO OWNER: gives TO the content of FROM. The new file is written beside the old one and
# moved over it, so that it is never seen half written and gets the security label of its directory.
place() {
    if same_content "$1" "$2"; then
        say "unchanged: $2"
        return 0
    fi
    verb=created
    if [ -e "$2" ]; then verb=changed; fi
    altered=yes
    remember "$owner" restart pending
    remember "$3" file "$2"
    if [ "$dry" = yes ]; then
        did "$verb" "$2"
        show "$1"
        return 0
    fi
    note_change "$2"
    note_change "$2.new"
    cat "$1" >"$2.new"
    chmod 0644 "$2.new"
    mv -f "$2.new" "$2"
    say "$verb: $2"
}

make_dir() {
    if [ -d "$1" ]; then return 0; fi
    remember "$owner" dir "$1"
    if [ "$dry" = yes ]; then return 0; fi
    note_change "$1"
    mkdir "$1"
}

# ---- The record of what was made ----------------------------------------------------------------

recorded() {
    [ -f "$record" ] && grep -qxF -e "$*" "$record"
}

remember() {
    if recorded "$*"; then return 0; fi
    note_change "$record"
    if [ ! -e "$record" ]; then
        say "# What the set-up scripts of entrepot made on this machine; their undo reads it." >"$record"
    fi
    say "$*" >>"$record"
}

forget() {
    if ! recorded "$*"; then return 0; fi
    note_change "$record"
    grep -vxF -e "$*" "$record" >"$record.new" || true
    if grep -q '^[^#]' "$record.new"; then
        mv -f "$record.new" "$record"
    else
        rm -f "$record" "$record.new"
    fi
}

owns_something() {
    if [ ! -f "$record" ]; then return 1; fi
    while read -r who _; do
        if [ "$who" = "$1" ]; then return 0; fi
    done <"$record"
    return 1
}

# The owners in the record, but for the one given and the shared trust.
other_owners() {
    if [ ! -f "$record" ]; then return 0; fi
    while read -r who _; do
        case $who in
        "#" | trust | "$1") ;;
        *) printf '%s\n' "$who" ;;
        esac
    done <"$record" | sort -u
}

# Removes the files and directories recorded for an owner, last made first.
remove_made_by() {
    if [ ! -f "$record" ]; then return 0; fi
    sed -n '1!G;h;$p' "$record" >"$work/latest-first"
    while read -r who kind path; do
        [ "$who" = "$1" ] || continue
        case $kind in
        file) remove_file "$path" ;;
        dir) remove_dir "$path" ;;
        *) continue ;;
        esac
        forget "$who" "$kind" "$path"
    done <"$work/latest-first"
}

remove_file() {
    if [ ! -e "$1" ]; then return 0; fi
    if [ "$dry" = no ]; then rm -f "$1"; fi
    did removed "$1"
}

remove_dir() {
    if [ ! -d "$1" ]; then return 0; fi
    if [ "$dry" = yes ]; then
        did removed "$1 (if nothing else is in it)"
    elif rmdir "$1" 2>/dev/null; then
        say "removed: $1"
    else
        say "kept: $1 (other files are in it)"
    fi
}

# ---- The CA certificate in the system's trust store ---------------------------------------------

# The first match counts. SUSE comes before Debian because both have update-ca-certificates.
find_trust_store() {
    if [ -d /etc/pki/trust/anchors ] && has update-ca-certificates; then
        anchors=/etc/pki/trust/anchors
        refresh=update-ca-certificates
    elif [ -d /etc/pki/ca-trust/source/anchors ] && has update-ca-trust; then
        anchors=/etc/pki/ca-trust/source/anchors
        refresh=update-ca-trust
    elif [ -d /etc/ca-certificates/trust-source/anchors ] && has update-ca-trust; then
        anchors=/etc/ca-certificates/trust-source/anchors
        refresh=update-ca-trust
    elif [ -d /usr/local/share/ca-certificates ] && has update-ca-certificates; then
        anchors=/usr/local/share/ca-certificates
        refresh=update-ca-certificates
    else
        fail "no trust store found that this script knows (Debian, Ubuntu, Alpine, Red Hat, Fedora," \
            "SUSE, Arch): is the package 'ca-certificates' installed?"
    fi
    ca_path=$anchors/entrepot.crt
}

# Any certificate is taken from the proxy's own TLS here: what arrives is judged by its fingerprint.
download_ca() {
    if has curl; then
        curl -q --globoff --fail --silent --show-error --insecure --connect-timeout 10 --max-time 30 \
            --output "$work/ca.crt" "$proxy_url/ca.crt" ||
            fail "$proxy_url/ca.crt could not be downloaded"
    elif has wget; then
        case $proxy_url in
        https:*) wget -q -T 30 --no-check-certificate -O "$work/ca.crt" "$proxy_url/ca.crt" ;;
        *) wget -q -T 30 -O "$work/ca.crt" "$proxy_url/ca.crt" ;;
        esac || fail "$proxy_url/ca.crt could not be downloaded"
    else
        fail "neither curl nor wget is installed, and one of them is needed"
    fi
}

# Leaves the one certificate in $work/ca.pem, written anew from the bytes that the fingerprint
# covers: text around or inside the PEM block would reach the trust store unchecked.
verify_ca() {
    begin_line='-----BEGIN CERTIFICATE-----'
    end_line='-----END CERTIFICATE-----'
    tr -d '\r' <"$work/ca.crt" | sed -n "/^$begin_line\$/,/^$end_line\$/p" >"$work/block"
    count=$(grep -cxF -e "$begin_line" "$work/block" || true)
    if [ "$count" -ne 1 ] ||
        ! sed '/^-----/d' "$work/block" | base64 -d >"$work/ca.der" 2>/dev/null; then
        fail "$proxy_url/ca.crt is not one PEM certificate: is that address really the proxy's?"
    fi
    found=$(sha256sum <"$work/ca.der")
    found=${found%% *}
    [ "$found" = "$ca_fingerprint" ] ||
        fail "the certificate at $proxy_url/ca.crt has the SHA-256 fingerprint $found," \
            "but this script was made for $ca_fingerprint: nothing was changed." \
            "If the proxy's CA was just renewed, fetch the script again."
    {
        say "$begin_line"
        say "$(base64 <"$work/ca.der" | tr -d '\n' | fold -w 64)"
        say "$end_line"
    } >"$work/ca.pem"
    say "CA certificate with SHA-256 fingerprint $found"
}

trust_ca() {
    if ! same_content "$work/ca.pem" "$ca_path"; then
        trust_altered=yes
        remember trust refresh pending
        drop_ca_links
    fi
    place "$work/ca.pem" "$ca_path" trust
    refresh_trust_store
}

distrust_ca() {
    find_trust_store
    if ! recorded trust file "$ca_path" && ! recorded trust refresh pending; then
        if [ -e "$ca_path" ]; then
            say "kept: $ca_path (there is no record that this script made it)"
        fi
        return 0
    fi
    remember trust refresh pending
    remove_made_by trust
    drop_ca_links
    refresh_trust_store
}

refresh_trust_store() {
    if ! recorded trust refresh pending; then return 0; fi
    trust_altered=yes
    if [ "$dry" = no ] && ! "$refresh" >"$work/refresh.log" 2>&1; then
        cat "$work/refresh.log" >&2
        fail "'$refresh' failed"
    fi
    forget trust refresh pending
    did refreshed "the system's trust store ($refresh)"
}

# Debian's tool neither removes the links to a certificate that has gone nor renames those of one
# that has changed; --fresh would, but drops the links of others too. Its hooks (the Java key store)
# only hear of a removal from here.
drop_ca_links() {
    if [ "$dry" = yes ]; then return 0; fi
    link=/etc/ssl/certs/entrepot.pem
    [ "$(readlink "$link" 2>/dev/null)" = "$ca_path" ] || return 0
    rm -f "$link"
    for hash_link in /etc/ssl/certs/*.[0-9]; do
        if [ -L "$hash_link" ] && [ ! -e "$hash_link" ] &&
            [ "$(readlink "$hash_link")" = entrepot.pem ]; then
            rm -f "$hash_link"
        fi
    done
    for hook in /etc/ca-certificates/update.d/*; do
        if [ -f "$hook" ] && [ -x "$hook" ]; then
            printf '%s\n' "-$link" | "$hook" >/dev/null 2>&1 || complain "$hook failed"
        fi
    done
}

# ---- A request through the proxy ----------------------------------------------------------------

# The bundle that the engines read: Go takes the first of these that is there.
find_bundle() {
    for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
        /etc/ssl/ca-bundle.pem /etc/pki/tls/cacert.pem \
        /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem /etc/ssl/cert.pem; do
        if [ -s "$bundle" ]; then
            pretend_trust
            return 0
        fi
    done
    fail "no bundle of trusted certificates was found: the engine could not check any registry"
}

# What the bundle would be.
pretend_trust() {
    if [ "$dry" = yes ] && [ -f "$work/ca.pem" ]; then
        cat "$bundle" "$work/ca.pem" >"$work/bundle"
        bundle=$work/bundle
    fi
}

check_url_valid() {
    case $1 in
    no) ;;
    https://*[!A-Za-z0-9._:/?=%~-]*) fail "not an address to check: $1" ;;
    https://?*) ;;
    *) fail "what to check must be an https:// address or 'no': $1" ;;
    esac
}

# A registry answers /v2/ with 200, or with 401 when it wants a token.
check_through_proxy() {
    if [ "$1" = no ]; then
        say "not checked: the way through the proxy"
        return 0
    fi
    find_bundle
    if has curl; then
        check_with_curl "$1"
    elif wget --version 2>/dev/null | grep -q '^GNU Wget' && [ "${proxy_url%%:*}" = http ]; then
        check_with_wget "$1"
    else
        say "not checked: the way through the proxy (that needs curl)"
        return 0
    fi
    say "checked: $1 answers through the proxy"
}

check_with_curl() {
    set -- "$1" --proxy "$proxy_url" --noproxy '' --cacert "$bundle"
    case $proxy_url in
    https:*) set -- "$@" --proxy-cacert "$bundle" ;;
    esac
    code=$(curl -q --globoff --silent --show-error --connect-timeout 10 --max-time 60 \
        --output "$work/answer" --write-out '%{http_code}' "$@" 2>"$work/check.log") || code=none
    case $code in
    200 | 401) return 0 ;;
    none) reason=$(cat "$work/check.log") ;;
    *)
        answer=$(head -c 1000 "$work/answer" 2>/dev/null | tr -s '[:cntrl:]' ' ')
        reason="HTTP status $code, where 200 or 401 was expected${answer:+ ($answer)}"
        ;;
    esac
    fail "$1 could not be reached through $proxy_url: $reason"
}

check_with_wget() {
    code=0
    wget -q --spider -T 60 -t 1 -e "https_proxy=$proxy_url" --ca-certificate="$bundle" "$1" \
        2>"$work/check.log" || code=$?
    # 6 is wget's word for 401.
    case $code in
    0 | 6) return 0 ;;
    5) reason="the certificate was not trusted" ;;
    *) reason="wget gave up with code $code $(cat "$work/check.log")" ;;
    esac
    fail "$1 could not be reached through $proxy_url: $reason"
}
