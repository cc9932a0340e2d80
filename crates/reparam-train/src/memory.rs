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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_grows_with_what_is_touched() {
        let before = peak_rss_bytes();
        assert!(before > 1 << 20, "{before}");
        let touched = vec![1_u8; 256 << 20];
        assert!(peak_rss_bytes() >= before + (200 << 20) || before > 256 << 20);
        drop(touched);
    }
}
