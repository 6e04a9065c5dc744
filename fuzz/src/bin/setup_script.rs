//! The scripts that run as root on other machines: of a request nothing gets into them but an
//! address whose every byte is harmless to a shell.

#![no_main]

use entrepot::setup::{Client, ProxyAddress, Script, script};
use entrepot_fuzz::parts;
use libfuzzer_sys::fuzz_target;

const FINGERPRINT: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fuzz_target!(|text: &str| {
    let Some([host, expected]) = parts(text) else { return };
    for address in [ProxyAddress::from_host_header(host), ProxyAddress::from_url(host)] {
        let Ok(address) = address else { continue };
        let shown = address.to_string();
        let is_harmless =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:/[]".contains(&b);
        assert!(shown.bytes().all(is_harmless), "{shown}");
        let client = Client::ALL[text.len() % Client::ALL.len()];
        let plain = written(client, &address, None).unwrap();
        if let Some(asked) = written(client, &address, Some(expected)) {
            assert_eq!(asked, plain);
        }
        let usual = ProxyAddress::from_url("http://proxy.example:3128").unwrap();
        let usual = written(client, &usual, None).unwrap();
        assert!(rest(&plain).eq(rest(&usual)));
    }
});

fn written(client: Client, address: &ProxyAddress, expected: Option<&str>) -> Option<String> {
    let parts =
        Script { address, fingerprint: FINGERPRINT, undo: false, expected_fingerprint: expected };
    script(client, &parts).ok()
}

/// All of a script but the lines that are the proxy's address.
fn rest(script: &str) -> impl Iterator<Item = &str> {
    script.lines().filter(|line| !line.starts_with("proxy_url='"))
}
