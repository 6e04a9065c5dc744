//! The entrepot binary.

use std::process::ExitCode;

#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
fn main() -> ExitCode {
    // Text alone means something here; a variable that is not text can't be one of ours.
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    entrepot::run(std::env::args_os(), &environment)
}
