//! The files of a layout: an image is called by a name that is one, and by no digest but its own.

#![no_main]

use entrepot::fuzzing::images::{images, is_layout};
use entrepot_oci::{ImageName, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = is_layout(bytes);
    let Some(images) = images(bytes) else { return };
    for (digest, name) in images {
        let Some(name) = name else { continue };
        assert_eq!(name.to_string().parse::<ImageName>().as_ref(), Ok(&name));
        if let Reference::Digest(named) = name.reference {
            assert_eq!(named, digest);
        }
    }
});
