//! The set-up scripts, run for real as root on machines that vanish afterwards.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the stages of a test are no product code: one that can't go on has failed"
)]

mod clients;
mod machine;
mod proxy;

use std::fs;
use std::process::Command;

use entrepot::setup::{Client, ProxyAddress, Script, check};
use machine::{Family, Outcome, Step, assert_same_tree, rendered, run};
use proxy::{Proxy, Registry};

const DROPIN: &str = "/etc/systemd/system/docker.service.d/zz-entrepot.conf";

fn proxy() -> Proxy {
    Proxy::start(Registry::Answers(401))
}

/// Everything that was told, one step after the other.
fn told(proxy: &Proxy, outcomes: &[Outcome]) -> String {
    proxy.mask(&outcomes.iter().map(Outcome::told).collect::<Vec<_>>().join("\n"))
}

/// A step that is refused with `message` and leaves the machine as it was.
#[track_caller]
fn assert_refused(outcome: &Outcome, message: &str) {
    assert_eq!(outcome.status, "1", "{}", outcome.told());
    assert!(outcome.stderr.contains(message), "{message:?} is not in\n{}", outcome.told());
    assert!(!outcome.commands.contains("restart"), "{}", outcome.told());
    outcome.assert_changed_nothing();
}

#[test]
fn debian_is_set_up_once_and_undone_without_a_trace() {
    let proxy = proxy();
    let show = format!(
        "cat {DROPIN} /etc/entrepot-setup.list; readlink /etc/ssl/certs/entrepot.pem
        tail -n 30 /etc/ssl/certs/ca-certificates.crt | grep -cxF \"$(sed -n 2p /usr/local/share/ca-certificates/entrepot.crt)\""
    );
    let outcomes = run(
        Family::Debian,
        &[
            Step::set_up(&proxy),
            Step::shell(&show),
            Step::set_up(&proxy),
            Step::undo(&proxy),
            Step::undo(&proxy),
        ],
    );
    insta::assert_snapshot!(told(&proxy, &outcomes));
    outcomes[2].assert_changed_nothing();
    outcomes[4].assert_changed_nothing();
    assert_same_tree(&outcomes[0].before, &outcomes[3].after);
}

#[test]
fn other_families_are_set_up_once_and_undone_without_a_trace() {
    for (family, anchors, tool) in [
        (Family::RedHat, "/etc/pki/ca-trust/source/anchors", "update-ca-trust"),
        (Family::Suse, "/etc/pki/trust/anchors", "update-ca-certificates"),
        (Family::Arch, "/etc/ca-certificates/trust-source/anchors", "update-ca-trust"),
    ] {
        let proxy = proxy();
        let steps = [
            Step::set_up(&proxy),
            Step::shell(&format!("cat {anchors}/entrepot.crt")),
            Step::set_up(&proxy),
            Step::undo(&proxy),
        ];
        let outcomes = run(family, &steps);
        for outcome in &outcomes {
            assert_eq!(outcome.status, "0", "{family:?}: {}", outcome.told());
        }
        let expected = format!("created: {anchors}/entrepot.crt");
        assert!(outcomes[0].stdout.contains(&expected), "{}", outcomes[0].told());
        assert!(outcomes[0].commands.starts_with(tool), "{}", outcomes[0].told());
        assert!(outcomes[0].commands.contains("systemctl restart docker.service"));
        assert_eq!(outcomes[1].stdout, proxy.ca_pem.trim_end());
        outcomes[2].assert_changed_nothing();
        assert_eq!(outcomes[2].commands, "", "{family:?}");
        assert_same_tree(&outcomes[0].before, &outcomes[3].after);
    }
}

