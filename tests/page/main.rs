//! The status page as a person meets it: in a real browser, on a proxy with work to do and on one
//! without. Pictures of it are left in the target directory.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the steps of a test are no product code: one that can't go on has failed"
)]

mod browser;

use browser::Browser;
use entrepot_testkit::proxy::Signal;
use entrepot_testkit::{Blob, Fault, Gate, Image, On, Proxy, Registry, Request};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_entrepot");
const ALPINE: &str = "library/alpine";
/// What a registry might hope that somebody takes for markup.
const MARKUP: &str = "<img src=x onerror=document.title='owned'>";

fn origin(proxy: &Proxy) -> String {
    format!("http://{}", proxy.admin_address())
}

#[track_caller]
fn open(browser: &mut Browser, proxy: &Proxy) {
    browser.open(&format!("{}/", origin(proxy)));
    browser.wait_for("document.getElementById('live').textContent === 'Live'");
    browser.wait_for("document.getElementById('version').textContent !== ''");
}

/// A registry that counts pulls, and a proxy that has served some images of it.
fn busy() -> (Registry, Proxy, Blob) {
    let registry = Registry::open();
    let fields = [
        ("ratelimit-limit", "100;w=21600"),
        ("ratelimit-remaining", "17;w=21600"),
        ("docker-ratelimit-source", MARKUP),
    ];
    let fields = fields.map(|(name, value)| Fault::Header(name, value.to_owned()));
    registry.faults(On::path("/manifests/"), fields.to_vec(), usize::MAX);
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .config("tunnel = \"none\"\nmax-size = \"40MB\"")
        .start();
    let repositories =
        [(ALPINE, 3_400_000), ("library/postgres", 1_500_000), ("grafana/grafana", 800_000)];
    for (repository, size) in repositories {
        let image = Image::random(2, size);
        registry.push(repository, "1", &image);
        for _ in 0..2 {
            let pulled = proxy.puller().pull(repository, "1").unwrap();
            proxy.wait_until_all_kept(&pulled);
        }
    }
    proxy.client().connect("mail.example:25").unwrap();
    proxy.wait_for_log(&["DENIED CONNECT mail.example:25"]);
    let large = Blob::random(9_000_000);
    registry.push_blob(ALPINE, &large);
    (registry, proxy, large)
}

fn request_for(registry: &Registry, blob: &Blob) -> Request {
    Request::get(format!("https://{}/v2/{ALPINE}/blobs/{}", registry.host(), blob.digest))
}

/// Waits until the page tells of what `busy` did.
#[track_caller]
fn wait_until_told(browser: &mut Browser) {
    browser.wait_for("document.querySelectorAll('#requests tr').length > 10");
    browser.wait_for("document.querySelectorAll('#repositories tr').length === 3");
    browser.wait_for("document.querySelector('#registries progress') !== null");
}

#[test]
fn a_busy_proxy_is_shown_and_followed_without_a_reload() {
    let (registry, proxy, large) = busy();
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    open(&mut browser, &proxy);
    wait_until_told(&mut browser);
    browser.value("window.isSamePage = true");
    assert!(browser.text("#sums").contains("MB"), "{}", browser.text("#sums"));
    assert!(browser.text("#registries").contains("17 of 100"), "{}", browser.text("#registries"));
    assert!(browser.text("#repositories").contains("docker.io/grafana/grafana"));
    assert!(browser.text("#errors").contains("mail.example"), "{}", browser.text("#errors"));
    assert_eq!(browser.value("document.getElementById('empty').hidden"), true);

    // A download under way moves its bar, and is gone when it is over.
    let gate = Gate::new();
    registry.fault(On::get(&large.digest), Fault::Stall(4_000_000, gate.clone()));
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&request_for(&registry, &large)).unwrap();
    download.read_exactly(1_000_000).unwrap();
    browser.wait_for("document.querySelector('#fetches progress')?.value > 900000");
    assert_eq!(browser.value("document.querySelector('#fetches progress').max"), 9_000_000);
    browser.picture("page-light");
    gate.open();
    download.finish().unwrap();
    browser.wait_for("document.querySelector('#fetches progress') === null");
    let short = &large.digest[..15];
    browser
        .wait_for(&format!("document.querySelector('#requests tr').innerText.includes({short:?})"));
    assert_eq!(browser.value("window.isSamePage"), true);
    assert_eq!(browser.value("document.querySelectorAll('main img').length"), 0, "markup is text");
    assert_ne!(browser.value("document.title"), "owned");
    assert!(browser.text("#registries").contains(MARKUP), "{}", browser.text("#registries"));
    browser.assert_clean(&origin(&proxy));
}

