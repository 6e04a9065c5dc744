//! The page at `/`: what this is, the line to copy for each client, and how to see that it works.
//!
//! One list of sections, written as HTML for browsers and as text for everybody else.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::setup::{Client, ProxyAddress};
use crate::metrics::Serving;

const STYLE: &str = include_str!("front.css");
const ABOUT: &str = "A caching proxy for container registries: engines that use it get from its cache what \
                     others have pulled before. Names of images stay as they are.";

/// What the page shows.
pub(super) struct Front<'a> {
    pub(super) address: &'a ProxyAddress,
    /// SHA-256 of the CA certificate, in pairs with colons.
    pub(super) fingerprint: &'a str,
    /// Who looks at it.
    pub(super) client: IpAddr,
    /// What was pulled last from there, and how long ago.
    pub(super) last: Option<(Serving, Duration)>,
    /// Whom to ask, if the operator says.
    pub(super) contact: Option<String>,
}

/// A heading, what there is to say, what there is to copy, and the script behind it.
struct Section {
    /// Where the list at the top leads.
    anchor: &'static str,
    heading: &'static str,
    words: String,
    lines: Vec<String>,
    script: Option<Client>,
}

impl Section {
    fn new(anchor: &'static str, heading: &'static str, words: &str, lines: Vec<String>) -> Self {
        Self { anchor, heading, words: words.to_owned(), lines, script: None }
    }
}