#[test]
fn proxy_that_speaks_tls_is_set_up_under_https() {
    let proxy = proxy().over_tls();
    let steps = [Step::set_up(&proxy), Step::shell(&format!("cat {DROPIN}")), Step::undo(&proxy)];
    let outcomes = run(Family::Debian, &steps);
    assert_eq!(outcomes[0].status, "0", "{}", outcomes[0].told());
    let line = format!("Environment=\"HTTPS_PROXY=https://127.0.0.1:{}\"", proxy.port);
    assert!(outcomes[1].stdout.contains(&line), "{}", outcomes[1].stdout);
    assert_same_tree(&outcomes[0].before, &outcomes[2].after);
}

#[test]
fn failing_check_leaves_nothing_behind_and_restarts_nothing() {
    for registry in [Registry::Answers(503), Registry::Untrusted] {
        let proxy = Proxy::start(registry);
        for family in [Family::Debian, Family::Suse] {
            let outcomes = run(family, &[Step::set_up(&proxy)]);
            assert_refused(&outcomes[0], "could not be reached through http://127.0.0.1");
        }
    }
    let proxy = Proxy::start(Registry::Answers(503));
    let outcomes = run(Family::RedHat, &[Step::set_up(&proxy)]);
    insta::assert_snapshot!(told(&proxy, &outcomes));
}

#[test]
fn failing_check_keeps_the_set_up_of_before() {
    let good = proxy();
    let bad = Proxy::start(Registry::Untrusted);
    let steps = [Step::set_up(&good), Step::set_up(&bad), Step::undo(&good)];
    let outcomes = run(Family::Debian, &steps);
    assert_eq!(outcomes[0].status, "0", "{}", outcomes[0].told());
    assert_refused(&outcomes[1], "could not be reached through");
    assert_same_tree(&outcomes[0].before, &outcomes[2].after);
}

#[test]
fn renewed_ca_at_another_address_replaces_the_first() {
    let (first, second) = (proxy(), proxy());
    let steps = [
        Step::set_up(&first),
        Step::set_up(&second),
        Step::shell("cat /usr/local/share/ca-certificates/entrepot.crt"),
        Step::shell("find /etc/ssl/certs -lname entrepot.pem | wc -l"),
        Step::undo(&second),
    ];
    let outcomes = run(Family::Debian, &steps);
    assert_eq!(outcomes[1].status, "0", "{}", outcomes[1].told());
    assert!(outcomes[1].stdout.contains(&format!("changed: {DROPIN}")));
    assert!(outcomes[1].commands.contains("restart docker.service"));
    assert_eq!(outcomes[2].stdout, second.ca_pem.trim_end());
    assert_eq!(outcomes[3].stdout, "1");
    assert_same_tree(&outcomes[0].before, &outcomes[4].after);
}

#[test]
fn other_certificate_than_the_fingerprint_names_changes_nothing() {
    let proxy = proxy();
    let script = rendered(Client::Systemd, &proxy.url(), &"ab".repeat(32), false);
    let outcomes = run(Family::Debian, &[Step::shell(&script)]);
    assert_refused(&outcomes[0], "nothing was changed");
    assert_eq!(outcomes[0].commands, "");
    insta::assert_snapshot!(told(&proxy, &outcomes));
}

#[test]
fn what_is_not_one_certificate_is_refused() {
    let served: [fn(&str) -> String; 5] = [
        |_| String::new(),
        |_| "<html>It works!</html>\n".to_owned(),
        |pem| format!("{pem}{pem}"),
        |pem| pem.replace("-----END", "----END"),
        |pem| pem.replace("-----END", "!\nAAAA\n-----END"),
    ];
    for ca_crt in served {
        let proxy = Proxy::start_serving(Registry::Answers(401), ca_crt);
        let outcomes = run(Family::Suse, &[Step::set_up(&proxy)]);
        assert_eq!(outcomes[0].commands, "");
        assert_eq!(outcomes[0].status, "1", "{}", outcomes[0].told());
        outcomes[0].assert_changed_nothing();
    }
}

