//! The status page as a person meets it: in a real browser, on a proxy with work to do and on one
//! without, and over canned documents where a state is hard to bring about. Pictures of it are left
//! in the target directory.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the steps of a test are no product code: one that can't go on has failed"
)]

mod browser;
mod canned;

use browser::Browser;
use canned::{Canned, ECR};
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
    browser.value("document.getElementById('requests-card').open = true");
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
    assert_eq!(browser.value("document.getElementById('no-errors').hidden"), false);
    let mistakes = browser.value("document.getElementById('mistakes').textContent");
    assert!(mistakes.as_str().unwrap().contains("mail.example"), "{mistakes}");
    assert_eq!(browser.value("document.getElementById('empty').hidden"), true);
    assert_eq!(browser.value("document.getElementById('client').open"), false);
    assert_eq!(browser.text("#client summary"), "Set up a client");

    // A download under way moves its bar, and is gone when it is over.
    let gate = Gate::new();
    registry.fault(On::get(&large.digest), Fault::Stall(4_000_000, gate.clone()));
    let mut connection = proxy.client().open(registry.host()).unwrap();
    let mut download = connection.start(&request_for(&registry, &large)).unwrap();
    download.read_exactly(1_000_000).unwrap();
    browser.wait_for("document.querySelector('#fetches progress')?.value > 900000");
    assert_eq!(browser.value("document.querySelector('#fetches progress').max"), 9_000_000);
    let coming = browser.text("#fetches");
    assert!(
        coming.contains("docker.io/library/alpine") && coming.contains("127.0.0.1"),
        "{coming}"
    );
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
        assert!(told.contains("can’t be reached") && told.contains("refused"), "{told}");
        browser.wait_for("document.querySelector('#errors li') !== null");
        let error = browser.text("#errors");
        assert!(error.contains("refused"), "{error}");
        browser.value("document.getElementById('requests-card').open = true");
        browser.wait_for("document.getElementById('requests').innerText.includes('STALE')");
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
    assert!(names_of(nodes, "status").len() <= 1, "little is read out by itself");
    let rows = "[...document.querySelectorAll('tr')].filter(row => row.checkVisibility()).length";
    let rows = browser.value(rows).as_u64().unwrap();
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

    // By keyboard alone: the link past the head, then the line that sets a client up.
    browser.press("Tab", 9, "");
    assert_eq!(browser.value("document.activeElement.className"), "skip");
    browser.press("Tab", 9, "");
    assert_eq!(browser.text(":focus"), "Set up a client");
    browser.press("Enter", 13, "\r");
    assert_eq!(browser.value("document.getElementById('client').open"), true);
    browser.value("document.querySelector('[data-minutes=\"60\"]').focus()");
    browser.press("Tab", 9, "");
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
    let served =
        "Number(/([0-9]+) requests/.exec(document.getElementById('since-start').textContent)[1])";
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

/// Opens the page over canned documents, and waits until it shows them.
#[track_caller]
fn open_canned(browser: &mut Browser, canned: &Canned) {
    browser.open(&format!("{}/", canned.origin()));
    browser.wait_for("document.getElementById('live').textContent === 'Live'");
    browser.wait_for("document.querySelector('#registries tr') !== null");
    browser.wait_for("document.getElementById('since-start').textContent !== ''");
}

/// Unfolds everything, and has the images come.
#[track_caller]
fn unfold(browser: &mut Browser) {
    browser.value("document.querySelectorAll('details').forEach(one => { one.open = true; })");
    browser.wait_for("document.querySelector('#images tr') !== null");
    browser.wait_for("document.querySelector('#requests tr') !== null");
}

