//! What help texts and manual pages say beside the arguments: examples, exit codes, files,
//! environment.

use clap::Command;

/// An example: what for, and the line.
pub(super) type Example = (&'static str, &'static str);

/// Examples of each subcommand, by its words.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "entrepot",
        &[
            ("Run the proxy", "entrepot serve"),
            ("Is it well, and what does it save?", "entrepot status"),
            ("Find out what is wrong", "entrepot check"),
        ],
    ),
    (
        "entrepot serve",
        &[
            ("With the configuration in /etc/entrepot", "entrepot serve"),
            (
                "With a registry of your own beside the built-in list",
                "entrepot serve --intercept-also registry.corp:5000 --max-size 200GiB",
            ),
        ],
    ),
    (
        "entrepot status",
        &[
            ("One screen", "entrepot status"),
            ("Watch it, until Ctrl-C", "entrepot status --watch"),
            (
                "From another machine",
                "entrepot status --server http://proxy.corp:3129 --admin-token-file token",
            ),
            ("In a script", "entrepot status --json | jq .status.verdict"),
        ],
    ),
    (
        "entrepot explain",
        &[
            ("Why was this pull slow, or refused?", "entrepot explain alpine:3.20"),
            ("In a container", "docker exec entrepot entrepot explain ghcr.io/org/app:1.2"),
        ],
    ),
    (
        "entrepot reload",
        &[
            ("After a password has changed", "entrepot reload"),
            ("In a pod", "kubectl exec deploy/entrepot -- entrepot reload"),
        ],
    ),
    (
        "entrepot check",
        &[
            ("Everything on this machine", "entrepot check"),
            ("As a health check of a container", "entrepot check --alive"),
            ("From a client's side", "entrepot check --proxy http://proxy.corp:3128"),
        ],
    ),
    ("entrepot verify", &[("Look for damage on the disk", "entrepot verify")]),
    (
        "entrepot bucket",
        &[
            ("How is it?", "entrepot bucket"),
            ("What still waits to go there", "entrepot bucket --json | jq .pending"),
        ],
    ),
    (
        "entrepot bucket sync",
        &[("Bring what is kept here, before this machine goes", "entrepot bucket sync")],
    ),
    (
        "entrepot pull",
        &[
            ("Warm the cache", "entrepot pull alpine:3.20 ghcr.io/org/app:1.2"),
            ("For other machines", "entrepot pull --platform linux/arm64,linux/amd64 alpine"),
            ("A list of images, one a line", "entrepot pull -f images.txt"),
            (
                "What a cluster runs",
                "kubectl get pods -A -o jsonpath='{..image}' | tr ' ' '\\n' | entrepot pull -",
            ),
        ],
    ),
    (
        "entrepot ls",
        &[
            ("Everything, the largest first", "entrepot ls --sort size"),
            ("Of one organisation", "entrepot ls ghcr.io/org/"),
            ("By a pattern, with digests and ages", "entrepot ls 'alpine:3.*' -o wide"),
            ("Names alone, for other commands", "entrepot ls -q"),
        ],
    ),
    (
        "entrepot rm",
        &[
            ("One image", "entrepot rm alpine:3.19"),
            ("What nobody has used for a month", "entrepot rm --unused 30d"),
            ("See first what would go", "entrepot rm --unused 30d 'ghcr.io/org/*' --dry-run"),
        ],
    ),
    (
        "entrepot pin",
        &[
            ("One image", "entrepot pin alpine:3.20"),
            ("All of a repository", "entrepot pin 'ghcr.io/org/app:*'"),
        ],
    ),
    (
        "entrepot unpin",
        &[("One image", "entrepot unpin alpine:3.20"), ("Everything", "entrepot unpin '**'")],
    ),
    (
        "entrepot export",
        &[
            ("To a file", "entrepot export -o images.tar alpine:3.20 ghcr.io/org/app:1.2"),
            (
                "To another machine",
                "entrepot export -o - alpine:3.20 | ssh site entrepot import --yes -",
            ),
        ],
    ),
    (
        "entrepot import",
        &[
            ("All that is in an archive", "entrepot import images.tar"),
            ("Some of it", "entrepot import images.tar ghcr.io/org/"),
            (
                "Of docker save",
                "docker save app | entrepot import --name ghcr.io/org/app:1 --yes -",
            ),
        ],
    ),
    (
        "entrepot config show",
        &[
            ("What is in force, and where it comes from", "entrepot config show"),
            ("Make a file of flags and variables", "entrepot config show > entrepot.toml"),
        ],
    ),
    ("entrepot config check", &[("Before a restart", "entrepot config check --config new.toml")]),
    (
        "entrepot config example",
        &[("Begin with every key", "entrepot config example > entrepot.toml")],
    ),
    ("entrepot ca show", &[("The fingerprint that clients compare", "entrepot ca show")]),
    ("entrepot ca renew", &[("Every client has to trust the new one", "entrepot ca renew")]),
    ("entrepot version", &[("In a script", "entrepot version --json")]),
    (
        "entrepot completions",
        &[
            ("bash", "entrepot completions bash > /etc/bash_completion.d/entrepot"),
            ("zsh", "entrepot completions zsh > \"${fpath[1]}/_entrepot\""),
            ("fish", "entrepot completions fish > ~/.config/fish/completions/entrepot.fish"),
        ],
    ),
    ("entrepot man", &[("Read it", "entrepot man | man -l -")]),
];

