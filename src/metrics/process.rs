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
    if let Some(Memory { virtual_bytes, resident_bytes }) = memory() {
        families.gauge("process_resident_memory_bytes", "Memory in use.", resident_bytes)?;
        let help = "Addresses in use, whether there is memory behind them or not.";
        families.gauge("process_virtual_memory_bytes", help, virtual_bytes)?;
    }
    if let Some(most) = rustix::process::getrlimit(Resource::As).current {
        let help = "How many addresses may be in use.";
        families.gauge("process_virtual_memory_max_bytes", help, most)?;
    }
    if let Some(Running { cpu_secs, threads }) = running() {
        families.seconds("process_cpu_seconds", "Time that processors have worked.", cpu_secs)?;
        families.gauge("process_threads", "Threads.", threads)?;
    }
    Ok(())
}

fn open_files() -> Option<u64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory itself is open while it is read.
    u64::try_from(count).ok()?.checked_sub(1)
}

struct Memory {
    virtual_bytes: u64,
    resident_bytes: u64,
}

/// The first two numbers of `/proc/self/statm`, in pages.
fn memory() -> Option<Memory> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    let mut numbers = statm.split(' ').map(|pages| pages.parse::<u64>().ok()?.checked_mul(page));
    Some(Memory { virtual_bytes: numbers.next()??, resident_bytes: numbers.next()?? })
}

struct Running {
    cpu_secs: f64,
    threads: u64,
}

/// Of `/proc/self/stat` (`proc_pid_stat` in section 5 of the manual): `utime` and `stime`, in
/// ticks, and `num_threads`. They stand behind the program's name, which may have brackets and
/// spaces in it.
fn running() -> Option<Running> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let behind: Vec<_> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    // The first of these is the third field of all.
    let field = |number: usize| behind.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)?.checked_add(field(15)?)?;
    #[expect(clippy::cast_precision_loss, reason = "years of ticks are exact")]
    let cpu_secs = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some(Running { cpu_secs, threads: field(20)? })
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
        let Memory { virtual_bytes, resident_bytes } = memory().unwrap();
        assert!((1 << 20..1 << 34).contains(&resident_bytes) && virtual_bytes >= resident_bytes);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let work = |sum: u64| (0..1_000_000).fold(sum, |sum, n: u64| sum.wrapping_mul(31) ^ n);
        while running().unwrap().cpu_secs <= 0.0 && std::time::Instant::now() < until {
            std::hint::black_box(work(std::hint::black_box(1)));
        }
        let Running { cpu_secs, threads } = running().unwrap();
        assert!(cpu_secs > 0.0 && threads >= 1, "{cpu_secs} {threads}");
    }
}
