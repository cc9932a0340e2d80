//! Numbers as people read them.

pub(crate) use reparam_train::numbers::{given, measured, short};
use serde_json::Value;

/// `1234567` as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A message with what to do about it.
pub(crate) fn hinted(message: &str, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{message}\nhint: {hint}"),
        None => message.to_owned(),
    }
}

/// A count with its noun, in the plural if it needs one.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(n))
}

/// Bytes in the largest binary unit that leaves at least one.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut size = n as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Seconds as `0.5s`, `12.3s`, `4m 05s` or `3h 04m 05s`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a duration is not negative, and a cast of a float saturates"
)]
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours == 0 {
        format!("{minutes}m {rest:02}s")
    } else {
        format!("{hours}h {minutes:02}m {rest:02}s")
    }
}

/// A measure of a model as text: counts whole, other numbers with some decimals; `None` where it has no value.
pub(crate) fn measure(value: &Value, decimals: usize) -> Option<String> {
    match value.as_u64() {
        Some(n) => Some(count(n)),
        None => value.as_f64().map(|x| measured(x, decimals)),
    }
}

/// `part` of `whole` in percent.
#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
pub(crate) fn percent(part: u64, whole: u64) -> String {
    format!("{:.2} %", 100.0 * part as f64 / (whole.max(1)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(n), text);
        }
        assert_eq!(counted(1, "step"), "1 step");
        assert_eq!(counted(2000, "step"), "2,000 steps");
        for (n, text) in [
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (s, text) in [
            (0.04, "0.0s"),
            (59.94, "59.9s"),
            (59.96, "1m 00s"),
            (245.0, "4m 05s"),
            (11_045.0, "3h 04m 05s"),
        ] {
            assert_eq!(seconds(s), text);
        }
        assert_eq!(percent(1, 8), "12.50 %");
        assert_eq!(percent(0, 0), "0.00 %");
    }
}
