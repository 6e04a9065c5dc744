//! The page at `/`: what this is, which certificate to trust, and the line to copy for each client.
//!
//! One list of paragraphs, written as HTML for browsers and as text for everybody else.

use std::fmt::Write as _;

use super::setup::{Client, ProxyAddress};

const STYLE: &str = include_str!("front.css");
const TITLE: &str = "entrepot: a caching proxy for container registries";
const ABOUT: &str = "Container engines that use this proxy get from its cache what others have pulled \
                     before. Names of images stay as they are.";

/// What the page shows.
pub(super) struct Front<'a> {
    pub(super) address: &'a ProxyAddress,
    /// SHA-256 of the CA certificate, in pairs with colons.
    pub(super) fingerprint: &'a str,
}

/// A heading, what there is to say, and what there is to copy.
struct Section {
    heading: &'static str,
    words: &'static str,
    lines: Vec<String>,
}

impl Front<'_> {
    fn parts(&self) -> Vec<Section> {
        let clients = Client::ALL.into_iter().map(|client| {
            let (heading, words) = described(client);
            Section { heading, words, lines: vec![self.set_up(client)] }
        });
        let first = Section {
            heading: "The certificate of its CA",
            words: "Every client of the proxy must trust it: /ca.crt. Its SHA-256 fingerprint is below; \
                    compare it with what `entrepot ca show` prints on the proxy's own machine.",
            lines: vec![self.fingerprint.to_owned()],
        };
        let (address, undo) = (self.address, Client::Systemd.name());
        let last = [
            Section {
                heading: "Anything else",
                words: "Trust the certificate and set the variable. Private networks are best left out.",
                lines: vec![
                    format!("HTTPS_PROXY={address}"),
                    "NO_PROXY=localhost,127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
                        .to_owned(),
                ],
            },
            Section {
                heading: "Without a proxy",
                words: "The same port is a mirror of every registry that the proxy knows, for public \
                        images. With `--mirror` the scripts for k3s and Podman set that up, by TLS. That \
                        for containerd needs no certificate: it asks the registries themselves what tags \
                        stand for.",
                lines: vec![format!("{} -s -- --mirror", self.set_up(Client::Containerd))],
            },
            Section {
                heading: "To undo it",
                words: "Each script takes back what it has done.",
                lines: vec![format!("curl -fsS '{address}/setup/{undo}?undo' | sudo sh")],
            },
        ];
        [first].into_iter().chain(clients).chain(last).collect()
    }

    fn set_up(&self, client: Client) -> String {
        let plain = self.fingerprint.replace(':', "").to_ascii_lowercase();
        let shell = if client == Client::Kind { "sh" } else { "sudo sh" };
        format!("curl -fsS '{}/setup/{}?fp={plain}' | {shell}", self.address, client.name())
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let mut page = format!("{TITLE}\n\n{}\n", wrapped(ABOUT));
        for Section { heading, words, lines } in self.parts() {
            let _ =
                write!(page, "\n{heading}\n{}\n{}\n\n", "-".repeat(heading.len()), wrapped(words));
            for line in lines {
                let _ = writeln!(page, "  {line}");
            }
        }
        page
    }

    /// For a browser.
    pub(super) fn html(&self) -> String {
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{TITLE}</title>\n<style>\n{STYLE}</style>\n<h1>{TITLE}</h1>\n<p>{ABOUT}</p>\n"
        );
        for Section { heading, words, lines } in self.parts() {
            let words = marked_up(words);
            let lines: Vec<_> = lines.iter().map(|line| escaped(line)).collect();
            let lines = lines.join("\n");
            let _ = write!(page, "<h2>{heading}</h2>\n<p>{words}</p>\n<pre>{lines}</pre>\n");
        }
        page + "</html>\n"
    }
}

/// What a person calls a client, and what its script is for.
fn described(client: Client) -> (&'static str, &'static str) {
    match client {
        Client::Systemd => (
            "Docker",
            "On a machine whose dockerd is run by systemd. It restarts dockerd, which stops its \
             containers unless `live-restore` is set; with `| sudo sh -s -- --no-restart` that is \
             left to you.",
        ),
        Client::Containerd => ("containerd", "On a node of Kubernetes, for example."),
        Client::Podman => ("Podman, Buildah, CRI-O", "For all users of the machine."),
        Client::K3s => ("k3s and RKE2", "On every node."),
        Client::Kind => ("kind", "On the machine where the cluster runs, for every node of it."),
        Client::Buildkit => ("BuildKit", "As a mirror, by TLS: builds see nothing of it."),
        Client::DockerMirror => (
            "Docker, as a mirror of the Hub",
            "By TLS, for the public images of Docker Hub alone. It restarts dockerd where the \
             certificate is new to the machine.",
        ),
        Client::Ca => ("Trust alone", "For whatever is told of the proxy by other means."),
    }
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
    marked.collect::<String>().replace("/ca.crt", "<a href=\"/ca.crt\">/ca.crt</a>")
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page as text and as HTML.
    fn front() -> (String, String) {
        let address = ProxyAddress::from_url("http://proxy.corp:3128").unwrap();
        let fingerprint = vec!["AB"; 32].join(":");
        let front = Front { address: &address, fingerprint: &fingerprint };
        (front.text(), front.html())
    }

    #[test]
    fn a_terminal_gets_text() {
        insta::assert_snapshot!(front().0);
    }

    #[test]
    fn a_browser_gets_a_page_without_scripts() {
        let (_, page) = front();
        assert!(!page.contains("<script") && !page.contains("http-equiv"));
        for client in Client::ALL {
            assert!(page.contains(&format!("/setup/{}?fp=abab", client.name())));
        }
        insta::assert_snapshot!(page);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