#[test]
fn text_around_the_certificate_does_not_reach_the_trust_store() {
    let proxy = Proxy::start_serving(Registry::Answers(401), |pem| {
        format!("subject=entrepot\r\n{}\r\ntrailing text\n", pem.replace('\n', "\r\n"))
    });
    let steps = [Step::set_up(&proxy), Step::shell("cat /etc/pki/trust/anchors/entrepot.crt")];
    let outcomes = run(Family::Suse, &steps);
    assert_eq!(outcomes[1].stdout, proxy.ca_pem.trim_end());
}

#[test]
fn truncated_download_does_nothing() {
    let proxy = proxy();
    for (client, undo) in [(Client::Systemd, false), (Client::Systemd, true), (Client::Kind, false)]
    {
        let script = rendered(client, &proxy.url(), &proxy.fingerprint, undo);
        let line_ends = script.match_indices('\n').map(|(at, _)| at);
        let last_bytes = script.len() - 80..script.len() - 1;
        let cuts = line_ends.chain(last_bytes).filter(|&at| at < script.len() - 1);
        let dir = tempfile::tempdir().unwrap();
        for at in cuts {
            fs::write(dir.path().join(format!("{at:06}")), &script[..at]).unwrap();
        }
        // The last byte is a line feed: without it the script is whole.
        fs::remove_file(dir.path().join(format!("{:06}", script.len() - 1))).ok();
        let every_cut = format!(
            "for cut in {}/*; do cat $cut | sh -s -- --unit docker.service || true; done",
            dir.path().display()
        );
        let outcomes = run(Family::Debian, &[Step::shell(&every_cut)]);
        assert_eq!(outcomes[0].commands, "");
        assert_eq!(outcomes[0].stdout, "");
        outcomes[0].assert_changed_nothing();
    }
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn foreign_drop_ins_stay_and_are_overridden() {
    let proxy = proxy();
    let foreign = "mkdir /etc/systemd/system/docker.service.d
        printf '[Service]\\nEnvironment=HTTPS_PROXY=http://old:3128\\n' \
            >/etc/systemd/system/docker.service.d/http-proxy.conf";
    let steps = [Step::set_up(&proxy).after(foreign), Step::undo(&proxy)];
    let outcomes = run(Family::Debian, &steps);
    let note = "http-proxy.conf sets a proxy too; it stays, and zz-entrepot.conf wins over it";
    assert!(outcomes[0].stdout.contains(note), "{}", outcomes[0].told());
    assert_same_tree(&outcomes[0].before, &outcomes[1].after);
}

#[test]
fn what_others_put_in_place_survives_the_undo() {
    let proxy = proxy();
    let pem = proxy.ca_pem.trim_end();
    let by_hand = format!(
        "echo '{pem}' >/etc/pki/trust/anchors/entrepot.crt; update-ca-certificates; : >$dir/commands"
    );
    let beside = "touch /etc/systemd/system/docker.service.d/mine.conf";
    let steps = [
        Step::set_up(&proxy).after(&by_hand),
        Step::undo(&proxy).after(beside),
        Step::shell("ls /etc/systemd/system/docker.service.d"),
    ];
    let outcomes = run(Family::Suse, &steps);
    insta::assert_snapshot!(told(&proxy, &outcomes));
}

#[test]
fn two_engines_share_the_certificate_until_the_last_is_undone() {
    let proxy = proxy();
    let both = "echo k3s.service >>$dir/installed; echo k3s.service >>$dir/running";
    let steps = [
        Step::set_up(&proxy).after(both),
        Step::set_up(&proxy).with_env("ENTREPOT_UNIT=k3s"),
        Step::shell("cat /etc/systemd/system/k3s.service.d/zz-entrepot.conf"),
        Step::undo(&proxy),
        Step::undo(&proxy),
        Step::set_up(&proxy).with_args(&["--undo", "--unit", "k3s.service"]),
    ];
    let outcomes = run(Family::Arch, &steps);
    insta::assert_snapshot!(told(&proxy, &outcomes));
    assert_same_tree(&outcomes[0].before, &outcomes[5].after);
}

#[test]
fn own_exceptions_join_the_list() {
    let proxy = proxy();
    let steps = [
        Step::set_up(&proxy)
            .with_env("NO_PROXY=.corp.example,localhost,[fd00::1%eth0],10.0.0.0/8,"),
        Step::shell(&format!("grep NO_PROXY {DROPIN}")),
    ];
    let outcomes = run(Family::Suse, &steps);
    assert_eq!(
        outcomes[1].stdout,
        "Environment=\"NO_PROXY=localhost,127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,\
         169.254.169.254,.svc,.cluster.local,.local,.corp.example,[fd00::1%%eth0]\""
    );
}

#[test]
fn calling_shell_settings_do_not_get_in_the_way() {
    let proxy = proxy();
    let mut step = Step::set_up(&proxy);
    for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        step = step.with_env(&format!("{name}=http://127.0.0.1:1"));
    }
    for name in ["CURL_CA_BUNDLE", "SSL_CERT_FILE"] {
        step = step.with_env(&format!("{name}=/nonexistent"));
    }
    // An exception for the registry would let the check pass without the proxy.
    let outcomes = run(Family::Suse, &[step.with_env("no_proxy=registry-1.docker.io")]);
    assert_eq!(outcomes[0].status, "0", "{}", outcomes[0].told());
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn settings_that_would_win_are_named() {
    let proxy = proxy();
    let daemon_json = "mkdir -p /etc/docker
        echo '{\"proxies\": {\"https-proxy\": \"http://old:1\"}}' >/etc/docker/daemon.json";
    let k3s_env = "echo CONTAINERD_HTTPS_PROXY=http://old:1 >/etc/systemd/system/k3s.service.env";
    let steps = [
        Step::set_up(&proxy).after(daemon_json),
        Step::set_up(&proxy).after(k3s_env).with_args(&["--unit", "k3s"]),
    ];
    let outcomes = run(Family::Debian, &steps);
    assert_refused(&outcomes[0], "/etc/docker/daemon.json sets \"proxies\", which wins");
    assert_refused(&outcomes[1], "k3s.service.env sets CONTAINERD_HTTPS_PROXY, which wins");
}

#[test]
fn unusable_options_are_refused() {
    let proxy = proxy();
    let set_up = || Step::set_up(&proxy);
    let refusals = [
        (set_up().with_args(&["--unit", "$(id)"]), "not the name of a systemd service"),
        (set_up().with_args(&["--unit", "../../x"]), "not the name of a systemd service"),
        (set_up().with_args(&["--unit", "-x"]), "not the name of a systemd service"),
        (set_up().with_args(&["--unit", ".service"]), "not the name of a systemd service"),
        (set_up().with_args(&["--unit"]), "--unit wants a value"),
        (set_up().with_args(&["--fresh"]), "unknown argument: --fresh"),
        (set_up().with_args(&["--check", "http://x"]), "must be an https:// address"),
        (set_up().with_args(&["--check", "https://x;id"]), "not an address to check"),
        (set_up().with_env("NO_PROXY=a\"b"), "a character that has no place there"),
        (set_up().with_env("NO_PROXY=a\\b"), "a character that has no place there"),
        (set_up().with_env("NO_PROXY=a,*"), "the engine would never use the proxy"),
    ];
    let (steps, messages): (Vec<_>, Vec<_>) = refusals.into_iter().unzip();
    for (outcome, message) in run(Family::Suse, &steps).iter().zip(messages) {
        assert_refused(outcome, message);
    }
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn machines_that_can_not_be_set_up_are_told_so() {
    let proxy = proxy();
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let steps = [
        Step::set_up(&proxy).under(nobody),
        Step::undo(&proxy).under(nobody),
        Step::set_up(&proxy).after("rm -r /etc/systemd"),
    ];
    let outcomes = run(Family::Debian, &steps);
    assert_refused(&outcomes[0], "run it as root");
    assert_refused(&outcomes[1], "run it as root");
    assert_refused(&outcomes[2], "this machine has no /etc/systemd");
    let outcomes = run(Family::None, &[Step::set_up(&proxy), Step::undo(&proxy)]);
    assert_refused(&outcomes[0], "no trust store found");
    assert_eq!(outcomes[1].stdout, "nothing to undo for docker.service");
    outcomes[1].assert_changed_nothing();
}

#[test]
fn engine_that_does_not_run_is_not_started() {
    let proxy = proxy();
    let steps = [
        Step::set_up(&proxy).after(": >$dir/running"),
        Step::undo(&proxy),
        Step::set_up(&proxy).after(": >$dir/installed"),
        Step::undo(&proxy).after("rmdir /run/systemd/system"),
    ];
    let outcomes = run(Family::Suse, &steps);
    for (outcome, reason) in outcomes.iter().zip([
        "it is not running",
        "it is not running",
        "it is not installed",
        "systemd is not running here",
    ]) {
        let line = format!("not restarted: docker.service ({reason})");
        assert!(outcome.stdout.contains(&line), "{}", outcome.told());
        assert!(!outcome.commands.contains("systemctl restart"), "{}", outcome.told());
        assert_eq!(outcome.status, "0");
    }
}

#[test]
fn restart_is_left_to_whoever_wants_that() {
    let proxy = proxy();
    let steps = [
        Step::set_up(&proxy).with_args(&["--no-restart"]),
        Step::set_up(&proxy),
        Step::undo(&proxy).with_env("ENTREPOT_RESTART=no"),
        Step::set_up(&proxy).with_env("ENTREPOT_RESTART=maybe"),
    ];
    let outcomes = run(Family::Debian, &steps);
    for outcome in &outcomes {
        assert!(!outcome.commands.contains("systemctl restart"), "{}", outcome.told());
    }
    for changed in [&outcomes[0], &outcomes[2]] {
        assert_eq!(changed.status, "0");
        let line = "not restarted: docker.service (--no-restart)";
        assert!(changed.stdout.contains(line), "{}", changed.told());
    }
    outcomes[1].assert_changed_nothing();
    assert_same_tree(&outcomes[0].before, &outcomes[2].after);
    assert_refused(&outcomes[3], "ENTREPOT_RESTART is neither yes nor no: maybe");
}

#[test]
fn restart_that_failed_is_made_up_for_by_the_next_run() {
    let proxy = proxy();
    let steps = [
        Step::set_up(&proxy).after("touch $dir/restart-fails"),
        Step::set_up(&proxy).after("rm $dir/restart-fails"),
        Step::set_up(&proxy),
        Step::undo(&proxy).after("touch $dir/restart-fails"),
        Step::undo(&proxy).after("rm $dir/restart-fails"),
        Step::undo(&proxy),
    ];
    let outcomes = run(Family::Suse, &steps);
    let restarts: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome.status.as_str(), outcome.commands.contains("systemctl restart")))
        .collect();
    let expected = [("1", true), ("0", true), ("0", false), ("1", true), ("0", true), ("0", false)];
    assert_eq!(restarts, expected);
    assert!(outcomes[0].stderr.contains("docker.service did not restart"));
    assert_same_tree(&outcomes[0].before, &outcomes[5].after);
}