impl Front<'_> {
    fn title(&self) -> String {
        format!("entrepot at {}", self.address.host())
    }

    /// What a person who has come here wants to know first.
    fn greeting(&self) -> String {
        let client = self.client.to_canonical();
        let Some((serving, ago)) = &self.last else {
            return format!("You are {client}: nothing has been pulled from there lately.");
        };
        let Serving { registry, repository, .. } = serving;
        format!(
            "You are {client}: the last pull from there was {registry}/{repository}, {}.",
            past(*ago)
        )
    }

    fn sections(&self) -> Vec<Section> {
        let scripts = Client::ALL.into_iter().map(|client| self.of_script(client));
        let mut sections: Vec<_> = scripts.collect();
        let desktop = 1.min(sections.len());
        sections.insert(desktop, self.desktop());
        sections.extend([
            self.anything_else(),
            self.mirror(),
            self.proof(),
            self.certificate(),
            Section::new(
                "look",
                "Looking before you run it",
                "Each script says what it would do with `--dry-run`, and what it takes with `--help`. \
                 The log of the proxy's start has the SHA-256 of each: fetch it, compare, run that.",
                vec![
                    format!("{} -s -- --dry-run", self.piped(Client::Systemd, "?fp=", "sh")),
                    format!(
                        "{} -o setup.sh '{}/setup/systemd' && sha256sum setup.sh",
                        self.curl(),
                        self.address
                    ),
                ],
            ),
        ]);
        sections
    }

    fn of_script(&self, client: Client) -> Section {
        let (anchor, heading, words) = described(client);
        let lines = vec![self.set_up(client)];
        Section { script: Some(client), ..Section::new(anchor, heading, words, lines) }
    }

    fn desktop(&self) -> Section {
        let address = self.address;
        Section::new(
            "desktop",
            "Docker Desktop (macOS, Windows)",
            "Trust the certificate with the first line (macOS), or with the second as an administrator \
             (Windows). Then Settings, Resources, Proxies, Manual: the third as \"Secure Web Server \
             (HTTPS)\" alone, the fourth as \"Bypass proxy settings\"; Apply & restart.",
            vec![
                format!(
                    "{} -o ca.crt {address}/ca.crt && sudo security add-trusted-cert -d -r trustRoot \
                     -k /Library/Keychains/System.keychain ca.crt",
                    self.curl()
                ),
                format!(
                    "{} -o ca.crt {address}/ca.crt && certutil -addstore -f Root ca.crt",
                    self.curl().replace("curl", "curl.exe")
                ),
                address.to_string(),
                "localhost,127.0.0.1,*.internal".to_owned(),
            ],
        )
    }

    fn anything_else(&self) -> Section {
        Section::new(
            "else",
            "Anything else",
            "Trust the certificate and set the variable. Private networks are best left out.",
            vec![
                format!("HTTPS_PROXY={}", self.address),
                "NO_PROXY=localhost,127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16".to_owned(),
            ],
        )
    }

    fn mirror(&self) -> Section {
        Section::new(
            "mirror",
            "Without a proxy",
            "The same port is a mirror of every registry that the proxy knows, for public images. With \
             `--mirror` the scripts for k3s and Podman set that up, by TLS. That for containerd needs no \
             certificate: it asks the registries themselves what tags stand for.",
            vec![format!("{} -s -- --mirror", self.set_up(Client::Containerd))],
        )
    }

    fn proof(&self) -> Section {
        let address = self.address;
        let curl = self.curl();
        Section::new(
            "check",
            "Does it work from here?",
            "The first line tries the proxy and every engine of a machine with one small image, which is \
             removed again: `second pull: all from the cache`. (`/check` is the script.) The second needs \
             no script: 200 or 401 is right.",
            vec![
                format!("{curl} {address}/check | sh"),
                format!(
                    "{curl} -o ca.crt {address}/ca.crt && curl -sS -o /dev/null -w '%{{http_code}}\\n' \
                     -x {address} {}--cacert ca.crt https://registry-1.docker.io/v2/",
                    if address.is_tls() { "--proxy-cacert ca.crt " } else { "" }
                ),
            ],
        )
    }

    fn certificate(&self) -> Section {
        Section::new(
            "certificate",
            "The certificate of its CA",
            "The scripts see to it: every client must trust /ca.crt. Its SHA-256 fingerprint is below; \
             compare it with what `entrepot ca show` prints on the proxy's own machine.",
            vec![self.fingerprint.to_owned()],
        )
    }

    /// A machine that is new here does not know the certificate of a proxy that speaks TLS.
    fn curl(&self) -> &'static str {
        if self.address.is_tls() { "curl -fsSk" } else { "curl -fsS" }
    }

    fn set_up(&self, client: Client) -> String {
        self.piped(client, "?fp=", shell(client))
    }

    fn undo(&self, client: Client) -> String {
        self.piped(client, "?undo", shell(client))
    }

    fn piped(&self, client: Client, query: &str, shell: &str) -> String {
        let plain = self.fingerprint.replace(':', "").to_ascii_lowercase();
        let value = if query == "?fp=" { plain.as_str() } else { "" };
        format!(
            "{} '{}/setup/{}{query}{value}' | {shell}",
            self.curl(),
            self.address,
            client.name()
        )
    }

    fn last_words(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        match &self.contact {
            Some(contact) => format!("entrepot {version}; questions: {contact}"),
            None => format!("entrepot {version}"),
        }
    }

    fn about_tls(&self) -> Option<&'static str> {
        self.address.is_tls().then_some(
            "`-k` is for a machine that does not trust this proxy's CA yet: what the scripts then trust \
             is the certificate with the fingerprint below.",
        )
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let mut page =
            format!("{}\n\n{}\n\n{}\n", self.title(), wrapped(ABOUT), wrapped(&self.greeting()));
        if let Some(words) = self.about_tls() {
            let _ = write!(page, "\n{}\n", wrapped(words));
        }
        for section in self.sections() {
            let Section { heading, words, lines, script, .. } = section;
            let underline = "-".repeat(heading.len());
            let _ = write!(page, "\n{heading}\n{underline}\n{}\n\n", wrapped(&words));
            for line in lines {
                let _ = writeln!(page, "  {line}");
            }
            if let Some(client) = script {
                let _ = write!(
                    page,
                    "\n  look at it: {}/setup/{}\n  undo it:    {}\n",
                    self.address,
                    client.name(),
                    self.undo(client)
                );
            }
        }
        let _ = write!(page, "\n{}\n", self.last_words());
        page
    }

    /// For a browser.
    pub(super) fn html(&self) -> String {
        let title = escaped(&self.title());
        let sections = self.sections();
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n<h1>{title}</h1>\n<p>{}</p>\n\
             <p class=\"you\">{} <a href=\"#check\">Does it work?</a></p>\n",
            marked_up(ABOUT),
            escaped(&self.greeting())
        );
        let jumps: Vec<_> = sections
            .iter()
            .map(|one| format!("<a href=\"#{}\">{}</a>", one.anchor, escaped(one.heading)))
            .collect();
        let _ = write!(page, "<nav aria-label=\"Sections\">\n{}\n</nav>\n", jumps.join("\n"));
        if let Some(words) = self.about_tls() {
            let _ = writeln!(page, "<p>{}</p>", marked_up(words));
        }
        for Section { anchor, heading, words, lines, script } in sections {
            let lines: Vec<_> =
                lines.iter().map(|line| format!("<pre>{}</pre>", escaped(line))).collect();
            let _ = write!(
                page,
                "<section id=\"{anchor}\">\n<h2>{}</h2>\n<p>{}</p>\n{}\n",
                escaped(heading),
                marked_up(&words),
                lines.join("\n")
            );
            if let Some(client) = script {
                let _ = write!(
                    page,
                    "<p class=\"more\"><a href=\"/setup/{}\">look at this script</a></p>\n\
                     <details><summary>undo it</summary><pre>{}</pre></details>\n",
                    client.name(),
                    escaped(&self.undo(client))
                );
            }
            page.push_str("</section>\n");
        }
        let _ = writeln!(page, "<footer>{}</footer>", escaped(&self.last_words()));
        page + "</html>\n"
    }
}

fn shell(client: Client) -> &'static str {
    if client == Client::Kind { "sh" } else { "sudo sh" }
}

