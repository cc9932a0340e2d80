//! Numbers, and cells of tables, as people read them.

/// Writes a number with four decimals, or as a power of ten where those would hide it.
pub(crate) fn readable(x: f64) -> String {
    if x.is_finite() && x.abs() >= 1e5 {
        power(x, 3)
    } else {
        measured(x, 4)
    }
}

/// Writes a measured number with some decimals, so that numbers of one kind stand below each other, or as a power of ten
/// where they would hide it: the unit is the user's.
#[must_use]
pub fn measured(x: f64, decimals: usize) -> String {
    // Below, fewer than two digits would be left.
    let least = 10.0_f64.powi(1 - i32::try_from(decimals).unwrap_or(i32::MAX));
    if x.is_finite() && x != 0.0 && !(least..1e12).contains(&x.abs()) {
        power(x, 3)
    } else {
        format!("{x:.decimals$}")
    }
}

/// Writes a number as a power of ten, with at most so many decimals and none that is a zero at the end.
fn power(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$e}");
    match text.split_once('e') {
        Some((digits, power)) if digits.contains('.') => {
            let digits = digits.trim_end_matches('0').trim_end_matches('.');
            format!("{digits}e{power}")
        }
        _ => text,
    }
}

/// Writes a number as one says it: with up to four digits that count, as a power of ten where zeros would hide them.
#[must_use]
pub fn short(x: f64) -> String {
    if !x.is_finite() || x == 0.0 {
        return if x == 0.0 {
            "0".to_owned()
        } else {
            x.to_string()
        };
    }
    // 0.0099999 is written as what it is rounded to.
    let rounded: f64 = format!("{:.3e}", x.abs()).parse().unwrap_or(x.abs());
    if !(1e-2..1e6).contains(&rounded) {
        return power(x, 2);
    }
    // Digits before the point count, too.
    let before = rounded.log10().floor() as i32 + 1;
    let text = format!("{x:.*}", usize::try_from(4 - before).unwrap_or(0));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Writes a number that a user gave as a user would write it.
#[must_use]
pub fn given(x: f64) -> String {
    if x == 0.0 || (1e-5..1e9).contains(&x.abs()) {
        x.to_string()
    } else {
        format!("{x:e}")
    }
}

/// Writes a size in bytes with a unit.
pub(crate) fn bytes(n: u128) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = n as f64;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if size >= 1e6 => format!("{size:.1e} {}", UNITS[unit]),
        _ => format!("{size:.1} {}", UNITS[unit]),
    }
}

/// Quotes the cell of a table where CSV needs it.
pub(crate) fn csv_cell(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (n, expected) in [
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 40, "5.0 TiB"),
            (u128::MAX, "3.0e23 PiB"),
        ] {
            assert_eq!(bytes(n), expected);
        }
    }

    #[test]
    fn no_number_is_hidden() {
        let cases = [
            (0.0, "0.0000"),
            (0.03162, "0.0316"),
            (-99_999.0, "-99999.0000"),
            (1e5, "1e5"),
            (2.5e-7, "2.5e-7"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "NaN"),
        ];
        for (number, text) in cases {
            assert_eq!(readable(number), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (4.7e-3, "4.7e-3"),
            (0.98, "0.98"),
            (0.009_999_9, "0.01"),
            (9.9999, "10"),
            (0.012_345, "0.01235"),
            (1.0, "1"),
            (2.30, "2.3"),
            (108.5979, "108.6"),
            (67_815.37, "67815"),
            (100_000.0, "100000"),
            (2e6, "2e6"),
            (-1.2345e-7, "-1.23e-7"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(short(number), text);
        }
        for (number, decimals, text) in [
            (0.0, 4, "0.0000"),
            (0.0123, 4, "0.0123"),
            (0.000_123, 4, "1.23e-4"),
            (0.000_123, 6, "0.000123"),
            (-4_675_467_079.114_9, 4, "-4675467079.1149"),
            (1e12, 4, "1e12"),
            (f64::NAN, 4, "NaN"),
        ] {
            assert_eq!(measured(number, decimals), text);
        }
        for (number, text) in [(0.1, "0.1"), (5.0, "5"), (2e-6, "2e-6"), (1e300, "1e300")] {
            assert_eq!(given(number), text);
        }
    }
}