#[test]
fn the_first_line_says_whether_it_is_well_and_the_tiles_what_it_is_worth() {
    let canned = Canned::serve(canned::busy());
    let mut browser = Browser::start();
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
        browser.look(width, 900, scheme);
        open_canned(&mut browser, &canned);
        assert_eq!(browser.text("#sentence"), "All well.");
        assert_eq!(browser.value("document.title"), "proxy-1.corp – entrepot");
        assert!(browser.text("h1").starts_with("proxy-1.corp"), "{}", browser.text("h1"));
        let tiles = browser.text("#sums");
        for words in [
            "Hit ratio",
            "manifests 92 %",
            "Saved this month",
            "4.2 TB",
            "18,300 pulls of quotas",
            "≈ $190",
            "41.0 TB, $1,845 since",
            "Pulls left at Docker Hub",
            "88 of 100",
            "whole at",
            "Slowest registry",
            "420 ms",
        ] {
            assert!(tiles.contains(words), "{words:?} is not in {tiles}");
        }
        let coming = browser.text("#fetches");
        for words in [
            "ghcr.io/acme/platform/build:2026-11-28",
            "38.0 MB of 96.0 MB",
            "8.2 MB/s",
            "8 s left",
            "for 10.0.0.7, 10.0.0.8",
            "3 wait",
        ] {
            assert!(coming.contains(words), "{words:?} is not in {coming}");
        }
        let pulls = browser.text("#pulls");
        assert!(
            pulls.contains("docker pulled") && pulls.contains("library/alpine:3.20"),
            "{pulls}"
        );
        assert!(pulls.contains("all from the cache"), "{pulls}");
        assert!(browser.text("footer").contains("Run by platform@acme"));
        let states = browser.text("#registries");
        assert!(states.contains("reachable") && !states.contains("quay.io"), "{states}");
        assert_eq!(browser.text("#unasked"), "And 1 not used yet.");
        let least = browser.value(LEAST_CONTRAST);
        assert!(least[0].as_f64().unwrap() >= 4.5, "{scheme}: {least}");
        assert_fits(&mut browser, width);
        browser.picture(&format!("page-canned-busy-{width}-{scheme}"));
    }
    let height = browser.value("document.documentElement.scrollHeight").as_u64().unwrap();
    assert!(height < 5_500, "a phone scrolls through {height} px");
    for width in [390, 1280] {
        browser.look(width, 900, "light");
        unfold(&mut browser);
        assert_accessible(&mut browser);
        assert_fits(&mut browser, width);
        browser.picture(&format!("page-canned-unfolded-{width}"));
    }
    browser.assert_clean(&canned.origin());
}

#[test]
fn what_is_wrong_comes_first_and_mistakes_of_users_stay_apart() {
    let canned = Canned::serve(canned::broken());
    let mut browser = Browser::start();
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
        browser.look(width, 900, scheme);
        open_canned(&mut browser, &canned);
        assert!(browser.text("#sentence").starts_with("2 registries can't be reached"));
        assert_eq!(browser.value("document.title"), "5 troubles – proxy-1.corp – entrepot");
        let troubles = browser.text("#troubles");
        assert!(troubles.contains("since") && troubles.contains("asked again in"), "{troubles}");
        let order = browser.value(
            "[...document.querySelectorAll('#registries th')].map(one => one.firstChild.data \
             + [...one.childNodes].slice(1).filter(node => node.nodeType === 3).map(node => node.data).join(''))",
        );
        let wanted =
            ["docker.io", "ghcr.io", "registry.gitlab.com", "nvcr.io", ECR, "mcr.microsoft.com"];
        assert_eq!(order.as_array().unwrap()[..6], wanted.map(Value::from), "{order}");
        let states = browser.text("#registries");
        for words in [
            "with password robot",
            "credentials refused",
            "can’t be reached",
            "rate limited",
            "slow",
            "answers with errors",
        ] {
            assert!(states.contains(words), "{words:?} is not in {states}");
        }
        // Below the floor.
        assert_eq!(browser.value("document.getElementById('quota').className"), "bad");
        let errors = browser.text("#errors");
        assert!(errors.contains("12 × since") && errors.contains("1,204 × since"), "{errors}");
        assert!(!errors.contains("nosuch") && !errors.contains("mail.example"), "{errors}");
        let mistakes = browser.value("document.getElementById('mistakes').textContent");
        assert!(mistakes.as_str().unwrap().contains("nosuch"), "{mistakes}");
        // What the first lines say of the disk is not said twice.
        let warnings = browser.text("#warnings");
        assert!(
            warnings.contains("CA's certificate") && !warnings.contains("disk fails"),
            "{warnings}"
        );
        let least = browser.value(LEAST_CONTRAST);
        assert!(least[0].as_f64().unwrap() >= 4.5, "{scheme}: {least}");
        assert_fits(&mut browser, width);
        browser.picture(&format!("page-canned-broken-{width}-{scheme}"));
    }
    unfold(&mut browser);
    assert!(browser.text("#requests").contains("401"), "a refusal does not look like any answer");
    browser.assert_clean(&canned.origin());
}

