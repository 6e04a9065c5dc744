#!/bin/sh
# Makes a machine of FAMILY out of this one, in a mount namespace of its own, and runs the steps
# that lie in DIR/steps there: driver.sh DIR FAMILY. What each did is left beside it.
set -eu

dir=$1
family=$2
layers=$dir/layers
export TMPDIR="$dir/tmp"

cover() {
    layer=$layers/$(printf %s "$1" | tr / _)
    mkdir -p "$layer/upper" "$layer/work"
    mount -t overlay -o "lowerdir=$1,upperdir=$layer/upper,workdir=$layer/work" overlay "$1"
}

# stub NAME: a command that notes its call and then does what standard input says.
stub() {
    {
        # shellcheck disable=SC2016 # for the stub to expand
        printf '#!/bin/sh\necho "%s${*:+ $*}" >>%s\n' "$1" "$dir/commands"
        cat
    } >"$dir/bin/$1"
    chmod +x "$dir/bin/$1"
}

# foreign_store ANCHORS BUNDLE TOOL: a trust store that is not Debian's.
foreign_store() {
    mount -t tmpfs tmpfs /usr/local/share
    mount -t tmpfs tmpfs /etc/ssl
    mkdir -p "$1" "${2%/*}" /etc/ssl/certs
    cp "$dir/other-ca.pem" "$1/other.crt"
    echo "cat $1/*.crt >$2" | stub "$3"
    "$3"
}

mkdir -p "$layers" "$dir/bin" "$TMPDIR"
# What /bin/sh is on such a machine.
case $family in
debian | none) ln -s "$(command -v dash)" "$dir/bin/sh" ;;
*) ln -s "$(command -v bash)" "$dir/bin/sh" ;;
esac
PATH=$dir/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs tmpfs "$layers"
cover /etc
cover /usr/local/share
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system

echo docker.service >"$dir/installed"
echo docker.service >"$dir/running"
stub systemctl <<END
case \$1 in
cat) grep -qx "\$2" $dir/installed ;;
is-active) grep -qx "\$3" $dir/running ;;
restart) [ ! -e $dir/restart-fails ] ;;
esac
END

case $family in
debian)
    mount -t tmpfs tmpfs /etc/ca-certificates/update.d
    printf '#!/bin/sh\nsed "s/^/hook: /" >>%s\n' "$dir/commands" >/etc/ca-certificates/update.d/hook
    chmod +x /etc/ca-certificates/update.d/hook
    # Debian's own tool needs its own search path to find the real one.
    echo 'PATH=/usr/sbin:/usr/bin:/sbin:/bin exec /usr/sbin/update-ca-certificates "$@"' |
        stub update-ca-certificates
    update-ca-certificates >/dev/null
    ;;
red-hat)
    foreign_store /etc/pki/ca-trust/source/anchors /etc/pki/tls/certs/ca-bundle.crt update-ca-trust
    ;;
suse)
    foreign_store /etc/pki/trust/anchors /etc/ssl/ca-bundle.pem update-ca-certificates
    ;;
arch)
    foreign_store /etc/ca-certificates/trust-source/anchors /etc/ssl/certs/ca-certificates.crt \
        update-ca-trust
    ;;
none)
    mount -t tmpfs tmpfs /usr/local/share
    ;;
esac

# Every path with its type, mode, owner, link target and content.
tree() {
    find /etc /usr/local/share /run "$TMPDIR" -printf '%p %y %m %u %l\n' | sort
    # Java's own hook writes its store anew each time others change: no two are the same.
    find /etc /usr/local/share /run "$TMPDIR" -type f -not -path /etc/ssl/certs/java/cacerts \
        -exec sha256sum {} + | sort -k 2
}

for step in "$dir"/steps/*; do
    : >"$dir/commands"
    # shellcheck disable=SC1091 # written by the test
    . "$step/prepare"
    tree >"$step/before"
    status=0
    # shellcheck disable=SC2002,SC2046 # piped as a person would; one option a line, without blanks
    cat "$step/script" | env -i "PATH=$PATH" "TMPDIR=$TMPDIR" "DIR=$dir" $(cat "$step/environment") \
        $(cat "$step/runner") sh -s -- $(cat "$step/arguments") \
        >"$step/stdout" 2>"$step/stderr" || status=$?
    echo "$status" >"$step/status"
    tree >"$step/after"
    cp "$dir/commands" "$step/commands"
done