/// What the exit codes of a subcommand mean, from 0 on.
const CODES: &[(&str, &[&str])] = &[
    (
        "entrepot status",
        &[
            "all is well",
            "something is not well, or it drains",
            "could not find out, or wrong usage",
        ],
    ),
    (
        "entrepot explain",
        &["a pull would be served", "a pull would fail", "could not find out, or wrong usage"],
    ),
    (
        "entrepot reload",
        &[
            "the new configuration is in force",
            "it is not valid, or no proxy answers: nothing has changed",
            "wrong usage",
        ],
    ),
    (
        "entrepot check",
        &["all is well", "something is wrong", "could not find out, or wrong usage"],
    ),
    ("entrepot verify", &["all is well", "damage was found", "could not find out, or wrong usage"]),
    (
        "entrepot pull",
        &[
            "everything is here",
            "failed in another way",
            "wrong usage, or what is no name of an image",
            "the registry has no such image, or not for the platform",
            "the registry refuses it (401, 403)",
            "the registry is away, unwell or silent",
            "the registry's quota is used up (429)",
        ],
    ),
];
/// Those of all others.
const USUAL: &[&str] = &["done", "failed; standard error says why", "wrong usage"];

/// Files that subcommands read and write, for the manual.
pub(super) const FILES: &[(&str, &str)] = &[
    (
        "./entrepot.toml, /etc/entrepot/entrepot.toml",
        "The configuration, where --config names no other.",
    ),
    (
        "/var/lib/entrepot",
        "data-dir of a proxy that root has started: ca/ has the CA, cache/ the store.",
    ),
    ("$STATE_DIRECTORY, $XDG_DATA_HOME/entrepot", "data-dir of others."),
    ("admin.sock in cache-dir", "The admin socket, by which subcommands ask a running proxy."),
];

/// Variables that subcommands look at, for the manual.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "ENTREPOT_*",
        "Every key of the configuration: its path in capitals, with _ for . and - \
         (ENTREPOT_MAX_SIZE, ENTREPOT_UPSTREAM_PROXY).",
    ),
    (
        "ENTREPOT_SERVER",
        "The admin listener of the proxy that is asked, where neither --server nor another flag says \
         where it is.",
    ),
    ("ENTREPOT_CONFIG", "The configuration file, where --config names none."),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "The proxy on the way to registries."),
    ("NO_COLOR", "No colours, whatever it is set to."),
    ("COLUMNS", "How wide a table may be where standard output is no terminal."),
    ("RUST_LOG", "What is logged, by module; stronger than log-level."),
];

/// The examples of the subcommand with these words.
pub(super) fn examples(path: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(of, _)| *of == path).map_or(&[], |(_, examples)| examples)
}

/// What the exit codes of that subcommand mean, from 0 on.
pub(super) fn exit_codes(path: &str) -> &'static [&'static str] {
    CODES.iter().find(|(of, _)| *of == path).map_or(USUAL, |(_, codes)| codes)
}

/// The command with examples, and exit codes where they are not the usual, in the help of each
/// subcommand.
pub(super) fn with_examples(command: Command) -> Command {
    decorated(command, "")
}

fn decorated(mut command: Command, before: &str) -> Command {
    let path = format!("{before}{}", command.get_name());
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| decorated(sub, &format!("{path} ")));
    }
    let text = behind(&path);
    if text.is_empty() { command } else { command.after_help(text) }
}

fn behind(path: &str) -> String {
    let mut text = String::new();
    let examples = examples(path);
    if !examples.is_empty() {
        text.push_str("Examples:\n");
        for (what, line) in examples {
            text.extend(["  # ", what, "\n  ", line, "\n"]);
        }
    }
    if let Some((_, codes)) = CODES.iter().find(|(of, _)| *of == path) {
        text.push_str("\nExit codes:\n");
        for (code, means) in codes.iter().enumerate() {
            text.extend(["  ", &code.to_string(), "  ", means, "\n"]);
        }
    }
    text.trim_end().to_owned()
}
