//! The URL of a proxy, as an operator or the environment has it: whatever it is, nothing shows what
//! stands before the `@`.

#![no_main]

use entrepot::fuzzing::upstream::proxy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some((shown, authority)) = proxy(text) else { return };
    assert!(authority.port() != 0);
    assert!(!shown.contains('@'), "{shown}");
    if let Some((before, _)) = text.rsplit_once('@')
        && let Some((_, password)) = before.rsplit_once(':')
        && password.len() > 8
        && !authority.to_string().contains(password)
    {
        assert!(!shown.contains(password), "{shown}");
    }
});
