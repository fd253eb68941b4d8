//! What this machine, or the container on it, lets the process have.
//!
//! Reads the files that Linux shows and concludes nothing else; [`super::resolve`] decides. A file that is
//! missing or unreadable is a fact that isn't known, never an error: other systems have none of them.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// The facts that defaults are derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// The memory limit of the process's control group or of one above it, when there is one.
    pub cgroup_limit_bytes: Option<u64>,
    /// The machine's memory.
    pub physical_bytes: Option<u64>,
    /// Processors that the process may use: its affinity, and its control group's quota rounded down.
    pub parallelism: NonZeroUsize,
}

impl Machine {
    /// Looks at the machine that this process runs on.
    pub fn read() -> Self {
        Self::read_under(
            Path::new("/"),
            std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        )
    }

    /// The same from another root, which is how tests show it a machine.
    fn read_under(root: &Path, parallelism: NonZeroUsize) -> Self {
        let physical_bytes = fs::read_to_string(root.join("proc/meminfo"))
            .ok()
            .and_then(|text| mem_total(&text));
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let cgroup_limit_bytes = limit_files(&groups)
            .filter_map(|path| fs::read_to_string(root.join(path)).ok())
            .filter_map(|text| text.trim().parse::<u64>().ok())
            // Version 1 writes "no limit" as a number close to 2^63.
            .filter(|&limit| limit < physical_bytes.unwrap_or(1 << 60))
            .min();
        Self {
            cgroup_limit_bytes,
            physical_bytes,
            parallelism,
        }
    }
}

/// `MemTotal:       24610304 kB`, where kB means 1024 bytes.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// Where the limits of the process's group and of all groups above it stand. In a container with a namespace of
/// its own the group is `/`; without one, the path names groups that the mount may not show, and only the
/// root of the mount exists.
fn limit_files(proc_self_cgroup: &str) -> impl Iterator<Item = PathBuf> + '_ {
    // hierarchy-ID:controllers:path; version 2 has the single line "0::/path".
    let groups = proc_self_cgroup.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        if controllers.is_empty() {
            Some(("sys/fs/cgroup", "memory.max", path))
        } else if controllers.split(',').any(|name| name == "memory") {
            Some(("sys/fs/cgroup/memory", "memory.limit_in_bytes", path))
        } else {
            None
        }
    });
    groups.flat_map(|(mount, file, path)| {
        Path::new(path.trim_start_matches('/'))
            .ancestors()
            .map(move |group| Path::new(mount).join(group).join(file))
            .collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Files = &'static [(&'static str, &'static str)];

    const MEMINFO: &str = "MemTotal:       16777216 kB\nMemFree:         1234 kB\n";

    fn machine(files: &[(&str, &str)]) -> Machine {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Machine::read_under(root.path(), NonZeroUsize::MIN)
    }

    #[test]
    fn limits_are_found_in_both_versions_of_control_groups() {
        let gib = 1_u64 << 30;
        let table: [(&str, Files, Option<u64>); 7] = [
            (
                "version 2, namespace",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "1073741824\n"),
                ],
                Some(gib),
            ),
            (
                "version 2, no limit",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "max\n"),
                ],
                None,
            ),
            (
                "version 2, the limit of a group above is the smaller one",
                &[
                    ("proc/self/cgroup", "0::/system.slice/annulus.service\n"),
                    ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
                    (
                        "sys/fs/cgroup/system.slice/annulus.service/memory.max",
                        "2147483648\n",
                    ),
                ],
                Some(gib),
            ),
            (
                "version 1, namespace",
                &[
                    ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
                ],
                Some(gib),
            ),
            (
                "version 1, no limit",
                &[
                    ("proc/self/cgroup", "4:memory:/docker/abc\n"),
                    (
                        "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                ],
                None,
            ),
            (
                "a limit over the machine's memory is none",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "17179869185\n"),
                ],
                None,
            ),
            ("not Linux", &[], None),
        ];
        for (name, files, expected) in table {
            let files: Vec<_> = files.iter().copied().chain([("proc/meminfo", MEMINFO)]).collect();
            let found = machine(&files);
            assert_eq!(found.cgroup_limit_bytes, expected, "{name}");
            assert_eq!(found.physical_bytes, Some(16 * gib), "{name}");
        }
    }

    #[test]
    fn a_machine_that_shows_nothing_is_unknown_not_an_error() {
        assert_eq!(
            machine(&[("proc/meminfo", "nonsense")]),
            Machine {
                cgroup_limit_bytes: None,
                physical_bytes: None,
                parallelism: NonZeroUsize::MIN
            }
        );
    }
}
