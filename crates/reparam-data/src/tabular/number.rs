//! Numbers as tables have them.

use serde::{Deserialize, Serialize};

/// How a cell says that its value is missing, beside being empty; in any case of the letters.
const MISSING: [&str; 5] = ["na", "n/a", "nan", "null", "?"];

/// What may stand between thousands, beside the point or the comma.
const SPACES: [char; 5] = [' ', '\u{a0}', '\u{202f}', '\'', '\u{2019}'];

/// What a cell says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell {
    Number(f64),
    Missing,
    NotFinite,
    Text,
}

/// How the numbers of a table are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notation {
    /// Decimals behind a point, and nothing between thousands: `-1234.5e3`.
    #[default]
    Plain,
    /// Decimals behind a point, thousands between commas, spaces or apostrophes: `1,234.5`.
    Point,
    /// Decimals behind a comma, thousands between points, spaces or apostrophes: `1.234,5`.
    Comma,
}

impl Notation {
    /// Whether it is the plain one.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::Plain
    }

    /// Reads a cell without the white space around it.
    pub(super) fn read(self, text: &str) -> Cell {
        if text.is_empty() || MISSING.iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Cell::Missing;
        }
        let number = match self {
            Self::Plain => text.parse::<f64>().ok(),
            Self::Point => grouped(text, '.'),
            Self::Comma => grouped(text, ','),
        };
        match number {
            Some(value) if value.is_finite() => Cell::Number(value),
            Some(_) => Cell::NotFinite,
            None => Cell::Text,
        }
    }

    /// Finds the one notation in which all cells are numbers or missing, the plain one first. `None` if there is none;
    /// a cell that can be read in two ways, and how, if nothing says which is meant.
    pub(super) fn of<'a>(
        cells: impl Iterator<Item = &'a str>,
    ) -> Result<Option<Self>, (String, [f64; 2])> {
        let [mut plain, mut point, mut comma] = [true; 3];
        let mut either = None;
        for cell in cells {
            let [is_plain, as_point, as_comma] =
                [Self::Plain, Self::Point, Self::Comma].map(|notation| notation.read(cell));
            plain &= is_plain != Cell::Text;
            point &= as_point != Cell::Text;
            comma &= as_comma != Cell::Text;
            if let (Cell::Number(point), Cell::Number(comma)) = (as_point, as_comma)
                && point != comma
            {
                either.get_or_insert_with(|| (cell.to_owned(), [point, comma]));
            }
        }
        match (plain, point, comma, either) {
            (true, ..) => Ok(Some(Self::Plain)),
            (_, true, true, Some(either)) => Err(either),
            (_, true, _, _) => Ok(Some(Self::Point)),
            (_, _, true, _) => Ok(Some(Self::Comma)),
            _ => Ok(None),
        }
    }
}

/// Reads a number whose thousands may be apart: one to three digits, then groups of three.
fn grouped(text: &str, decimal: char) -> Option<f64> {
    let other = if decimal == '.' { ',' } else { '.' };
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let (sign, mantissa) = match mantissa.strip_prefix(['-', '+']) {
        Some(rest) => (&mantissa[..1], rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once(decimal).unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let separator = whole.chars().find(|c| *c == other || SPACES.contains(c));
    let digits = match separator {
        None => whole.to_owned(),
        Some(separator) => {
            let mut groups = whole.split(separator);
            let first = groups.next()?;
            if !(1..=3).contains(&first.len()) || groups.any(|group| group.len() != 3) {
                return None;
            }
            whole.replace(separator, "")
        }
    };
    if !is_digits(&digits) || !is_digits(fraction) {
        return None;
    }
    format!("{sign}{digits}.{fraction}{exponent}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notation_is_found_where_only_one_fits() {
        let cases: [(&[&str], Notation, f64); 9] = [
            (&["1234.5", "NA", ""], Notation::Plain, 1234.5),
            (&["7,615.4", "2.36"], Notation::Point, 7615.4),
            (&["1,234,567", "12"], Notation::Point, 1_234_567.0),
            (&["-7615,4", "2,36"], Notation::Comma, -7615.4),
            (&["7.615,4", "1.234"], Notation::Comma, 7615.4),
            (&["1,234", "0.5"], Notation::Point, 1234.0),
            (&["1,234", "0,5"], Notation::Comma, 1.234),
            (&["1 234 567", "2"], Notation::Point, 1_234_567.0),
            (&["1'234,5e-1", "1"], Notation::Comma, 123.45),
        ];
        for (cells, notation, first) in cases {
            let found = Notation::of(cells.iter().copied());
            assert_eq!(found, Ok(Some(notation)), "{cells:?}");
            assert_eq!(notation.read(cells[0]), Cell::Number(first));
        }
    }

    #[test]
    fn what_fits_none_or_two_is_not_guessed() {
        for cells in [
            &["1,2.3,4"][..],
            &["a"],
            &["1,234.5", "1.234,5"],
            &["12,34.5"],
            &["1,,234.0"],
            &["$5"],
        ] {
            assert_eq!(Notation::of(cells.iter().copied()), Ok(None), "{cells:?}");
        }
        let either = Notation::of(["1", "1,234", "5,678"].into_iter());
        assert_eq!(either, Err(("1,234".to_owned(), [1234.0, 1.234])));
        // That one of the cells is not plain does not say what the other one is.
        let either = Notation::of(["1.234", "5 000"].into_iter());
        assert_eq!(either, Err(("1.234".to_owned(), [1.234, 1234.0])));
    }

    proptest::proptest! {
        #[test]
        fn a_number_is_the_same_in_every_notation(number in -1e12..1e12f64) {
            let plain = format!("{number:.3}");
            let expected = Notation::Plain.read(&plain);
            let (whole, fraction) = plain.split_once('.').unwrap();
            let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
            let groups: Vec<&str> = (0..digits.len().div_ceil(3))
                .rev()
                .map(|group| &digits[digits.len().saturating_sub(3 * group + 3)..digits.len() - 3 * group])
                .collect();
            for (notation, between, decimal) in
                [(Notation::Point, ",", "."), (Notation::Comma, ".", ","), (Notation::Comma, " ", ",")]
            {
                let text = format!("{sign}{}{decimal}{fraction}", groups.join(between));
                proptest::prop_assert_eq!(notation.read(&text), expected, "{}", text);
            }
        }

        #[test]
        fn any_cell_is_read(text: String) {
            let _ = [Notation::Plain, Notation::Point, Notation::Comma].map(|notation| notation.read(&text));
        }
    }
}
