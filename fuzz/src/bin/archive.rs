//! An archive that is imported: it reads alike however it comes, no entry is longer than it says or
//! outside, and what is written is read here and elsewhere.

#![no_main]

use std::io::Read;

use entrepot::fuzzing::images::{entries, file, images, is_layout, path_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let (found, outcome) = entries(bytes);
    let slow = Slow { bytes, piece: usize::from(piece) + 1 };
    assert_eq!((found.clone(), outcome.clone()), entries(slow));
    let mut sum = 0;
    for entry in &found {
        assert_eq!(entry.contents.len() as u64, entry.size);
        assert!(!entry.path.starts_with('/') && !entry.path.split('/').any(|part| part == ".."));
        if let Some(digest) = &entry.digest {
            assert!(entry.is_file);
            assert_eq!(entry.path, path_of(digest), "{}", entry.path);
        }
        match entry.path.as_str() {
            "index.json" => {
                let _ = images(&entry.contents);
            }
            "oci-layout" => {
                let _ = is_layout(&entry.contents);
            }
            _ => {}
        }
        sum += entry.size;
    }
    assert!(sum <= bytes.len() as u64);
    if let Ok(read) = outcome {
        assert!(read <= bytes.len() as u64);
    }
    written(bytes);
});

/// A file with these contents, and a name of its own.
fn written(bytes: &[u8]) {
    let contents = &bytes[bytes.len() / 2..];
    let name: String =
        bytes.iter().take(bytes.len() / 2).map(|b| char::from(b'a' + b % 26)).collect();
    if name.is_empty() || name.len() > 4000 {
        return;
    }
    let path = format!("d/{name}");
    let archive = [file(&path, contents), vec![0; 1024]].concat();
    let (found, outcome) = entries(&archive[..]);
    assert!(outcome.is_ok());
    assert_eq!(
        (found.len(), found[0].path.as_str(), found[0].contents.as_slice()),
        (1, path.as_str(), contents)
    );
    let mut elsewhere = tar::Archive::new(&archive[..]);
    let mut elsewhere = elsewhere.entries().unwrap();
    let mut entry = elsewhere.next().unwrap().unwrap();
    assert_eq!(entry.path_bytes().as_ref(), path.as_bytes());
    let mut read = Vec::new();
    entry.read_to_end(&mut read).unwrap();
    assert_eq!(read, contents);
}

struct Slow<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.piece.min(buffer.len());
        self.bytes.read(&mut buffer[..most])
    }
}
