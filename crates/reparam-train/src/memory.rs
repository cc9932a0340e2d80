//! How much memory the process has held.

/// Returns the largest resident size of this process so far, in bytes.
///
/// Read from Linux's `/proc`; zero on other systems.
pub fn peak_rss_bytes() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return 0;
    };
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes * 1024)
}

/// Returns how many pages this process has touched for the first time so far, without disk access.
///
/// Read from Linux's `/proc`; `None` on other systems.
pub(crate) fn minor_page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; `minflt` is the eighth field after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

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
