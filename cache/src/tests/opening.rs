//! Claiming, locking and recovering a directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{
    fill, kept, leave_partial, new_dir, noise, open, partial_path, read_all, reserve, sha256,
};
use crate::{Claim, ContentRecord, OpenError, Options, Store};

async fn refusal(dir: &Path) -> OpenError {
    match Store::open(Options::new(dir)).await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_missing_directory_is_made() {
    let dir = new_dir();
    let deep = dir.path().join("a/b/cache");
    Store::open(Options::new(&deep)).await.unwrap().close().await;
    assert_eq!(fs::read_to_string(deep.join("VERSION")).unwrap(), "entrepot store 1\n");
    Store::open(Options::new(&deep)).await.unwrap();
}

#[tokio::test]
async fn an_unknown_version_is_refused_and_left_alone() {
    for version in ["entrepot store 2\n", "", "\n", "entrepot store 1 and more", "\u{0}\u{1}"] {
        let dir = new_dir();
        fs::write(dir.path().join("VERSION"), version).unwrap();
        fs::create_dir(dir.path().join("blobs")).unwrap();
        let error = refusal(dir.path()).await;
        assert!(matches!(error, OpenError::UnknownVersion { .. }), "{version:?}: {error}");
        assert_eq!(names(dir.path()), ["VERSION", "blobs"]);
        assert_eq!(fs::read_to_string(dir.path().join("VERSION")).unwrap(), version);
    }
}

#[tokio::test]
async fn foreign_directories_are_refused_and_left_alone() {
    let dir = new_dir();
    fs::write(dir.path().join("zebra"), b"").unwrap();
    fs::write(dir.path().join("photos.tar"), b"dear").unwrap();
    let error = refusal(dir.path()).await;
    assert!(matches!(&error, OpenError::Foreign { foreign, .. } if foreign == "photos.tar"));
    assert!(error.to_string().contains("photos.tar"), "{error}");
    assert_eq!(names(dir.path()), ["photos.tar", "zebra"]);
}

#[tokio::test]
async fn what_opening_would_find_is_known_before() {
    let dir = new_dir();
    let missing = dir.path().join("a/cache");
    assert_eq!(Claim::of(&missing).unwrap(), Claim::Free);
    assert!(!dir.path().join("a").exists());
    assert_eq!(Claim::of(dir.path()).unwrap(), Claim::Free);
    assert!(names(dir.path()).is_empty());
    let store = open(&dir).await;
    assert_eq!(Claim::of(dir.path()).unwrap(), Claim::Ours, "also of one that is open");
    store.close().await;
    fs::write(dir.path().join("VERSION"), "entrepot store 2\n").unwrap();
    assert!(matches!(Claim::of(dir.path()), Err(OpenError::UnknownVersion { .. })));
    fs::remove_file(dir.path().join("VERSION")).unwrap();
    assert!(matches!(Claim::of(dir.path()), Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn a_fresh_mount_is_not_foreign() {
    let dir = new_dir();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join(".keep"), b"").unwrap();
    open(&dir).await.close().await;
    assert!(dir.path().join(".keep").exists());
}

#[tokio::test]
async fn a_crash_while_claiming_is_survived() {
    let dir = new_dir();
    fs::write(dir.path().join(".VERSION"), b"entrep").unwrap();
    open(&dir).await.close().await;
    assert!(!dir.path().join(".VERSION").exists());
}

#[tokio::test]
async fn a_file_is_not_a_directory() {
    let dir = new_dir();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(refusal(&file).await, OpenError::Store { .. }));
}

#[tokio::test]
async fn the_second_opener_is_told_who_holds_the_lock() {
    let dir = new_dir();
    let store = open(&dir).await;
    let since = Instant::now();
    let error = refusal(dir.path()).await;
    assert!(since.elapsed() < Duration::from_secs(1));
    let own = std::process::id();
    assert!(matches!(error, OpenError::Locked { holder: Some(holder), .. } if holder == own));
    assert!(error.to_string().contains(&format!("process {own}")), "{error}");
    store.close().await;
    open(&dir).await.close().await;
}

#[tokio::test]
async fn a_writer_keeps_the_lock() {
    let dir = new_dir();
    let store = open(&dir).await;
    let (writer, _reader) =
        reserve(&store, &sha256(b"x")).await.begin(crate::Start::Fresh, None).await.unwrap();
    store.close().await;
    assert!(matches!(refusal(dir.path()).await, OpenError::Locked { .. }));
    drop(writer);
    open(&dir).await.close().await;
}

#[tokio::test]
async fn everything_is_private_whatever_the_umask() {
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let dir = new_dir();
    let store_dir = dir.path().join("deep/store");
    let store = Store::open(Options::new(&store_dir)).await.unwrap();
    fill(&store, &noise(1_000, 1)).await;
    leave_partial(&store, &noise(100_000, 2), 1).await;
    store.put(&sha256(b"put"), "put".into()).await.unwrap();
    let records = super::records_of(&store, "ghcr.io", "some/thing");
    records.record_content(&sha256(b"put"), &ContentRecord::now(None)).await.unwrap();
    store.quarantine(&sha256(b"put")).await.unwrap();
    store.close().await;
    rustix::process::umask(before);
    assert_private(&dir.path().join("deep"));
}

fn assert_private(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_dir() {
        assert_eq!(mode, 0o600, "{}", path.display());
        return;
    }
    assert_eq!(mode, 0o700, "{}", path.display());
    // The engine makes its own files; their directory keeps others out.
    if !path.ends_with("index") {
        for name in names(path) {
            assert_private(&path.join(name));
        }
    }
}

#[tokio::test]
async fn recovery_keeps_partial_files_and_nothing_else_there() {
    let dir = new_dir();
    let store = open(&dir).await;
    let (content, other) = (noise(200_000, 3), noise(200_000, 4));
    leave_partial(&store, &content, 10).await;
    fill(&store, &other).await;
    store.close().await;
    let partial = dir.path().join("partial");
    let digest = sha256(&content);
    for name in ["stray", "sha256/short", "tmp/0", "tmp/x"] {
        fs::write(partial.join(name), b"x").unwrap();
    }
    let hex = digest.hex();
    let tag = "0123456789abcdef0123456789abcdef";
    for name in
        [hex.clone(), hex.to_uppercase(), format!("{hex}.x"), format!("{}.{tag}", &hex[1..])]
    {
        fs::write(partial.join("sha256").join(name), b"x").unwrap();
    }
    fs::write(partial_path(&dir, &sha256(&other)), b"kept already").unwrap();
    fs::create_dir_all(partial.join("sha1/deep")).unwrap();
    fs::create_dir(partial_path(&dir, &sha256(b"a directory"))).unwrap();
    std::os::unix::fs::symlink(dir.path(), partial_path(&dir, &sha256(b"a link"))).unwrap();

    let store = open(&dir).await;
    assert_eq!(names(&partial), ["sha256", "sha512", "tmp"]);
    assert_eq!(names(&partial.join("tmp")), Vec::<String>::new());
    let own = partial_path(&dir, &digest).file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(names(&partial.join("sha256")), [own]);
    assert_eq!(reserve(&store, &digest).await.resume_from(), 196_608);
    assert_eq!(read_all(&kept(&store, &sha256(&other)).await, 65_536).await.unwrap(), other);
}

#[tokio::test]
async fn a_link_or_fifo_under_a_blobs_name_is_not_followed() {
    let dir = new_dir();
    let store = open(&dir).await;
    let digest = sha256(b"x");
    let path = super::blob_path(&dir, &digest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    drop(reserve(&store, &digest).await);
    fs::remove_file(&path).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
    drop(reserve(&store, &digest).await);
}
