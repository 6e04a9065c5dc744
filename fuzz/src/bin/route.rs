//! A request's path: what is taken for content is exactly that content, and leads nowhere else.

#![no_main]

use entrepot::fuzzing::gateway::is_odd;
use entrepot_oci::Route;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|target: &str| {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let route = Route::parse(path, query);
    if let Some(content) = route.content_path() {
        assert_eq!(content, path);
        assert_eq!(Route::parse(&content, None), route);
        assert!(query.is_none_or(|query| query.starts_with("ns=") && !query.contains('&')));
    }
    if let Some(repository) = route.repository() {
        let name = repository.as_str();
        assert!(path.starts_with(&format!("/v2/{name}/")), "{path} {name}");
        assert!(name.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '_', '-'])));
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(&b))
        );
    }
    // An upload's session is the registry's own word: it alone may hold anything.
    if !matches!(route, Route::Api | Route::Other | Route::Upload { .. }) {
        assert!(!path.contains(['%', '\\', '#', ' ']) && !path.contains("//"));
        assert!(!is_odd(path), "{path}");
    }
    // However often it is escaped: what climbs is not passed on.
    if let Ok(url) = url::Url::parse("https://registry.example/").unwrap().join(path)
        && path.starts_with('/')
        && !path.starts_with("//")
        && !is_odd(path)
        && !path.contains(|c: char| matches!(c, '#' | '\\' | ' ') || c.is_ascii_control())
    {
        let segments = |text: &str| text.split('/').count();
        assert_eq!(segments(url.path()), segments(path), "{path} {url}");
    }
});