/// What a person calls a client, and what its script is for.
fn described(client: Client) -> (&'static str, &'static str, &'static str) {
    match client {
        Client::Systemd => (
            "docker",
            "Docker",
            "On a machine whose dockerd is run by systemd. It restarts dockerd, which stops its \
             containers unless `live-restore` is set; with `| sudo sh -s -- --no-restart` that is \
             left to you.",
        ),
        Client::Containerd => ("containerd", "containerd", "On a node of Kubernetes, for example."),
        Client::Podman => ("podman", "Podman, Buildah, CRI-O", "For all users of the machine."),
        Client::K3s => ("k3s", "k3s and RKE2", "On every node."),
        Client::Kind => {
            ("kind", "kind", "On the machine where the cluster runs, for every node of it.")
        }
        Client::Buildkit => {
            ("buildkit", "BuildKit", "As a mirror, by TLS: builds see nothing of it.")
        }
        Client::DockerMirror => (
            "docker-mirror",
            "Docker, as a mirror of the Hub",
            "By TLS, for the public images of Docker Hub alone. It restarts dockerd where the \
             certificate is new to the machine.",
        ),
        Client::Ca => ("trust", "Trust alone", "For whatever is told of the proxy by other means."),
    }
}

/// How long ago something was.
fn past(ago: Duration) -> String {
    let (count, unit) = match ago.as_secs() {
        secs if secs < 60 => return "a moment ago".to_owned(),
        secs if secs < 3600 => (secs / 60, "minute"),
        secs if secs < 48 * 3600 => (secs / 3600, "hour"),
        secs => (secs / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// Lines of 80 characters at most.
fn wrapped(words: &str) -> String {
    const WIDTH: usize = 80;
    let mut text = String::new();
    let mut column = 0;
    for word in words.split_whitespace() {
        let fits = column > 0 && column + 1 + word.len() <= WIDTH;
        if column > 0 {
            text.push(if fits { ' ' } else { '\n' });
        }
        column = if fits { column + 1 + word.len() } else { word.len() };
        text.push_str(word);
    }
    text
}

/// Words as HTML: what stands between backticks is code.
fn marked_up(words: &str) -> String {
    let parts = words.split('`').map(escaped).enumerate();
    let marked =
        parts.map(|(n, part)| if n % 2 == 1 { format!("<code>{part}</code>") } else { part });
    let linked = marked.collect::<String>();
    let linked = linked.replace("/ca.crt", "<a href=\"/ca.crt\">/ca.crt</a>");
    linked.replace("<code>/check</code>", "<a href=\"/check\">/check</a>")
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    /// The page as text and as HTML.
    fn front(url: &str, last: Option<(Serving, Duration)>) -> (String, String) {
        let address = ProxyAddress::from_url(url).unwrap();
        let fingerprint = vec!["AB"; 32].join(":");
        let front = Front {
            address: &address,
            fingerprint: &fingerprint,
            client: [10, 0, 0, 7].into(),
            last,
            contact: Some("ask <#platform>".to_owned()),
        };
        (front.text(), front.html())
    }

    #[test]
    fn a_terminal_gets_text() {
        let text = front("http://proxy.corp:3128", None).0;
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn a_browser_gets_a_page_without_scripts() {
        let (_, page) = front("http://proxy.corp:3128", None);
        assert!(!page.contains("<script") && !page.contains("http-equiv"));
        for client in Client::ALL {
            let name = client.name();
            assert!(page.contains(&format!("/setup/{name}?fp=abab")));
            assert!(page.contains(&format!("<a href=\"/setup/{name}\">look at this script</a>")));
            assert!(page.contains(&format!("/setup/{name}?undo'")));
        }
        for jump in page.split("href=\"#").skip(1) {
            let anchor = jump.split('"').next().unwrap();
            assert!(page.contains(&format!("<section id=\"{anchor}\">")), "{anchor}");
        }
        insta::assert_snapshot!(page.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }

    #[test]
    fn who_looks_is_told_of_the_last_pull() {
        let serving = Serving {
            registry: "docker.io".to_owned(),
            repository: "library/alpine".to_owned(),
            manifests: 1,
            blobs: 1,
            hits: 0,
            bytes: 5,
            last: SystemTime::now(),
        };
        let (text, page) = front("http://p:3128", Some((serving, Duration::from_secs(190))));
        let told = "You are 10.0.0.7: the last pull from there was docker.io/library/alpine, 3";
        assert!(text.replace('\n', " ").contains(told), "{text}");
        assert!(page.contains(told), "{page}");
    }

    #[test]
    fn a_proxy_that_speaks_tls_is_asked_so_before_it_is_trusted() {
        let (text, _) = front("https://proxy.corp:3128", None);
        assert!(
            text.contains("curl -fsSk 'https://proxy.corp:3128/setup/systemd?fp=abab"),
            "{text}"
        );
        assert!(text.contains("--proxy-cacert ca.crt"), "{text}");
        assert!(!text.contains("curl -fsS '"), "{text}");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
