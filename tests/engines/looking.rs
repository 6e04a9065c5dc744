//! The status page of a container, from the machine that it runs on: README's way, in a network as
//! an engine makes it.

use anyhow::{Result, ensure};

use crate::process::{command, find, run};

/// The machine and its container, each a network namespace: what is asked, from where, and the
/// status that is answered.
const NETWORK: &str = r#"
set -eu
ip link set lo up
unshare --net sleep infinity &
container=$!
# The namespace is another one once the program runs in it.
until [ "$(readlink /proc/$container/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.01; done
inside() { nsenter --net=/proc/$container/ns/net -- "$@"; }
ip link add docker0 type veth peer name eth0 netns $container
ip addr add 172.17.0.1/16 dev docker0
# Another container of the same network.
ip addr add 172.17.0.3/16 dev docker0
ip link set docker0 up
inside ip link set lo up
inside ip addr add 172.17.0.2/16 dev eth0
inside ip link set eth0 up
inside ip route add default via 172.17.0.1
ENTREPOT_ADMIN_LISTEN=0.0.0.0:3129 ENTREPOT_ADMIN_LOOK_FROM=gateway ENTREPOT_DATA_DIR=$HOME/data \
    nsenter --net=/proc/$container/ns/net -- "$1" serve >"$HOME/log" 2>&1 &
proxy=$!
trap 'kill $proxy $container' EXIT
ask() {
    curl -q -s -o /dev/null -w '%{http_code}\n' --noproxy '*' --max-time 20 "$@"
}
url=http://172.17.0.2:3129
until ask "$url/healthz" | grep -q 200; do kill -0 $proxy || { cat "$HOME/log" >&2; exit 1; }; sleep 0.05; done
# As a published port passes it on: by the name that it has on the machine.
host='Host: 127.0.0.1:3129'
echo "machine $(ask -H "$host" $url/api/v1/stats)"
echo "other $(ask --interface 172.17.0.3 -H "$host" $url/api/v1/stats)"
echo "deed $(ask -X POST -H "$host" $url/api/v1/verify)"
echo "rebound $(ask -H 'Host: evil.example:3129' $url/api/v1/stats)"
"#;

#[test]
fn the_machine_outside_a_container_looks_and_the_containers_beside_it_do_not() -> Result<()> {
    let home = tempfile::tempdir()?;
    for program in ["ip", "curl", "nsenter"] {
        find(program)?;
    }
    let mut network = command("unshare", home.path())?;
    network.args(["--net", "sh", "-c", NETWORK, "sh", env!("CARGO_BIN_EXE_entrepot")]);
    let told = run(&mut network)?;
    let expected = "machine 200\nother 403\ndeed 403\nrebound 403";
    ensure!(told.trim() == expected, "{told}");
    Ok(())
}
