//! nginx as a server of files over TLS: what a good server does without being a cache.

use std::fs;

use super::{Plan, Surroundings, find, is_root, text};
use crate::child::{Launch, Listens, free_address};
use crate::image::{TAG, find as find_object};
use crate::load::Way;

pub(super) fn plan(around: &Surroundings) -> anyhow::Result<Option<Plan>> {
    let Some(program) = find("nginx") else { return Ok(None) };
    let dir = around.place("nginx")?;
    let address = free_address()?;
    let file = dir.join("nginx.conf");
    let log = dir.join("nginx.log");
    fs::write(&file, configuration(around, &text(&dir), address.port()))?;
    let arguments = ["-e", &text(&log), "-p", &text(&dir), "-c", &text(&file)];
    let launch = Launch {
        program,
        arguments: arguments.map(str::to_owned).to_vec(),
        environment: Vec::new(),
        listens: Listens::At(address),
        log,
    };
    Ok(Some(Plan { launch, way: Way::Direct, ca: around.identity.ca.clone() }))
}

fn configuration(around: &Surroundings, dir: &str, port: u16) -> String {
    // Its workers read what this user may read.
    let user = if is_root() { "user root;" } else { "" };
    let image = text(&around.image);
    let manifest = find_object(&around.image, TAG).unwrap_or_default();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    format!(
        "{user}\ndaemon off;\nworker_processes auto;\npid {dir}/nginx.pid;\n\
         events {{ worker_connections 16384; }}\nhttp {{\n{temporary}\
         access_log off;\nsendfile on;\ntcp_nopush on;\nkeepalive_timeout 300;\n\
         keepalive_requests 100000000;\ndefault_type application/octet-stream;\n\
         server {{\nlisten 127.0.0.1:{port} ssl backlog=4096;\n\
         ssl_certificate {};\nssl_certificate_key {};\nssl_protocols TLSv1.3;\n\
         location ~ \"^/v2/.+/(?:blobs|manifests)/sha256:([0-9a-f]{{64}})$\" \
         {{ alias {image}/blobs/sha256/$1; }}\n\
         location ~ ^/v2/.+/manifests/{TAG}$ {{ alias {}; }}\n}}\n}}\n",
        text(&around.identity.certificate),
        text(&around.identity.key),
        text(&manifest),
    )
}
