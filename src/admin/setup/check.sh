
# ---- What is found out --------------------------------------------------------------------------

image=    # its name
engine=   # the one that is looked at; all that are here unless given
work=     # a private directory
failed=0  # how many checks have failed
proved=no # "yes" once an engine has pulled through the proxy
undo_pull= # what removes the image that is pulled now

say() {
    printf '%s\n' "$*"
}

ok() {
    say "ok    $*"
}

note() {
    say "note  $*"
}

# wrong WHAT CURE
wrong() {
    say "WRONG $1"
    say "      $2"
    failed=$((failed + 1))
}

fail() {
    printf 'entrepot: %s\n' "$*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

finish() {
    status=$?
    trap - EXIT
    trap '' HUP INT TERM
    set +e
    if [ -n "$undo_pull" ]; then "$undo_pull" >/dev/null 2>&1; fi
    rm -rf "$work"
    exit "$status"
}

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --image | --engine)
            [ $# -ge 2 ] || fail "$1 wants a value"
            case $1 in
            --image) image=$2 ;;
            --engine) engine=$2 ;;
            esac
            shift
            ;;
        *) fail "unknown argument: $1 (there are --help, --image NAME, --engine NAME)" ;;
        esac
        shift
    done
    case $engine in
    '' | docker | podman | containerd | nerdctl | buildah | skopeo | none) ;;
    *) fail "--engine is one of docker, podman, containerd, nerdctl, buildah, skopeo, none: $engine" ;;
    esac
}

begin() {
    for tool in curl sed awk tr mktemp; do
        has "$tool" || fail "'$tool' is not installed, and this script needs it"
    done
    work=$(mktemp -d)
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    : >"$work/curlrc"
    chmod 0600 "$work/curlrc"
    if [ -n "${ENTREPOT_PROXY_USER:-}" ]; then
        escaped=$(printf '%s' "$ENTREPOT_PROXY_USER" | sed 's/[\\"]/\\&/g')
        printf 'proxy-user = "%s"\n' "$escaped" >"$work/curlrc"
    fi
}

# A time in hundredths of a second, where the system tells it so exactly.
now() {
    if [ -r /proc/uptime ]; then
        awk '{ printf "%d\n", $1 * 100 }' /proc/uptime
    else
        say "$(date +%s)00"
    fi
}

# ---- The proxy ----------------------------------------------------------------------------------

# ask PATH: a page of the proxy's own. Its certificate says nothing here: no secret goes there.
ask() {
    curl -q --globoff --silent --show-error --fail --insecure --noproxy '*' \
        --connect-timeout 10 --max-time 30 "$proxy_url$1"
}

check_proxy() {
    if ask /healthz >"$work/healthz" 2>"$work/log"; then
        ok "proxy: $proxy_url answers"
    else
        wrong "proxy: $proxy_url does not answer: $(cat "$work/log")" \
            "is that its address, does it run, and is there a firewall between?"
        exit 1
    fi
}

