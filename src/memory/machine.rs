//! How much memory this process may use: the tightest limit of its control group and of those
//! above it, or the machine's own.
//!
//! Control groups of both versions: `memory.limit_in_bytes` of the first ("Memory Resource
//! Controller", Linux kernel), `memory.max` and `memory.high` of the second ("Control Group v2").

use std::fs;
use std::path::{Path, PathBuf};

/// Larger ones are none: the first version says so by a number near the largest there is.
const NO_LIMIT: u64 = 1 << 50;
/// The files with a group's limits.
const LIMITS: [&str; 3] = ["memory.max", "memory.high", "memory.limit_in_bytes"];

/// Bytes that this process may use, as far as the system says. Blocking.
pub(crate) fn available() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let limits = directories(&groups, &mounts).into_iter().filter_map(|dir| limit_of(&dir));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    limits.chain(machine).min()
}

/// The directories of the memory controller that say something of this process: its own group's
/// and those above it.
fn directories(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for (root, point) in mounts.lines().filter_map(|line| mount(line)) {
        let Some(group) = groups.lines().find_map(|line| group(line, point.is_first)) else {
            continue;
        };
        // Inside a container the mount shows a part of the hierarchy, or another one.
        let within = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
        let mut dir = point.path.join(within);
        while dir.starts_with(&point.path) {
            all.push(dir.clone());
            if !dir.pop() {
                break;
            }
        }
    }
    all
}

/// Where a hierarchy with the memory controller is mounted.
struct MountPoint {
    path: PathBuf,
    /// Whether it is of the first version.
    is_first: bool,
}

/// What of the hierarchy is mounted, and where: `ID PARENT DEV ROOT POINT … - TYPE SOURCE OPTIONS`
/// (`proc_pid_mountinfo(5)`).
fn mount(line: &str) -> Option<(&str, MountPoint)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let is_first = match kind.next()? {
        "cgroup2" => false,
        "cgroup" if kind.next_back()?.split(',').any(|option| option == "memory") => true,
        _ => return None,
    };
    Some((root, MountPoint { path: PathBuf::from(point), is_first }))
}

/// The group of a line `ID:CONTROLLERS:PATH` (`cgroups(7)`), if it is the one of that hierarchy.
fn group(line: &str, is_first: bool) -> Option<&str> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let is_it = if is_first {
        controllers.split(',').any(|controller| controller == "memory")
    } else {
        controllers.is_empty()
    };
    is_it.then_some(path)
}

fn limit_of(dir: &Path) -> Option<u64> {
    let read = |name: &&str| fs::read_to_string(dir.join(name)).ok();
    // "max": none.
    let limits = LIMITS.iter().filter_map(read).filter_map(|text| text.trim().parse().ok());
    limits.filter(|limit| *limit < NO_LIMIT).min()
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn paths(groups: &str, mounts: &str) -> Vec<String> {
        let all = directories(groups, mounts);
        all.into_iter().map(|dir| dir.to_string_lossy().trim_end_matches('/').to_owned()).collect()
    }

    #[test]
    fn every_group_up_the_hierarchy_counts() {
        let first = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n";
        let root = "/sys/fs/cgroup/memory";
        assert_eq!(paths(first, V1), [format!("{root}/a/b"), format!("{root}/a"), root.to_owned()]);
        let second = "0::/system.slice/entrepot.service\n";
        let root = "/sys/fs/cgroup";
        let slice = format!("{root}/system.slice");
        assert_eq!(
            paths(second, V2),
            [format!("{slice}/entrepot.service"), slice, root.to_owned()]
        );
    }

    #[test]
    fn a_container_sees_its_own_part_of_the_hierarchy() {
        let mounts = V1.replace(" / /sys", " /docker/abc /sys");
        assert_eq!(paths("4:memory:/docker/abc/x\n", &mounts).len(), 2);
        // The path is the host's, and the mount another view of it.
        assert_eq!(paths("4:memory:/kubepods/pod/abc\n", &mounts), ["/sys/fs/cgroup/memory"]);
        assert_eq!(paths("0::/../../x\n", V2).last().unwrap(), "/sys/fs/cgroup");
    }

    #[test]
    fn the_tightest_limit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(limit_of(dir.path()), None);
        let set = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        set("memory.max", "max\n");
        assert_eq!(limit_of(dir.path()), None);
        set("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit_of(dir.path()), None);
        set("memory.max", "268435456\n");
        assert_eq!(limit_of(dir.path()), Some(256 << 20));
        set("memory.high", "1000\n");
        assert_eq!(limit_of(dir.path()), Some(1000));
        assert_eq!(total("MemTotal:       24684556 kB\nMemFree: 1 kB\n"), Some(24_684_556 << 10));
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
