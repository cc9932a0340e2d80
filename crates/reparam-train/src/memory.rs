//! How much memory the process has held, and how much it may have.

use std::fs;
use std::path::Path;

use crate::{Result, TrainError};

/// Refuses what surely does not fit. `parts` are the settings that decide, and the bytes that each takes at least.
///
/// Nothing is known of what else the machine does, so this compares with all memory that the process may ever have: what passes
/// may still be too much.
///
/// # Errors
///
/// [`TrainError::DoesNotFit`].
pub(crate) fn check_fits(parts: &[(&str, u128)]) -> Result<()> {
    match limit() {
        Some(have) => check_within(have, parts),
        None => Ok(()),
    }
}

fn check_within(have: u64, parts: &[(&str, u128)]) -> Result<()> {
    let need = parts
        .iter()
        .fold(0_u128, |sum, (_, part)| sum.saturating_add(*part));
    match parts.iter().max_by_key(|(_, part)| *part) {
        Some((setting, part)) if need > u128::from(have) => Err(TrainError::DoesNotFit {
            need,
            have,
            largest: ((*setting).to_owned(), *part),
        }),
        _ => Ok(()),
    }
}

/// Returns the bytes that this process may have: those of the machine with its swap, or less where its control group, or the
/// limit on its address space, says so.
///
/// Read from Linux's `/proc` and `/sys`; `None` on other systems.
fn limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let swap = kibibytes(&machine, "SwapTotal:").unwrap_or(0);
    let machine = kibibytes(&machine, "MemTotal:").map(|ram| ram + swap);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let number = |file: &str| fs::read_to_string(file).ok()?.trim().parse().ok();
    let groups = group_files(&groups).into_iter();
    let groups = groups.filter_map(|files| files.limit(swap, number));
    let limits = fs::read_to_string("/proc/self/limits").ok();
    let addresses = limits.and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Max address space"))?;
        line.split_whitespace().next()?.parse().ok()
    });
    machine.into_iter().chain(groups).chain(addresses).min()
}

/// The files that limit the memory of a control group.
#[derive(Debug, PartialEq, Eq)]
struct GroupFiles {
    ram: String,
    /// Of swap alone, or with RAM.
    swap: String,
    with_ram: bool,
}

impl GroupFiles {
    /// Returns the bytes of RAM and swap that the group may have on a machine with `swap`; `number` reads a file, if it has one.
    fn limit(&self, swap: u64, number: impl Fn(&str) -> Option<u64>) -> Option<u64> {
        let own = number(&self.swap);
        let ram = number(&self.ram);
        if self.with_ram {
            let sum = ram.map(|ram| ram.saturating_add(swap));
            return sum.into_iter().chain(own).min();
        }
        Some(ram?.saturating_add(own.map_or(swap, |own| own.min(swap))))
    }
}

/// Returns the files that may limit the memory of a process, of its control group and those around it, in both versions.
fn group_files(groups: &str) -> Vec<GroupFiles> {
    const FIRST: [&str; 2] = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
    const SECOND: [&str; 2] = ["memory.max", "memory.swap.max"];
    let lines = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => Some(("/sys/fs/cgroup", path, SECOND)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", path, FIRST))
            }
            _ => None,
        }
    });
    lines
        .flat_map(|(root, path, names)| {
            Path::new(path).ancestors().map(move |group| {
                let file =
                    |name: &str| format!("{root}{}/{name}", group.display()).replace("//", "/");
                GroupFiles {
                    ram: file(names[0]),
                    swap: file(names[1]),
                    with_ram: names == FIRST,
                }
            })
        })
        .collect()
}

/// Returns a line of `/proc` in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number * 1024)
}

/// Returns the largest resident size of this process so far, in bytes.
///
/// Read from Linux's `/proc`; zero on other systems.
pub fn peak_rss_bytes() -> u64 {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return 0;
    };
    kibibytes(&status, "VmHWM:").unwrap_or(0)
}

/// Returns the resident size of this process now, in bytes.
///
/// Read from Linux's `/proc`; zero on other systems.
pub(crate) fn held_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kibibytes(&status, "VmRSS:").unwrap_or(0)
}

