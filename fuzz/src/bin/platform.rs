//! Platforms, as people type them: read as they are written, and of themselves the best choice.

#![no_main]

use entrepot_oci::Platform;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(platform) = text.parse::<Platform>() else { return };
    assert_eq!(platform.to_string().parse().as_ref(), Ok(&platform));
    let other = Platform::new("linux", "arm", Some("v6"));
    let offered = [(&other, 0), (&platform, 1), (&platform, 2)];
    let chosen = platform.choose(offered.into_iter());
    assert_eq!(chosen, Some(if other == platform { 0 } else { 1 }));
});
