//! A configuration file, whatever is in it: settings that are valid, or words for the operator; a
//! password is in neither.

#![no_main]

use entrepot::fuzzing::config::file;
use entrepot_fuzz::is_secret_alone;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let shown = match file(text) {
        Ok(loaded) => {
            assert!(loaded.listeners > 0);
            let longest = std::time::Duration::from_hours(24);
            assert!(loaded.timeouts.iter().all(|wait| !wait.is_zero() && *wait <= longest));
            loaded.shown
        }
        Err(error) => {
            assert!(error.lines().count() > 1, "{error}");
            error
        }
    };
    if is_secret_alone(text) {
        assert!(!shown.contains(entrepot_fuzz::SECRET), "{shown}");
    }
});