#[test]
fn names_as_long_as_they_may_be_fit_a_phone() {
    let canned = Canned::serve(canned::long_names());
    let mut browser = Browser::start();
    for width in [320, 390, 768, 1280] {
        browser.look(width, 900, "light");
        open_canned(&mut browser, &canned);
        assert_fits(&mut browser, width);
        unfold(&mut browser);
        assert_fits(&mut browser, width);
        browser.picture(&format!("page-canned-long-{width}"));
    }
    browser.assert_clean(&canned.origin());
}

#[test]
fn what_a_proxy_does_not_tell_has_no_place() {
    let canned = Canned::serve(canned::bare());
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    open_canned(&mut browser, &canned);
    for hidden in ["verdict", "quota-tile", "slow-tile", "pulls-card", "clients-card"] {
        let is_shown = format!("document.getElementById({hidden:?}).checkVisibility()");
        assert_eq!(browser.value(&is_shown), hidden == "quota-tile", "{hidden}");
    }
    assert!(browser.text("#sums").contains("Saved since the start"), "{}", browser.text("#sums"));
    assert!(browser.text("#registries").contains("reachable"));
}

/// What the page has asked for that is more than to look.
fn deeds_of(browser: &Browser, canned: &Canned) -> Vec<String> {
    let asked = browser.requests().into_iter().filter(|one| one["method"] != "GET");
    let told = |one: &Value| {
        let url = one["url"].as_str().unwrap().trim_start_matches(&canned.origin()).to_owned();
        format!("{} {url}", one["method"].as_str().unwrap())
    };
    asked.map(told).collect()
}

#[test]
fn images_are_found_pinned_and_removed_once_that_is_confirmed() {
    let mut documents = canned::busy();
    documents["about"]["has_token"] = true.into();
    let canned = Canned::serve(documents);
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    open_canned(&mut browser, &canned);
    browser.click("#images-card summary");
    browser.wait_for("document.querySelectorAll('#images tr').length === 25");
    browser.click("#more-images");
    browser.wait_for("document.querySelectorAll('#images tr').length === 30");
    browser.click("#images-filter");
    browser.type_text("tool2");
    browser.wait_for("document.querySelectorAll('#images tr').length === 11");
    assert_eq!(browser.text("#images-count"), "11 images");

    browser.click("#images tr:first-child .actions button:first-child");
    browser.wait_for("true");
    browser.click("#images tr:first-child .actions button:last-child");
    browser.wait_for("document.getElementById('ask').open");
    assert!(browser.text("#ask").contains("Remove docker.io/library/tool2:1.2?"));
    browser.picture("page-canned-remove");
    // Enter changes nothing, nor does Escape.
    browser.press("Enter", 13, "\r");
    browser.wait_for("!document.getElementById('ask').open");
    browser.click("#images tr:first-child .actions button:last-child");
    browser.wait_for("document.getElementById('ask').open");
    browser.press("Escape", 27, "");
    browser.wait_for("!document.getElementById('ask').open");
    browser.click("#images tr:first-child .actions button:last-child");
    browser.wait_for("document.getElementById('ask').open");
    browser.click("#ask-yes");
    browser.wait_for("!document.getElementById('ask').open");
    browser.click("#pull-name");
    browser.type_text("nginx:1.29");
    browser.press("Enter", 13, "\r");
    browser.wait_for("document.getElementById('pull-told').textContent.includes('is here')");
    assert!(
        browser.text("#pull-told").contains("3.4 MB fetched"),
        "{}",
        browser.text("#pull-told")
    );
    let deeds = [
        "PUT /api/v1/images/docker.io/library/tool2:1.2/pin",
        "DELETE /api/v1/images/docker.io/library/tool2:1.2",
        "POST /api/v1/pull?image=nginx%3A1.29",
    ];
    assert_eq!(deeds_of(&browser, &canned), deeds);
    browser.assert_clean(&canned.origin());
}

