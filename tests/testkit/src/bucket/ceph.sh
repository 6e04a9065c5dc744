#!/usr/bin/env bash
# One monitor, one OSD in memory, one radosgw, all on loopback: ceph.sh DIR RADOSGW-PORT MON-PORT.
# Prints "ready" when the gateway answers. Ends everything that it has started, and takes DIR away,
# when its standard input ends: that is when whoever has started it does, in whatever way.
set -euo pipefail
# Who interrupts the tests interrupts this too, which has to end the others.
trap '' INT HUP TERM

dir=$1 port=$2 mon=$3
conf=$dir/ceph.conf
fsid=$(</proc/sys/kernel/random/uuid)
mkdir -p "$dir"/{mon,osd,out}
cat >"$conf" <<END
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$mon]
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms bind msgr1 = false
run dir = $dir/out
admin socket = $dir/out/\$name.asok
log file = $dir/out/\$name.log
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 1
mon osd full ratio = .99
mon osd nearfull ratio = .98
mon osd backfillfull ratio = .985
[mon.a]
mon data = $dir/mon
[osd.0]
osd objectstore = memstore
memstore device bytes = 8589934592
osd data = $dir/osd
[client.rgw]
rgw data = $dir/out
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw enable usage log = false
rgw gc processor max time = 60
END
export CEPH_CONF=$conf

pids=()
start() {
    "$@" -f -c "$conf" >"$dir/out/$1.out" 2>&1 </dev/null &
    pids+=($!)
}
# shellcheck disable=SC2317 # by the trap
end() {
    kill -KILL "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap end EXIT

monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon]" "$dir/monmap" >/dev/null
ceph-mon --mkfs -i a --monmap "$dir/monmap" -c "$conf"
start ceph-mon -i a
osd=$(</proc/sys/kernel/random/uuid)
timeout 60 ceph -c "$conf" osd new "$osd" >/dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$osd" -c "$conf" 2>"$dir/out/mkfs.out"
start ceph-osd -i 0
timeout 120 radosgw-admin -n client.rgw -c "$conf" user create --uid="$USER_ID" \
    --display-name="$USER_ID" --access-key="$ACCESS_KEY" --secret="$SECRET_KEY" >/dev/null
start radosgw -n client.rgw
for _ in $(seq 300); do
    if curl -s -o /dev/null "http://127.0.0.1:$port/"; then
        echo ready
        # Until nobody holds the other end any more.
        cat >/dev/null
        exit
    fi
    kill -0 "${pids[@]}" 2>/dev/null || break
    sleep 0.2
done
tail -n 20 "$dir"/out/*.out >&2
exit 1
