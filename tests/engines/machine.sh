#!/bin/sh
# Makes a machine that can be set up out of this one, in the mount namespace that this runs in:
# machine.sh DIR. Whoever has its process can enter it.
set -eu

dir=$1
mkdir "$dir/layers" "$dir/bin"
mount -t tmpfs tmpfs "$dir/layers"
for covered in /etc /usr/local/share; do
    layer=$dir/layers$covered
    mkdir -p "$layer/upper" "$layer/work"
    mount -t overlay -o "lowerdir=$covered,upperdir=$layer/upper,workdir=$layer/work" \
        overlay "$covered"
done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
rm -rf /etc/docker /etc/containerd
mkdir /etc/docker /etc/containerd
# What was put into the store by hand goes at the first run of this.
PATH=/usr/sbin:/usr/bin:/sbin:/bin update-ca-certificates >/dev/null
# The test itself starts the engines anew, as systemd would.
printf '#!/bin/sh\nexit 0\n' >"$dir/bin/systemctl"
chmod +x "$dir/bin/systemctl"
echo ready
exec sleep infinity