#[test]
fn an_empty_proxy_says_how_a_client_is_set_up() {
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY)
        .in_front_of(&registry)
        .config("external-url = \"http://proxy.corp:3128\"")
        .start();
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    open(&mut browser, &proxy);
    browser.wait_for("!document.getElementById('empty').hidden");
    let line = browser.text("#set-up");
    assert!(line.starts_with("curl -fsS 'http://proxy.corp:3128/setup/systemd?fp="), "{line}");
    assert!(proxy.log_contains(&line), "the line of the log");
    browser.picture("page-empty-light");
    browser.look(360, 800, "dark");
    browser.picture("page-empty-phone-dark");
    assert_fits(&mut browser, 360);
    browser.look(1280, 900, "light");
    browser.click("#copy");
    let marked = "getSelection().toString().startsWith('curl')";
    browser
        .wait_for(&format!("document.querySelector('#copy').textContent === 'Copied' || {marked}"));
    proxy.puller().pull(ALPINE, "1").unwrap();
    browser.wait_for("document.getElementById('empty').hidden");
    browser.assert_clean(&origin(&proxy));
}

#[track_caller]
fn assert_fits(browser: &mut Browser, width: u32) {
    let found = browser.value("document.documentElement.scrollWidth");
    assert!(found.as_u64().unwrap() <= width.into(), "{found} is wider than {width}");
    // Nothing is cut off either, but what scrolls by itself.
    let beyond = browser.value(&format!(
        "[...document.querySelectorAll('main *')].filter(node => \
         node.checkVisibility() && !node.closest('.unseen') \
         && node.getBoundingClientRect().right > {width} + 0.5).map(node => node.outerHTML)"
    ));
    assert_eq!(beyond, json!([]));
}

/// The least contrast of a text to what is behind it (WCAG 2.2, 1.4.3), and that text.
const LEAST_CONTRAST: &str = "(() => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = colour => {
        const [r, g, b] = channels(colour).map(c => {
            c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = node => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if ((channels(colour)[3] ?? 1) === 1) return colour;
        }
    };
    const hasText = node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    const shown = [...document.querySelectorAll('body *')].filter(node =>
        hasText(node) && node.checkVisibility() && !['SCRIPT', 'NOSCRIPT', 'METER', 'PROGRESS'].includes(node.tagName));
    const found = shown.map(node => {
        const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent];
    });
    return found.sort((a, b) => a[0] - b[0])[0];
})()";

#[test]
fn it_is_legible_in_light_and_dark_and_on_a_phone() {
    let (_registry, proxy, _) = busy();
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    open(&mut browser, &proxy);
    wait_until_told(&mut browser);
    for (width, scheme) in [(1280, "dark"), (768, "light"), (360, "light"), (360, "dark")] {
        browser.look(width, 900, scheme);
        let least = browser.value(LEAST_CONTRAST);
        assert!(least[0].as_f64().unwrap() >= 4.5, "{scheme}: {least}");
        assert_fits(&mut browser, width);
        browser.picture(&format!("page-{width}-{scheme}"));
    }
    let background =
        |browser: &mut Browser| browser.value("getComputedStyle(document.body).backgroundColor");
    let dark = background(&mut browser);
    browser.look(360, 900, "light");
    assert_ne!(dark, background(&mut browser));
    browser.assert_clean(&origin(&proxy));
}

#[test]
fn a_registry_in_trouble_is_told_with_the_cause() {
    let mut registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).start();
    let pulled = proxy.puller().pull(ALPINE, "1").unwrap();
    proxy.wait_until_all_kept(&pulled);
    registry.stop();
    proxy.puller().pull(ALPINE, "1").unwrap();
    let unknown = format!("https://{}/v2/{ALPINE}/manifests/2", registry.host());
    assert_eq!(proxy.client().get(&unknown).unwrap().status, 503);
    let mut browser = Browser::start();
    for (width, scheme) in [(1280, "light"), (360, "dark")] {
        browser.look(width, 900, scheme);
        open(&mut browser, &proxy);
        browser.wait_for("document.querySelector('#registries .bad') !== null");
        let told = browser.text("#registries");
        assert!(told.contains("unreachable") && told.contains("refused"), "{told}");
        let error = browser.text("#errors");
        assert!(error.contains("refused") && error.contains("manifest 2"), "{error}");
        assert!(browser.text("#requests").contains("STALE"));
        let least = browser.value(LEAST_CONTRAST);
        assert!(least[0].as_f64().unwrap() >= 4.5, "{scheme}: {least}");
        assert_fits(&mut browser, width);
        browser.picture(&format!("page-trouble-{width}-{scheme}"));
    }
    browser.assert_clean(&origin(&proxy));
}

