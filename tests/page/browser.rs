//! Chromium without a window, driven over its `DevTools` protocol.
//!
//! The protocol goes through a pair of pipes (`--remote-debugging-pipe`): JSON messages that end
//! with a zero byte. So there is no port to find and nobody else who could connect.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_testkit::PATIENCE;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Leads the pipes to where Chromium looks for them: it reads from 3 and writes to 4.
const LEAD_PIPES: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// A browser with one page; it ends when it is dropped, and its profile goes away.
pub(crate) struct Browser {
    process: Child,
    requests: Option<ChildStdin>,
    messages: Receiver<Value>,
    session: String,
    next_id: u64,
    /// What the page has done that it was not asked for, and where it has sent requests.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", LEAD_PIPES, "chromium", "--headless", "--remote-debugging-pipe"]);
        // The sandbox is of no use for our own page, and root has none.
        command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args(["--no-first-run", "--disable-background-networking", "--lang=en"]);
        // As on a phone: they take no room.
        command.arg("--hide-scrollbars");
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let requests = process.stdin.take();
        let pipe = process.stdout.take().unwrap();
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            process,
            requests,
            messages,
            session: String::new(),
            next_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        browser.open_page();
        browser
    }

    fn open_page(&mut self) {
        let page = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", &attach);
        attached["sessionId"].as_str().unwrap().clone_into(&mut self.session);
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
    }

    /// Sends a command and waits for its result.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.ask(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    #[track_caller]
    fn ask(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.next_id += 1;
        let mut message = json!({ "id": self.next_id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let pipe = self.requests.as_mut().unwrap();
        let missing = "is Chromium there? apt-get install chromium";
        write!(pipe, "{message}\0").unwrap_or_else(|error| panic!("{error}: {missing}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let received = self.messages.recv_timeout(left);
            let message = received.unwrap_or_else(|error| panic!("{method}: {error}: {missing}"));
            if message["id"] == self.next_id {
                let failed = !message["error"].is_null();
                return if failed { Err(message) } else { Ok(message["result"].clone()) };
            }
            self.events.push(message);
        }
    }

    /// Opens a page and waits until it is there.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
        self.wait_until_open();
    }

    /// Opens the same page once more.
    #[track_caller]
    pub(crate) fn reload(&mut self) {
        self.value("window.isOld = true");
        self.call("Page.reload", &json!({}));
        self.wait_until_open();
    }

    /// A question to a page that goes away is a failure, and is asked again.
    #[track_caller]
    fn wait_until_open(&mut self) {
        let is_open = "location.protocol === 'http:' && !window.isOld \
                       && document.readyState === 'complete'";
        let asked = json!({ "expression": is_open, "returnByValue": true });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask("Runtime.evaluate", &asked);
            if answer.is_ok_and(|result| result["result"]["value"] == true) {
                return;
            }
            assert!(Instant::now() < deadline, "the page does not open");
        }
    }

    /// Sets the size of the window, and whether the person likes it dark.
    pub(crate) fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// What an expression in the page comes to.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", &asked);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// The text that a person sees in an element.
    #[track_caller]
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?}).innerText"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, condition: &str) {
        let millis = PATIENCE.as_millis();
        let waiting = format!(
            "new Promise(done => {{ const end = Date.now() + {millis} / 2; const look = () => \
             ({condition}) ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 20); \
             look(); }})"
        );
        if self.value(&waiting) != true {
            let page = self.value("document.body.innerText");
            panic!("never: {condition}\n{}", page.as_str().unwrap_or_default());
        }
    }

    /// Clicks into the middle of an element, as a mouse does.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        let middle = self.value(&format!(
            "(() => {{ const node = document.querySelector({selector:?}); \
             node.scrollIntoView({{ block: 'center' }}); const box = node.getBoundingClientRect(); \
             return {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }}; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": middle["x"], "y": middle["y"], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Presses a key that has this name and writes this text, if any.
    pub(crate) fn press(&mut self, key: &str, code: u32, text: &str) {
        let down = json!({
            "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
        });
        self.call("Input.dispatchKeyEvent", &down);
        let up = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", &up);
    }

    /// Types into what has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Keeps a picture of the whole page for people to look at, in the target directory.
    pub(crate) fn picture(&mut self, name: &str) -> PathBuf {
        let shot = self.call("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        let bytes = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The requests that the page has sent.
    pub(crate) fn requests(&self) -> Vec<&Value> {
        let sent = self.events.iter().filter(|one| one["method"] == "Network.requestWillBeSent");
        sent.map(|one| &one["params"]["request"]).collect()
    }

    /// Fails if the page asked anybody but `origin` for anything, or has anything to complain of.
    #[track_caller]
    pub(crate) fn assert_clean(&self, origin: &str) {
        for request in self.requests() {
            let url = request["url"].as_str().unwrap();
            assert!(url.starts_with(origin), "a request leaves: {url}");
        }
        let complaints: Vec<_> = self.events.iter().filter(|one| is_complaint(one)).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

fn is_complaint(event: &Value) -> bool {
    match event["method"].as_str() {
        Some("Runtime.exceptionThrown") => true,
        Some("Runtime.consoleAPICalled") => event["params"]["type"] != "log",
        Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
        _ => false,
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends by itself when nobody can ask it any more; its children end with it.
        drop(self.requests.take());
        let deadline = Instant::now() + PATIENCE;
        while self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
        {
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
