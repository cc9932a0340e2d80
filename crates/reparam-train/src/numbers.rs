//! Numbers, and cells of tables, as people read them.

/// Writes a number with four decimals, or as a power of ten where those would hide it.
pub(crate) fn readable(x: f64) -> String {
    if x != 0.0 && !(1e-3..1e5).contains(&x.abs()) {
        format!("{x:.3e}")
    } else {
        format!("{x:.4}")
    }
}

/// Writes a number that a user gave as a user would write it.
pub(crate) fn given(x: f64) -> String {
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
            (1e5, "1.000e5"),
            (2.5e-7, "2.500e-7"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "NaN"),
        ];
        for (number, text) in cases {
            assert_eq!(readable(number), text);
        }
        for (number, text) in [(0.1, "0.1"), (5.0, "5"), (2e-6, "2e-6"), (1e300, "1e300")] {
            assert_eq!(given(number), text);
        }
    }
}