/// A trust-store tool that stops the script that calls it, once.
fn stopping_with(signal: &str) -> String {
    format!(
        "cp $dir/bin/update-ca-certificates $dir/tool
        printf '#!/bin/sh\\ncp {{0}}/tool {{0}}/bin/update-ca-certificates; kill -{signal} $PPID\\n' |
            sed \"s|{{0}}|$dir|g\" >$dir/bin/update-ca-certificates"
    )
}

#[test]
fn signal_puts_everything_back() {
    let proxy = proxy();
    let outcomes = run(Family::Suse, &[Step::set_up(&proxy).after(&stopping_with("TERM"))]);
    assert_eq!(outcomes[0].status, "143", "{}", outcomes[0].told());
    assert!(outcomes[0].stderr.contains("putting everything back"));
    outcomes[0].assert_changed_nothing();
}

#[test]
fn killed_run_is_finished_by_the_next_and_can_be_undone() {
    let proxy = proxy();
    let sweep = "rm -r $TMPDIR/*";
    for last in [Step::set_up(&proxy), Step::undo(&proxy)] {
        let steps = [
            Step::set_up(&proxy).after(&stopping_with("KILL")),
            last.after(sweep),
            Step::undo(&proxy),
        ];
        let outcomes = run(Family::Suse, &steps);
        assert_eq!(outcomes[0].status, "137", "{}", outcomes[0].told());
        assert_eq!(outcomes[1].status, "0", "{}", outcomes[1].told());
        assert!(outcomes[1].commands.contains("restart docker.service"));
        assert_same_tree(&outcomes[0].before, &outcomes[2].after);
    }
}

