//! squid with ssl-bump, as a cache that takes the same CONNECT.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{Plan, Surroundings, find, is_root, text};
use crate::certificates::{HOST, bumping_authority};
use crate::child::{Launch, Listens, free_address};
use crate::load::Way;

/// Where distributions put what makes squid's certificates.
const GENERATORS: [&str; 3] = [
    "/usr/lib/squid/security_file_certgen",
    "/usr/lib64/squid/security_file_certgen",
    "/usr/libexec/security_file_certgen",
];
/// Users that squid becomes: it refuses to be root.
const USERS: [&str; 3] = ["proxy", "squid", "nobody"];

pub(super) fn plan(around: &Surroundings) -> anyhow::Result<Option<Plan>> {
    let generator = GENERATORS.iter().map(Path::new).find(|file| file.exists());
    // Without its generator it is a build without TLS, which can't do this.
    let (Some(program), Some(generator)) = (find("squid"), generator) else { return Ok(None) };
    let dir = around.place("squid")?;
    let (certificate, key) = bumping_authority()?;
    fs::write(dir.join("ca.pem"), certificate)?;
    fs::write(dir.join("ca.key"), key)?;
    fs::write(dir.join("hosts"), format!("127.0.0.1 {HOST}\n"))?;
    fs::create_dir_all(dir.join("cache"))?;
    let user = is_root().then(user).flatten();
    let address = free_address()?;
    let file = dir.join("squid.conf");
    let name = user.as_ref().map(|user| user.name.as_str());
    fs::write(&file, configuration(around, &dir, address.port(), generator, name))?;
    let certificates = text(&dir.join("certificates"));
    run(Command::new(generator).args(["-c", "-s", &certificates, "-M", "16MB"]))?;
    if let Some(user) = &user {
        user.own(&dir)?;
    }
    run(Command::new(&program).args(["-N", "-z", "-f"]).arg(&file))?;
    let launch = Launch {
        program,
        arguments: ["-N", "-f", &text(&file)].map(str::to_owned).to_vec(),
        environment: Vec::new(),
        listens: Listens::At(address),
        log: around.dir.join("squid.log"),
    };
    Ok(Some(Plan { launch, way: Way::Proxy, ca: dir.join("ca.pem") }))
}

fn configuration(
    around: &Surroundings,
    dir: &Path,
    port: u16,
    generator: &Path,
    user: Option<&str>,
) -> String {
    let (dir, generator) = (text(dir), text(generator));
    let user = user.map(|user| format!("cache_effective_user {user}\n")).unwrap_or_default();
    format!(
        "http_port 127.0.0.1:{port} ssl-bump tls-cert={dir}/ca.pem tls-key={dir}/ca.key \
         generate-host-certificates=on dynamic_cert_mem_cache_size=16MB\n\
         sslcrtd_program {generator} -s {dir}/certificates -M 16MB\n\
         sslcrtd_children 4 startup=1 idle=1\n\
         ssl_bump bump all\nhttp_access allow all\n\
         tls_outgoing_options cafile={}\nhosts_file {dir}/hosts\n\
         cache_mem 256 MB\nmaximum_object_size 16 GB\ncache_dir aufs {dir}/cache 40000 16 256\n\
         collapsed_forwarding on\n\
         refresh_pattern -i /v2/.*/(blobs|manifests)/ 86400 100% 86400 override-expire \
         override-lastmod ignore-reload ignore-no-store ignore-private\n\
         refresh_pattern . 0 20% 4320\n{user}\
         pid_filename {dir}/squid.pid\naccess_log none\ncache_store_log none\n\
         cache_log {dir}/cache.log\ncoredump_dir {dir}\nshutdown_lifetime 1 seconds\n\
         pinger_enable off\nvisible_hostname squid.bench.test\nmax_filedescriptors 65536\n",
        text(&around.identity.ca),
    )
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| name.clone())?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}", told.lines().last().unwrap_or_default());
    Ok(())
}

/// An account of this system.
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// The first of [`USERS`] that there is.
fn user() -> Option<User> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    USERS.iter().find_map(|name| {
        let prefix = format!("{name}:");
        let rest = accounts.lines().find_map(|line| line.strip_prefix(&prefix))?;
        let mut fields = rest.split(':').skip(1);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(User { name: (*name).to_owned(), uid, gid })
    })
}

impl User {
    /// Gives it a directory with everything in it.
    fn own(&self, dir: &Path) -> anyhow::Result<()> {
        chown(dir, Some(self.uid), Some(self.gid))?;
        for entry in fs::read_dir(dir)? {
            let path: PathBuf = entry?.path();
            if path.is_dir() {
                self.own(&path)?;
            } else {
                chown(&path, Some(self.uid), Some(self.gid))?;
            }
        }
        Ok(())
    }
}