# The name in its full form: registry, repository, and tag or digest.
choose_image() {
    if [ -z "$image" ]; then
        image=$(ask /check/image 2>"$work/log") || fail "the proxy names no image: $(cat "$work/log")"
    fi
    case $image in
    '' | *[!A-Za-z0-9._:/@-]*) fail "not the name of an image: $image" ;;
    esac
    case ${image%%/*} in
    "$image") image=docker.io/library/$image ;;
    *.* | *:* | localhost) ;;
    *) image=docker.io/$image ;;
    esac
    registry=${image%%/*}
    repository=${image#*/}
    case $repository in
    *@*)
        reference=${repository#*@}
        repository=${repository%%@*}
        repository=${repository%%:*}
        ;;
    *:*)
        reference=${repository##*:}
        repository=${repository%:*}
        ;;
    *)
        reference=latest
        image=$image:latest
        ;;
    esac
    case $registry in
    docker.io | index.docker.io)
        registry=docker.io
        host='registry-1.docker.io'
        case $repository in
        */*) ;;
        *) repository=library/$repository ;;
        esac
        ;;
    *) host=$registry ;;
    esac
}

# ---- Trust --------------------------------------------------------------------------------------

# The bundle that the engines read: Go takes the first of these that is there.
find_bundle() {
    for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
        /etc/ssl/ca-bundle.pem /etc/pki/tls/cacert.pem \
        /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem /etc/ssl/cert.pem; do
        if [ -s "$bundle" ]; then return 0; fi
    done
    bundle=
}

# through URL ...: a request through the proxy, by what $trusted has.
through() {
    set -- "$@" --proxy "$proxy_url" --noproxy '' --cacert "$trusted"
    case $proxy_url in
    https:*) set -- "$@" --proxy-cacert "$trusted" ;;
    esac
    curl -q --globoff --silent --show-error --config "$work/curlrc" --connect-timeout 10 \
        --max-time 300 "$@"
}

check_trust() {
    ask /ca.crt >"$work/ca.crt" 2>"$work/log" || fail "the proxy has no /ca.crt: $(cat "$work/log")"
    if [ "$(uname -s)" = Darwin ]; then
        # Docker Desktop and Podman's machine take what the keychain trusts.
        if security find-certificate -a -Z 2>/dev/null | grep -qi "$ca_fingerprint"; then
            ok "trust: the keychain has the proxy's CA"
        else
            wrong "trust: the keychain has not got the proxy's CA" \
                "see 'Docker Desktop' on $proxy_url/"
        fi
        trusted=$work/ca.crt
        return 0
    fi
    find_bundle
    trusted=${bundle:-$work/ca.crt}
    code=0
    through --dump-header "$work/head" --output "$work/answer" --write-out '%{http_code}' \
        "https://$host/v2/" >"$work/status" 2>"$work/log" || code=$?
    case $code in
    0) ok "trust: https://$host/v2/ answers $(cat "$work/status") through the proxy, whose CA is trusted here" ;;
    60 | 77)
        wrong "trust: this machine does not trust the proxy's CA" \
            "curl -fsS '$proxy_url/setup/ca?fp=$ca_fingerprint' | sudo sh"
        trusted=$work/ca.crt
        ;;
    *)
        case $(cat "$work/log") in
        *407*)
            wrong "trust: the proxy asks for a user" \
                "run this with ENTREPOT_PROXY_USER=NAME:PASSWORD in front of sh"
            ;;
        *)
            wrong "trust: https://$host/v2/ can't be had through the proxy: $(cat "$work/log")$(refusal)" \
                "choose an image of a registry that the proxy knows (--image), or have it let you in"
            ;;
        esac
        exit 1
        ;;
    esac
}

# What the proxy has said of a tunnel that it did not open.
refusal() {
    tr -d '\r' <"$work/head" 2>/dev/null | sed -n '1s/^HTTP[^ ]* \([45].*\)/ (\1)/p'
}

# ---- The cache, asked without any engine --------------------------------------------------------

# fetch PATH FILE: an object of the image. Whether it was a hit is added to $work/hits.
fetch() {
    status=$(through --dump-header "$work/head" --output "$2" --write-out '%{http_code}' \
        --header 'Accept: application/vnd.oci.image.index.v1+json' \
        --header 'Accept: application/vnd.docker.distribution.manifest.list.v2+json' \
        --header 'Accept: application/vnd.oci.image.manifest.v1+json' \
        --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
        --location "https://$host/v2/$repository/$1" 2>"$work/log") || status=none
    case $status in
    200) ;;
    none)
        reason=$(cat "$work/log")$(refusal)
        return 1
        ;;
    *)
        reason=$(sed -n -E 's/.*"message" *: *"(([^"\\]|\\.)*)".*/\1/p' "$2" | head -n 1)
        reason="HTTP status $status${reason:+: $reason}"
        return 1
        ;;
    esac
    if tr -d '\r' <"$work/head" | grep -qi '^cache-status:.*entrepot; *hit'; then
        say hit >>"$work/hits"
    else
        say miss >>"$work/hits"
    fi
}

machine() {
    case $(uname -m) in
    x86_64) say amd64 ;;
    aarch64 | arm64) say arm64 ;;
    armv*) say arm ;;
    i?86) say 386 ;;
    *) uname -m ;;
    esac
}

# Of an index the digest for this machine, or nothing.
for_this_machine() {
    tr -d ' \t\r\n' <"$1" | awk -v RS='{' -v arch="\"architecture\":\"$(machine)\"" '
        match($0, /"digest":"[a-z0-9]+:[0-9a-f]+"/) {
            digest = substr($0, RSTART + 10, RLENGTH - 11)
        }
        index($0, arch) && index($0, "\"os\":\"linux\"") { print digest; exit }'
}

digests() {
    tr -d ' \t\r\n' <"$1" | sed 's/[{,]/\
/g' | sed -n 's/^"digest":"\([a-z0-9]*:[0-9a-f]*\)".*/\1/p' |
        sort -u
}

fetch_image() {
    : >"$work/hits"
    fetch "manifests/$reference" "$work/manifest" || return 1
    if grep -q '"manifests"' "$work/manifest"; then
        chosen=$(for_this_machine "$work/manifest")
        if [ -z "$chosen" ]; then
            reason="it is not there for $(machine)"
            return 1
        fi
        fetch "manifests/$chosen" "$work/manifest" || return 1
    fi
    digests "$work/manifest" >"$work/digests"
    while read -r digest; do
        fetch "blobs/$digest" "$work/blob" || return 1
    done <"$work/digests"
}