#[test]
fn without_a_token_the_page_says_which_line_to_run() {
    let canned = Canned::serve(canned::busy());
    let mut browser = Browser::start();
    browser.look(390, 900, "dark");
    open_canned(&mut browser, &canned);
    browser.click("#images-card summary");
    browser.wait_for("document.querySelector('#images tr') !== null");
    browser.click("#images tr:first-child .actions button:last-child");
    browser.wait_for("document.getElementById('ask').open");
    let lines = browser.text("#ask-lines");
    assert!(
        lines.contains("docker exec entrepot entrepot rm docker.io/library/tool0:1.0"),
        "{lines}"
    );
    assert!(lines.contains("sudo entrepot rm docker.io/library/tool0:1.0"), "{lines}");
    assert_fits(&mut browser, 390);
    browser.picture("page-canned-commands");
    browser.press("Escape", 27, "");
    browser.wait_for("!document.getElementById('ask').open");
    assert_eq!(deeds_of(&browser, &canned), [""; 0]);
    browser.assert_clean(&canned.origin());
}

#[test]
fn pulls_are_filtered_as_one_types() {
    let canned = Canned::serve(canned::busy());
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    open_canned(&mut browser, &canned);
    assert_eq!(browser.value("document.querySelectorAll('#pulls tr').length"), 15);
    browser.click("#more-pulls");
    assert_eq!(browser.value("document.querySelectorAll('#pulls tr').length"), 40);
    browser.click("#pulls-filter");
    browser.type_text("postgres & co");
    let asked = "performance.getEntriesByType('resource')\
                 .some(one => one.name.endsWith('filter=postgres%20%26%20co'))";
    browser.wait_for(asked);
    browser.assert_clean(&canned.origin());
}

#[test]
fn images_of_a_real_proxy_are_acted_on_with_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "a-token-for-tests-alone\n").unwrap();
    let key = format!("admin-token-file = {:?}", file.display().to_string());
    let registry = Registry::open();
    registry.push(ALPINE, "1", &Image::random(1, 1000));
    let proxy = Proxy::builder(BINARY).in_front_of(&registry).config(&key).start();
    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    browser.open(&format!("{}/", origin(&proxy)));
    browser.wait_for("document.activeElement.id === 'token'");
    browser.type_text("a-token-for-tests-alone");
    browser.press("Enter", 13, "\r");
    browser.wait_for("document.getElementById('live').textContent === 'Live'");
    browser.click("#images-card summary");
    browser.wait_for("!document.getElementById('no-images').hidden");
    browser.click("#pull-name");
    browser.type_text("alpine:1");
    browser.press("Enter", 13, "\r");
    browser.wait_for("document.getElementById('pull-told').textContent.includes('is here')");
    browser.wait_for("document.querySelectorAll('#images tr').length === 1");
    browser.click("#explain-name");
    browser.type_text("alpine:1");
    browser.press("Enter", 13, "\r");
    browser.wait_for(
        "document.getElementById('explained').innerText.includes('docker.io would be asked')",
    );
    browser.click("#images .actions button:first-child");
    browser.wait_for("document.getElementById('images').innerText.includes('pinned')");
    browser.click("#images .actions button:last-child");
    browser.wait_for("document.getElementById('ask').open");
    browser.click("#ask-yes");
    browser.wait_for("document.getElementById('images-wrong').textContent.includes('is pinned')");
    browser.click("#images .actions button:first-child");
    browser.wait_for("!document.getElementById('images').innerText.includes('pinned')");
    browser.click("#images .actions button:last-child");
    browser.wait_for("document.getElementById('ask').open");
    browser.click("#ask-yes");
    browser.wait_for("!document.getElementById('no-images').hidden");
    let images = proxy.operator().send(&Request::get("/api/v1/images")).unwrap().json();
    assert_eq!(images["images"], json!([]));
}

#[test]
fn who_may_not_look_reads_what_to_do() {
    let own = entrepot_testkit::own_address();
    let proxy = Proxy::builder(BINARY).admin_everywhere().start();
    let mut browser = Browser::start();
    browser.look(390, 900, "light");
    browser.open(&format!("http://{own}:{}/", proxy.admin_address().port()));
    browser.wait_for("!document.getElementById('refused').hidden");
    let told = browser.text("#refused");
    let cure = format!("name {own} in admin-look-from");
    assert!(told.contains(&cure) && told.contains("admin-token-file"), "{told}");
    assert_fits(&mut browser, 390);
}
