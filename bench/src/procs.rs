//! What the system knows of processes: CPU time, memory, and on which CPUs they run. Not every
//! system tells all of it: sandboxes have a `/proc` of their own.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use rustix::process::Pid;
use rustix::thread::CpuSet;

use crate::size::float;

/// A process with all its descendants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree(pub(crate) u32);

impl Tree {
    /// This process.
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// Seconds of CPU that its processes have used, user and system.
    pub(crate) fn cpu_secs(self) -> f64 {
        let ticks = self.pids().into_iter().filter_map(stat).map(|stat| stat.ticks).sum();
        float(ticks) / float(rustix::param::clock_ticks_per_second())
    }

    /// The most memory that was resident since [`Self::reset_peak`], in kB, where the system tells.
    pub(crate) fn peak_kb(self) -> Option<u64> {
        self.sum("status", "VmHWM:")
    }

    /// Memory that is resident, in kB, where the system tells; what processes share counts in part
    /// for each.
    pub(crate) fn resident_kb(self) -> Option<u64> {
        self.sum("smaps_rollup", "Pss:")
    }

    /// Forgets the peak so far.
    pub(crate) fn reset_peak(self) {
        for pid in self.pids() {
            // Without the right to do so the peak is that of the process's whole life.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// Lets all its threads run on these CPUs alone.
    pub(crate) fn pin(self, cpus: &[usize]) -> anyhow::Result<()> {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.set(*cpu);
        }
        for pid in self.pids() {
            for thread in numbers(format!("/proc/{pid}/task")) {
                let thread = i32::try_from(thread).ok().and_then(Pid::from_raw);
                match rustix::thread::sched_setaffinity(thread, &set) {
                    // A thread may have ended meanwhile.
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error).context("sched_setaffinity"),
                }
            }
        }
        Ok(())
    }

    fn sum(self, file: &str, key: &str) -> Option<u64> {
        let read = |pid| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let values = self.pids().into_iter().filter_map(|pid| value_kb(&read(pid)?, key));
        values.reduce(|sum, value| sum + value)
    }

    fn pids(self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for pid in numbers("/proc") {
            if let Some(stat) = stat(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let (mut found, mut next) = (Vec::new(), vec![self.0]);
        while let Some(pid) = next.pop() {
            next.extend(children.remove(&pid).unwrap_or_default());
            found.push(pid);
        }
        found
    }
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// What `proc_pid_stat(5)` says; the name before it may contain anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks: number(11)? + number(12)? })
}

fn value_kb(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

/// The entries of a directory that are numbers.
fn numbers(dir: impl AsRef<Path>) -> Vec<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Seconds for which this machine's CPUs were busy, with whatever, where the system tells.
pub(crate) fn busy_secs() -> Option<f64> {
    let ticks = busy_ticks(&fs::read_to_string("/proc/stat").ok()?)?;
    Some(float(ticks) / float(rustix::param::clock_ticks_per_second()))
}

fn busy_ticks(stat: &str) -> Option<u64> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    // proc_stat(5): user nice system idle iowait irq softirq; the fourth and fifth are no work.
    let busy = times.take(7).enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    let ticks = busy.map(|(_, time)| time.parse::<u64>().unwrap_or_default()).sum();
    // A machine that has never worked is one that does not say.
    (ticks > 0).then_some(ticks)
}

/// The CPUs that this process may use.
pub(crate) fn cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps the calling thread, and threads that it starts, on one CPU.
pub(crate) fn pin_thread(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).context("sched_setaffinity")
}

/// Allows as many open files as this process may allow itself; what it starts inherits that.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // With fewer files some blocks fail, and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Tree, busy_ticks, cpus, value_kb};

    #[test]
    fn this_process_uses_cpu() {
        let own = Tree::own();
        let (since, deadline) = (own.cpu_secs(), Instant::now() + Duration::from_secs(30));
        while own.cpu_secs() <= since {
            assert!(Instant::now() < deadline, "{since} s and no more");
            std::hint::black_box((0..1_000_000).fold(0, u64::wrapping_add));
        }
        assert!(!cpus().is_empty());
    }

    #[test]
    fn a_machine_that_never_works_does_not_tell() {
        let stat = "cpu  100 20 3 5000 600 7 8 9 10 11\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 1\n";
        assert_eq!(busy_ticks(stat), Some(100 + 20 + 3 + 7 + 8));
        assert_eq!(busy_ticks("cpu  0 0 0 0 0 0 0 0 0 0\n"), None);
        assert_eq!(busy_ticks(""), None);
    }

    #[test]
    fn memory_that_is_not_told_is_no_memory_of_nought() {
        let status = "Name:\tserver\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        assert_eq!(value_kb(status, "VmHWM:"), Some(2048));
        assert_eq!(value_kb(status, "Pss:"), None);
        let own = Tree::own();
        assert_eq!(own.sum("status", "NoSuchKey:"), None);
        // Every system that has /proc tells this one.
        assert!(own.sum("status", "VmRSS:").unwrap() > 100);
    }

    #[test]
    fn descendants_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(Tree::own().pids().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