check_cache() {
    for turn in first second; do
        began=$(now)
        if ! fetch_image; then
            wrong "cache: $image could not be fetched: $reason" \
                "choose another image with --image NAME, or mend what the proxy speaks of"
            return 0
        fi
        took=$(($(now) - began))
        if [ "$turn" = first ]; then first=$took; fi
    done
    if grep -q miss "$work/hits"; then
        wrong "cache: the second fetch of $image did not come from the cache" \
            "the proxy's log says why: is its disk full, or are there few pulls left?"
    else
        ok "cache: second fetch of $image: all from the cache$(compared "$first" "$took")"
    fi
}

# compared FIRST SECOND: in hundredths of a second.
compared() {
    awk -v first="$1" -v second="$2" 'BEGIN {
        if (second < 1) second = 1
        printf ", %.2f s", second / 100
        times = first / second
        if (times >= 1.5) printf ", %.0f x faster than the first", times
    }'
}

# ---- The engines --------------------------------------------------------------------------------

# What the proxy has served of this image to this machine: one number, by its name.
served() {
    ask "/check/served?repository=$registry/$repository" >"$work/served" 2>"$work/log" ||
        fail "the proxy does not tell what it has served: $(cat "$work/log")"
}

told() {
    sed -n "s/^$1=//p" "$work/served"
}

# Whether all that has been served since $manifests and $blobs came from the cache. The proxy notes
# a request a moment after it was answered.
count_pull() {
    for _ in 1 2 3 4 5; do
        served
        new_manifests=$(($(told manifests) - manifests))
        new_blobs=$(($(told blobs) - blobs))
        new_hits=$(($(told hits) - hits))
        if [ "$new_manifests" -gt 0 ]; then return 0; fi
        sleep 1
    done
}

mark() {
    served
    manifests=$(told manifests)
    blobs=$(told blobs)
    hits=$(told hits)
}

# prove NAME HAS PULL REMOVE CURE: two pulls by an engine, by these functions.
prove() {
    name=$1 is_here=no
    if "$2" >/dev/null 2>&1; then
        is_here=yes
        note "$name: it has $image already: what it does not need is not asked for"
    else
        undo_pull=$4
    fi
    for turn in first second; do
        mark
        began=$(now)
        if ! "$3" >"$work/pull.log" 2>&1; then
            explain_failure "$name" "$5"
            return 0
        fi
        took=$(($(now) - began))
        count_pull
        if [ "$new_manifests" -eq 0 ]; then
            wrong "$name: it has pulled $image, and nothing of that came through $proxy_url from $(told client)" \
                "$5"
            forget_pull
            return 0
        fi
        if [ "$turn" = first ]; then first=$took; fi
        forget_pull
    done
    proved=yes
    if [ "$new_hits" -lt $((new_manifests + new_blobs)) ]; then
        wrong "$name: the second pull of $image did not all come from the cache ($new_hits of $((new_manifests + new_blobs)) requests)" \
            "the proxy's log says why: is its disk full, or are there few pulls left?"
    else
        ok "$name: second pull of $image: all from the cache$(compared "$first" "$took")"
    fi
}

forget_pull() {
    if [ "$is_here" = no ]; then "$undo_pull" >/dev/null 2>&1 || true; fi
}

explain_failure() {
    words=$(tail -n 3 "$work/pull.log" | tr -s '[:cntrl:]' ' ')
    case $words in
    *x509* | *certificate*)
        wrong "$1: $words" "curl -fsS '$proxy_url/setup/ca?fp=$ca_fingerprint' | sudo sh   (and restart it)"
        ;;
    *) wrong "$1: $words" "$2" ;;
    esac
}

# wanted NAME PROGRAM: whether an engine is to be looked at.
wanted() {
    case $engine in
    '') has "$2" ;;
    "$1")
        has "$2" || fail "'$2' is not installed"
        ;;
    *) return 1 ;;
    esac
}

# absent NAME WORDS: an engine that can't be used; that is wrong where it was asked for.
absent() {
    if [ "$engine" = "$1" ]; then
        wrong "$1: $2" "start it, or run this as a user who may use it (sudo)"
    else
        note "$1: $2"
    fi
}

last_words() {
    grep . "$work/log" | tail -n 1
}

set_up() {
    say "curl -fsS '$proxy_url/setup/$1?fp=$ca_fingerprint' | sudo sh"
}

docker_has() { docker image inspect "$image"; }
docker_pull() { docker pull --quiet "$image"; }
docker_remove() { docker image rm "$image"; }

