//! docker-registry as a pull-through cache.

use std::fs;

use super::{Plan, Surroundings, find, text};
use crate::child::{Launch, Listens, free_address};
use crate::load::Way;

pub(super) fn plan(around: &Surroundings) -> anyhow::Result<Option<Plan>> {
    let Some(program) = find("docker-registry") else { return Ok(None) };
    let dir = around.place("docker-registry")?;
    let address = free_address()?;
    let file = dir.join("config.yml");
    fs::write(&file, configuration(around, &text(&dir), address.port()))?;
    let launch = Launch {
        program,
        arguments: vec!["serve".to_owned(), text(&file)],
        environment: vec![("SSL_CERT_FILE".to_owned(), text(&around.identity.ca))],
        listens: Listens::At(address),
        log: dir.join("registry.log"),
    };
    Ok(Some(Plan { launch, way: Way::Direct, ca: around.identity.ca.clone() }))
}

fn configuration(around: &Surroundings, dir: &str, port: u16) -> String {
    format!(
        "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
         storage:\n  cache: {{blobdescriptor: inmemory}}\n\
         \u{20} filesystem: {{rootdirectory: {dir:?}}}\n\
         http:\n  addr: 127.0.0.1:{port}\n  tls: {{certificate: {:?}, key: {:?}}}\n\
         proxy: {{remoteurl: 'https://127.0.0.1:{}'}}\n",
        text(&around.identity.certificate),
        text(&around.identity.key),
        around.port,
    )
}