/// Returns the bytes that this process may hold at most as things are: what it holds and what is free, or less where a
/// [limit](check_fits) says so.
///
/// Read from Linux's `/proc` and `/sys`; `None` on other systems.
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok()?;
    let free = kibibytes(&machine, "MemAvailable:")?;
    let swap = kibibytes(&machine, "SwapFree:").unwrap_or(0);
    let now = held_bytes().saturating_add(free).saturating_add(swap);
    limit().into_iter().chain([now]).min()
}

/// Returns how many pages this process has touched for the first time so far, without disk access.
///
/// Read from Linux's `/proc`; `None` on other systems.
pub(crate) fn minor_page_faults() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; `minflt` is the eighth field after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_surely_does_not_fit_is_refused() {
        check_within(100, &[("rank", 60), ("batch_size", 40)]).expect("all of it");
        check_within(100, &[]).expect("nothing");
        let error = check_within(100, &[("rank", 50), ("batch_size", 51)]).expect_err("more");
        let text = "this needs at least 101 B of memory, and there is 100 B";
        assert_eq!(error.to_string(), text);
        let hint = error.hint().expect("a hint");
        assert_eq!(hint, "lower batch_size, which takes 51 B of it");
        let parts = [("rank", u128::MAX), ("batch_size", u128::MAX)];
        assert!(check_within(u64::MAX, &parts).is_err());
        check_fits(&[("rank", u128::from(u64::MAX))]).expect_err("no machine");
        check_fits(&[("rank", 1 << 20)]).expect("this machine");
    }

    #[test]
    fn limits_of_control_groups_are_found() {
        let groups = group_files("4:cpu,memory:/a/b\n1:cpu:/x\n0::/c\n");
        let files: Vec<&str> = groups.iter().map(|files| files.ram.as_str()).collect();
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/c/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, expected);
        let text = "MemTotal:       16 kB\nSwapTotal: x kB\n";
        assert_eq!(kibibytes(text, "MemTotal:"), Some(16 << 10));
        assert_eq!(kibibytes(text, "SwapTotal:"), None);
    }

    /// As much as the group may have of RAM, and of the swap that the machine has.
    #[test]
    fn limits_of_control_groups_are_of_ram_and_swap() {
        let limit = |groups: &str, numbers: [Option<u64>; 2]| {
            let groups = group_files(groups);
            let number = |file: &str| match file.contains("sw") {
                false => numbers[0],
                true => numbers[1],
            };
            groups[0].limit(50, number)
        };
        let (first, second) = ("4:memory:/\n", "0::/\n");
        let cases = [
            (second, [Some(100), Some(0)], Some(100)),
            (second, [Some(100), Some(30)], Some(130)),
            (second, [Some(100), Some(90)], Some(150)),
            // No limit on swap, or none that is said.
            (second, [Some(100), None], Some(150)),
            (second, [None, Some(0)], None),
            (first, [Some(100), None], Some(150)),
            (first, [Some(100), Some(120)], Some(120)),
            (first, [Some(100), Some(500)], Some(150)),
            (first, [Some(u64::MAX), Some(u64::MAX)], Some(u64::MAX)),
        ];
        for (groups, numbers, expected) in cases {
            assert_eq!(limit(groups, numbers), expected, "{groups} {numbers:?}");
        }
        let swap = |groups: &str| group_files(groups).swap_remove(0).swap;
        let root = "/sys/fs/cgroup";
        assert_eq!(swap(second), format!("{root}/memory.swap.max"));
        let memsw = format!("{root}/memory/memory.memsw.limit_in_bytes");
        assert_eq!(swap(first), memsw);
    }

    #[test]
    fn the_peak_grows_with_what_is_touched() {
        let before = peak_rss_bytes();
        let faults = minor_page_faults().expect("Linux counts them");
        assert!(before > 1 << 20, "{before}");
        // More than the peak alone: other tests may have given back what made it.
        let touched = vec![1_u8; before as usize + (64 << 20)];
        assert!(peak_rss_bytes() >= before + (64 << 20));
        assert!(minor_page_faults() >= Some(faults + 100));
        drop(touched);
    }
}