/// The names of all that has this role in the accessibility tree.
fn names_of(nodes: &Value, role: &str) -> Vec<String> {
    let heard = nodes.as_array().unwrap().iter().filter(|node| node["ignored"] == false);
    let of_role = heard.filter(|node| node["role"]["value"] == role);
    of_role.map(|node| node["name"]["value"].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn assert_accessible(browser: &mut Browser) {
    let nodes = &browser.call("Accessibility.getFullAXTree", &json!({}))["nodes"];
    for role in ["progressbar", "meter", "image", "table", "button", "region", "columnheader"] {
        let names = names_of(nodes, role);
        assert!(!names.is_empty(), "there is no {role}");
        assert!(names.iter().all(|name| !name.is_empty()), "a {role} without a name: {names:?}");
    }
    for landmark in ["main", "banner", "contentinfo"] {
        assert_eq!(names_of(nodes, landmark).len(), 1, "{landmark}");
    }
    assert_eq!(names_of(nodes, "status").len(), 1, "little is read out by itself");
    let rows = browser.value("document.querySelectorAll('tr').length").as_u64().unwrap();
    assert_eq!(names_of(nodes, "row").len() as u64, rows);
}

#[test]
fn a_keyboard_and_a_screen_reader_find_their_way() {
    let (registry, proxy, large) = busy();
    registry.fault_always(On::get(&large.digest), Fault::Stall(4_000_000, Gate::new()));
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&request_for(&registry, &large)).unwrap();
    download.read_exactly(100_000).unwrap();
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    open(&mut browser, &proxy);
    wait_until_told(&mut browser);
    browser.wait_for("document.querySelector('#fetches progress') !== null");

    // On a phone the rows are laid out anew, and are rows all the same.
    for width in [360, 1280] {
        browser.look(width, 900, "light");
        assert_accessible(&mut browser);
    }

    // By keyboard alone: the link past the head, then the time spans.
    browser.press("Tab", 9, "");
    assert_eq!(browser.value("document.activeElement.className"), "skip");
    for _ in 0..2 {
        browser.press("Tab", 9, "");
    }
    assert_eq!(browser.value("document.activeElement.dataset.minutes"), "360");
    let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid", "the focus is seen");
    browser.press("Enter", 13, "\r");
    let pressed = "document.querySelector('#ranges [aria-pressed=true]').dataset.minutes";
    assert_eq!(browser.value(pressed), "360");

    browser.click("#pause");
    let count =
        |browser: &mut Browser| browser.value("document.querySelectorAll('#requests tr').length");
    let before = count(&mut browser);
    let served = "Number(document.getElementById('requests-count').textContent.split(' ')[0])";
    let requests = browser.value(served);
    proxy.puller().pull(ALPINE, "1").unwrap();
    browser.wait_for(&format!("{served} > {requests}"));
    assert_eq!(count(&mut browser), before, "paused");
    browser.click("#pause");
    assert!(count(&mut browser).as_u64() > before.as_u64());
    browser.assert_clean(&origin(&proxy));
}

#[test]
fn the_token_is_asked_for_and_kept_in_the_tab() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "a-token-for-tests-alone\n").unwrap();
    let key = format!("admin-token-file = {:?}", file.display().to_string());
    let proxy = Proxy::builder(BINARY).admin_everywhere().config(&key).start();
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    // This machine needs it as others do.
    browser.open(&format!("{}/", origin(&proxy)));
    browser.wait_for("document.activeElement.id === 'token'");
    assert!(!browser.text("#login").contains("That is not the token"));
    browser.value("sessionStorage.setItem('entrepot-token', 'wrong')");
    browser.reload();
    browser.wait_for("document.activeElement.id === 'token'");
    assert!(browser.text("#login").contains("That is not the token"));
    browser.picture("page-login");
    browser.type_text("a-token-for-tests-alone");
    browser.press("Enter", 13, "\r");
    browser.wait_for("document.getElementById('live').textContent === 'Live'");
    browser.reload();
    browser.wait_for("document.getElementById('live').textContent === 'Live'");
    let shown =
        |request: &&&Value| request["headers"]["Authorization"] == "Bearer a-token-for-tests-alone";
    assert!(browser.requests().iter().filter(shown).count() >= 8, "before and after the reload");
    let leaks = browser.requests().iter().any(|one| one["url"].as_str().unwrap().contains("token"));
    assert!(!leaks);
}

#[test]
fn a_proxy_that_is_gone_is_told() {
    let proxy = Proxy::builder(BINARY).start();
    let mut browser = Browser::start();
    open(&mut browser, &proxy);
    proxy.signal(Signal::TERM);
    proxy.wait_exit();
    browser.wait_for("document.getElementById('live').textContent.startsWith('Not connected')");
}