#[test]
fn lost_record_still_lets_the_drop_in_be_undone() {
    let proxy = proxy();
    let steps = [Step::set_up(&proxy), Step::undo(&proxy).after("rm /etc/entrepot-setup.list")];
    let outcomes = run(Family::Suse, &steps);
    insta::assert_snapshot!(told(&proxy, &outcomes[1..]));
}

#[test]
fn wget_does_where_there_is_no_curl() {
    let no_curl = "mount --bind /dev/null /usr/bin/curl";
    let good = proxy();
    let outcomes = run(Family::Debian, &[Step::set_up(&good).after(no_curl), Step::undo(&good)]);
    assert!(outcomes[0].stdout.contains("answers through the proxy"), "{}", outcomes[0].told());
    assert_same_tree(&outcomes[0].before, &outcomes[1].after);
    let bad = Proxy::start(Registry::Untrusted);
    let outcomes = run(Family::Debian, &[Step::set_up(&bad).after(no_curl)]);
    assert_refused(&outcomes[0], "the certificate was not trusted");
    let neither = format!("{no_curl}; mount --bind /dev/null /usr/bin/wget");
    let outcomes = run(Family::Debian, &[Step::set_up(&good).after(&neither)]);
    assert_refused(&outcomes[0], "neither curl nor wget is installed");
}

