//! What the rendered scripts look like, and that nothing unexpected gets into them.

use proptest::prelude::*;

use super::*;

fn address(url: &str) -> ProxyAddress {
    ProxyAddress::from_url(url).unwrap()
}

fn ca_fingerprint() -> String {
    "0123456789abcdef".repeat(4)
}

fn render_for(url: &str, undo: bool, expected: Option<&str>) -> Result<String, SetupError> {
    render(Client::Systemd, url, undo, expected)
}

fn render(
    client: Client,
    url: &str,
    undo: bool,
    expected: Option<&str>,
) -> Result<String, SetupError> {
    script(
        client,
        &Script {
            address: &address(url),
            fingerprint: &ca_fingerprint(),
            undo,
            expected_fingerprint: expected,
        },
    )
}

/// The only lines in which two scripts may differ.
fn assignments(script: &str) -> Vec<&str> {
    let names = ["proxy_url='", "ca_fingerprint='", "mode='"];
    script.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect()
}

#[test]
fn script_for_systemd() {
    insta::assert_snapshot!(render_for("http://proxy.corp:3128", false, None).unwrap());
}

#[test]
fn every_client_has_a_script_of_its_own() {
    for client in Client::ALL {
        assert_eq!(Client::named(client.name()), Some(client));
        let plain = render(client, "http://proxy.corp:3128", false, None).unwrap();
        let page = format!("/setup/{}", client.name());
        assert!(plain.contains(&page), "{page} is not in its own script");
        assert!(plain.is_ascii());
        assert!(plain.ends_with("\n{ main \"$@\" </dev/null; }\n"));
        // A node's script stands within that of kind.
        let copies = if client == Client::Kind { 2 } else { 1 };
        assert_eq!(assignments(&plain).len(), 3 * copies, "{page}");
        assert_eq!(plain.matches(END_OF_NODE_SCRIPT).count(), 2 * (copies - 1), "{page}");
    }
    for none in ["", "Systemd", "x", "systemd/"] {
        assert_eq!(Client::named(none), None, "{none}");
    }
}

#[test]
fn values_stand_in_single_quotes_at_the_top_and_nowhere_else() {
    let plain = render_for("http://proxy.corp:3128", false, None).unwrap();
    let undo = render_for("https://[fd00::1]:8443", true, None).unwrap();
    insta::assert_snapshot!(assignments(&plain).join("\n"), @r"
    proxy_url='http://proxy.corp:3128'
    ca_fingerprint='0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'
    mode='setup'
    ");
    insta::assert_snapshot!(assignments(&undo).join("\n"), @r"
    proxy_url='https://[fd00::1]:8443'
    ca_fingerprint='0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'
    mode='undo'
    ");
    let rest = |script: &str| {
        let values = assignments(script).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let lines = script.lines().filter(|line| !values.iter().any(|value| value == line));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rest(&plain), rest(&undo));
}

#[test]
fn nothing_runs_before_the_last_line() {
    let script = render_for("http://proxy.corp:3128", false, None).unwrap();
    assert!(script.is_ascii());
    assert!(script.ends_with("\n{ main \"$@\" </dev/null; }\n"));
}

#[test]
fn expected_fingerprint_decides() {
    let url = "http://proxy.corp:3128";
    let own = ca_fingerprint().to_uppercase();
    assert_eq!(render_for(url, false, Some(&own)), render_for(url, false, None));
    let messages = [
        render_for(url, false, Some(&"ab".repeat(32))).unwrap_err(),
        render_for(url, false, Some("")).unwrap_err(),
        render_for(url, false, Some("$(id)")).unwrap_err(),
    ]
    .map(|error| error.to_string());
    insta::assert_snapshot!(messages.join("\n"), @r"
    this proxy's CA certificate has the SHA-256 fingerprint 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef, not abababababababababababababababababababababababababababababababab: either the CA was renewed since, or this is not the proxy you meant
    the fingerprint asked for is not 64 hexadecimal digits, with or without colons
    the fingerprint asked for is not 64 hexadecimal digits, with or without colons
    ");
}

#[test]
fn fingerprint_that_is_none_is_our_own_fault() {
    let asked = Script {
        address: &address("http://proxy.corp:3128"),
        fingerprint: "'; id; '",
        undo: false,
        expected_fingerprint: None,
    };
    assert_eq!(script(Client::Systemd, &asked), Err(SetupError::CaFingerprint));
}

proptest! {
    /// Whatever is sent as a Host header, what reaches a script is harmless between single quotes.
    #[test]
    fn accepted_hosts_hold_no_shell_metacharacter(value in "\\PC{0,40}|[a-z0-9.:\\[\\]-]{0,40}") {
        if let Ok(address) = ProxyAddress::from_host_header(&value) {
            let shown = address.to_string();
            let harmless = |c: char| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:/[]".contains(c)
            };
            prop_assert!(shown.chars().all(harmless), "{shown:?}");
            prop_assert_eq!(ProxyAddress::from_url(&shown), Ok(address));
        }
    }

    /// The page can't be made to run anything by the fingerprint asked for either.
    #[test]
    fn expected_fingerprint_never_changes_the_script(value in "\\PC{0,70}|[0-9a-fA-F:]{64,95}") {
        let plain = render_for("http://proxy.corp:3128", false, None);
        let asked = render_for("http://proxy.corp:3128", false, Some(&value));
        prop_assert!(asked.is_err() || asked == plain);
    }
}
