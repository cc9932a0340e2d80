//! Where an axis begins and ends, and which of its places are named.
//!
//! Places on a logarithmic axis are decimal logarithms, and the ticks are chosen here: the drawing library would not
//! name anything on a logarithmic axis that spans less than a decade.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// The most ticks that an axis aims for.
const TICKS: usize = 7;
/// The part of the data's width that is added on either side.
const MARGIN: f64 = 0.03;

/// A named place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// Where it is, as [`Axis::place`] gives it.
    pub(crate) place: f64,
    /// What stands there.
    pub(crate) text: String,
}

/// A range with ticks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// The lowest place.
    pub(crate) low: f64,
    /// The highest place.
    pub(crate) high: f64,
    /// The named places in ascending order.
    pub(crate) ticks: Vec<Tick>,
    logarithmic: bool,
}

impl Axis {
    /// An axis for finite values of at most `1e300`; without values from 0 to 1.
    pub(crate) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = padded(extent(values).unwrap_or((0.0, 1.0)));
        let ticks = even_ticks(low, high)
            .into_iter()
            .map(|(place, text)| Tick { place, text })
            .collect();
        Self {
            low,
            high,
            ticks,
            logarithmic: false,
        }
    }

    /// A logarithmic axis for positive values; without values from 0.1 to 1.
    pub(crate) fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let extent = extent(values.map(f64::log10)).unwrap_or((-1.0, 0.0));
        let (low, high) = padded(extent);
        let ticks = if high - low > 2.5 {
            decades(low, high)
        } else {
            let ticks = mantissas(low, high);
            if ticks.len() >= 3 {
                ticks
            } else {
                // Less than a decade: places that are even in the values.
                even_ticks(10f64.powf(low), 10f64.powf(high))
                    .into_iter()
                    .filter(|(value, _)| *value > 0.0)
                    .map(|(value, text)| Tick {
                        place: value.log10(),
                        text,
                    })
                    .collect()
            }
        };
        Self {
            low,
            high,
            ticks,
            logarithmic: true,
        }
    }

    /// The place of a value.
    pub(crate) fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            value.log10()
        } else {
            value
        }
    }

    /// Characters of the longest text.
    pub(crate) fn widest(&self) -> usize {
        let widths = self.ticks.iter().map(|tick| tick.text.chars().count());
        widths.max().unwrap_or(0)
    }
}

/// To the drawing library the values of the axis are its places.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (first, last): (i32, i32)) -> i32 {
        let part = (place - self.low) / (self.high - self.low);
        first + (part * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|tick| tick.place).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.place == *place);
        tick.map_or_else(String::new, |tick| tick.text.clone())
    }
}

fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |extent, value| match extent {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// Widens a range by a margin, and one that is too narrow for its ticks to have different places to one that is not.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    let centre = low / 2.0 + high / 2.0;
    // A width of subnormal numbers cannot be divided either.
    let least = if size < 1e-290 { 1.0 } else { size * 1e-9 };
    let width = if high > low { high - low } else { size / 10.0 };
    let half = width.max(least) / 2.0 * (1.0 + 2.0 * MARGIN);
    (centre - half, centre + half)
}

/// Ticks at multiples of 1, 2 or 5 times a power of ten.
fn even_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let raw = (high - low) / TICKS as f64;
    let power = raw.log10().floor();
    let unit = 10f64.powf(power);
    let multiple = [1.0, 2.0, 5.0].into_iter().find(|m| m * unit >= raw);
    // 10 times the unit is 1 time the next.
    let (multiple, power) = multiple.map_or((1.0, power + 1.0), |multiple| (multiple, power));
    let step = multiple * 10f64.powf(power);
    let (first, last) = ((low / step).ceil(), (high / step).floor());
    let count = (last - first).max(0.0) as usize;
    let values: Vec<f64> = (0..=count)
        .map(|index| (first + index as f64) * step)
        .collect();
    let largest = values
        .iter()
        .fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let plain = largest < 1e6 && power >= -4.0;
    let texts = values.iter().map(|value| match (*value == 0.0, plain) {
        (true, _) => "0".to_owned(),
        (_, true) => format!("{value:.*}", (-power).max(0.0) as usize),
        // As many digits as tell the step.
        (_, false) => {
            let digits = (value.abs().log10().floor() - power).clamp(0.0, 15.0);
            format!("{value:.*e}", digits as usize)
        }
    });
    let texts: Vec<String> = texts.collect();
    values.into_iter().zip(texts).collect()
}

/// Powers of ten, every k-th where there are many.
fn decades(low: f64, high: f64) -> Vec<Tick> {
    let (first, last) = (low.ceil() as i32, high.floor() as i32);
    let most = TICKS as i32;
    // 200 decades seven times are more than there are.
    let every = [1, 2, 5, 10, 20, 50, 100, 200].into_iter();
    let every = every
        .filter(|every| every * most > last - first)
        .min()
        .unwrap_or(200);
    (first..=last)
        .filter(|power| power.rem_euclid(every) == 0)
        .map(|power| Tick {
            place: f64::from(power),
            text: power_text(1, power),
        })
        .collect()
}

/// 1, 2 and 5 times powers of ten.
fn mantissas(low: f64, high: f64) -> Vec<Tick> {
    let powers = low.floor() as i32..=high.floor() as i32;
    powers
        .flat_map(|power| [1u8, 2, 5].map(|mantissa| (mantissa, power)))
        .map(|(mantissa, power)| Tick {
            place: f64::from(power) + f64::from(mantissa).log10(),
            text: power_text(mantissa, power),
        })
        .filter(|tick| (low..=high).contains(&tick.place))
        .collect()
}

/// Writes `mantissa * 10^power`.
fn power_text(mantissa: u8, power: i32) -> String {
    match power {
        0..=4 => format!("{mantissa}{}", "0".repeat(power as usize)),
        -3..=-1 => format!("0.{}{mantissa}", "0".repeat((-power - 1) as usize)),
        _ => format!("{mantissa}e{power}"),
    }
}