#[test]
fn check_can_be_left_out() {
    let proxy = Proxy::start(Registry::Untrusted);
    let outcomes = run(Family::Suse, &[Step::set_up(&proxy).with_env("ENTREPOT_CHECK=no")]);
    assert_eq!(outcomes[0].status, "0", "{}", outcomes[0].told());
    assert!(outcomes[0].stdout.contains("not checked: the way through the proxy"));
}

#[test]
fn scripts_please_shellcheck_and_every_shell() {
    let dir = tempfile::tempdir().unwrap();
    for client in Client::ALL {
        for undo in [false, true] {
            let path = dir.path().join(format!("{}-{undo}.sh", client.name()));
            let script = rendered(client, "http://proxy.corp:3128", &"ab".repeat(32), undo);
            fs::write(&path, script).unwrap();
        }
    }
    let address = ProxyAddress::from_url("http://proxy.corp:3128").unwrap();
    let fingerprint = &"ab".repeat(32);
    let asked = Script { address: &address, fingerprint, undo: false, expected_fingerprint: None };
    fs::write(dir.path().join("check.sh"), check(&asked).unwrap()).unwrap();
    let scripts = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    for (command, arguments) in [
        ("shellcheck", ["--shell=sh", "--severity=style"]),
        ("shellcheck", ["--shell=dash", "--severity=style"]),
        ("dash", ["-n", "-e"]),
        ("bash", ["--posix", "-n"]),
    ] {
        for path in scripts() {
            let output =
                Command::new(command).args(arguments).arg(&path).output().unwrap_or_else(|error| {
                    panic!("{command}: {error}: apt-get install {command}")
                });
            let report = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{command} {}: {report}", path.display());
        }
    }
}
