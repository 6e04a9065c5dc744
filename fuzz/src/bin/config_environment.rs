//! An environment, whatever is in it, docker-registry-proxy's own variables too: settings that are
//! valid, or words for the operator.

#![no_main]

use entrepot::fuzzing::config::environment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let variables = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        // A file of the machine's is none of the fuzzer's.
        (name != "ENTREPOT_CONFIG").then(|| (name.to_owned(), value.replace("\\n", "\n")))
    });
    match environment(variables.collect()) {
        Ok(loaded) => assert!(loaded.listeners > 0),
        Err(error) => assert!(error.lines().count() > 1, "{error}"),
    }
});