check_docker() {
    wanted docker docker || return 0
    if ! docker version --format '{{.Server.Version}}' >"$work/log" 2>&1; then
        absent docker "no daemon answers: $(last_words)"
        return 0
    fi
    daemon=$(docker info --format '{{.HTTPSProxy}}' 2>/dev/null) || daemon=
    say "      docker: the daemon's proxy is ${daemon:-none}"
    prove docker docker_has docker_pull docker_remove "$(set_up systemd)"
}

podman_has() { podman image exists "$image"; }
podman_pull() { podman pull --quiet "$image"; }
podman_remove() { podman image rm "$image"; }

check_podman() {
    wanted podman podman || return 0
    prove podman podman_has podman_pull podman_remove "$(set_up podman)"
}

buildah_has() { buildah inspect --type image "$image"; }
buildah_pull() { buildah pull --quiet "$image"; }
buildah_remove() { buildah rmi "$image"; }

check_buildah() {
    wanted buildah buildah || return 0
    prove buildah buildah_has buildah_pull buildah_remove "$(set_up podman)"
}

skopeo_has() { false; }
skopeo_pull() {
    rm -rf "$work/skopeo"
    skopeo copy --quiet "docker://$image" "dir:$work/skopeo"
}
skopeo_remove() { rm -rf "$work/skopeo"; }

# It reads no settings of its own.
check_skopeo() {
    wanted skopeo skopeo || return 0
    if [ -z "$engine${HTTPS_PROXY:-}${https_proxy:-}" ] &&
        [ ! -e /etc/containers/registries.conf.d/zz-entrepot.conf ]; then
        note "skopeo: it reads its proxy from the environment, and there is none (HTTPS_PROXY=$proxy_url)"
        return 0
    fi
    prove skopeo skopeo_has skopeo_pull skopeo_remove "run it with HTTPS_PROXY=$proxy_url"
}

# What systemd gives to containerd: whoever fetches beside the daemon has to go the same way.
as_containerd() {
    if has systemctl; then
        for assignment in $(systemctl show --property=Environment --value containerd.service 2>/dev/null); do
            case $assignment in
            *_PROXY=* | *_proxy=*) set -- "$assignment" "$@" ;;
            esac
        done
    fi
    env "$@"
}

crictl_has() { crictl inspecti --quiet "$image"; }
crictl_pull() { crictl pull "$image"; }
crictl_remove() { crictl rmi "$image"; }

ctr_has() { false; }
ctr_pull() {
    if [ -d /etc/containerd/certs.d ]; then
        as_containerd ctr --namespace entrepot-check images pull --hosts-dir /etc/containerd/certs.d "$image"
    else
        as_containerd ctr --namespace entrepot-check images pull "$image"
    fi
}
ctr_remove() {
    ctr --namespace entrepot-check images rm --sync "$image"
    ctr namespaces rm entrepot-check
}

check_containerd() {
    case $engine in '' | containerd) ;; *) return 0 ;; esac
    if has crictl && crictl version >/dev/null 2>&1; then
        prove containerd crictl_has crictl_pull crictl_remove "$(set_up containerd)"
    elif ! has ctr; then
        if [ "$engine" = containerd ]; then fail "neither 'crictl' nor 'ctr' is installed"; fi
    elif ! ctr version >"$work/log" 2>&1; then
        absent containerd "it does not answer: $(last_words)"
    elif [ -z "$engine" ] && has docker; then
        # Docker brings a containerd along, which fetches nothing.
        return 0
    else
        prove containerd ctr_has ctr_pull ctr_remove "$(set_up containerd)"
    fi
}

nerdctl_has() { nerdctl image inspect "$image"; }
nerdctl_pull() { as_containerd nerdctl pull --quiet "$image"; }
nerdctl_remove() { nerdctl image rm "$image"; }

check_nerdctl() {
    wanted nerdctl nerdctl || return 0
    if ! nerdctl info >"$work/log" 2>&1; then
        absent nerdctl "no containerd answers: $(last_words)"
        return 0
    fi
    prove nerdctl nerdctl_has nerdctl_pull nerdctl_remove "$(set_up containerd)"
}

# ---- What is run --------------------------------------------------------------------------------

main() {
    read_options "$@"
    begin
    check_proxy
    choose_image
    check_trust
    check_cache
    check_docker
    check_podman
    check_containerd
    check_nerdctl
    check_buildah
    check_skopeo
    if [ "$failed" -gt 0 ]; then
        say "$failed of the checks failed"
        exit 1
    elif [ "$proved" = yes ]; then
        say "this machine pulls through $proxy_url"
    else
        say "$proxy_url works from here; no engine was asked to pull"
    fi
}

# Only when all of this line has arrived is anything run; and nothing that is run may read standard
# input, because that is this script itself when it is piped into a shell.
{ main "$@" </dev/null; }
