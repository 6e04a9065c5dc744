//! The file of users: whatever is wrong with a line is said without its hash, or what stands in its
//! place.

#![no_main]

use entrepot::fuzzing::listener::users;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match users(text) {
        Ok(shown) => {
            let count = text.lines().filter(|line| !line.trim().is_empty()).count();
            let told = shown.split(['(', ' ']).nth(1).and_then(|n| n.parse::<usize>().ok());
            assert!(told.is_some_and(|users| (1..=count).contains(&users)), "{shown}");
        }
        Err(wrong) => {
            assert!(!wrong.is_empty());
            let lines: Vec<_> = text.lines().collect();
            for (number, said) in wrong {
                let line = lines.get(number - 1).map_or("", |line| line.trim());
                let Some((name, secret)) = line.split_once(':') else { continue };
                let is_told_apart = secret.len() > 20 && !name.contains(secret);
                assert!(!is_told_apart || !said.contains(secret), "{said}");
            }
        }
    }
});
