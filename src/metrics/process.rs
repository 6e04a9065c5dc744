//! What the system says of this process, under the names that Prometheus' own libraries use.

use std::fmt;
use std::time::SystemTime;

use rustix::process::Resource;

use super::Families;

/// Writes what can be found out.
pub(super) fn write(families: &mut Families<'_, '_>, started: SystemTime) -> fmt::Result {
    families.moment("process_start_time_seconds", "When this process started.", started)?;
    if let Some(count) = open_files() {
        families.gauge("process_open_fds", "Files that are open, sockets included.", count)?;
    }
    if let Some(most) = rustix::process::getrlimit(Resource::Nofile).current {
        families.gauge("process_max_fds", "How many files may be open.", most)?;
    }
    if let Some(bytes) = resident_bytes() {
        families.gauge("process_resident_memory_bytes", "Memory in use.", bytes)?;
    }
    Ok(())
}

fn open_files() -> Option<u64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory itself is open while it is read.
    u64::try_from(count).ok()?.checked_sub(1)
}

/// The second number of `/proc/self/statm`, in pages.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_understood() {
        let before = open_files().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(before >= 3 && open_files().unwrap() >= 4);
        drop(file);
        assert!((1 << 20..1 << 34).contains(&resident_bytes().unwrap()));
    }
}
