//! Random values, for tests.

use super::{Chosen, Range, SettingKind, SettingSpec, SettingValue, TargetModules};

/// Names with what a writer has to escape: quotes, dots, spaces, controls, other scripts.
const NAMES: [&str; 6] = [
    "q_proj",
    "a.b",
    "x \"y\" 'z'",
    "#=\\",
    "\u{e9}\u{1f600}",
    "tab\tand\nline",
];

/// Patterns for whole names.
const PATTERNS: [&str; 4] = [
    "q_proj",
    r"layers\.[0-9]{1,2}\.(q|v)_proj",
    ".*proj",
    "h\\.1\\..*",
];

/// Returns a source of draws, `draw(n)` below `n`, which repeats itself by its seed.
pub fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        // The finalizer of SplitMix64 over a counter.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

impl SettingKind {
    /// Returns a random valid value.
    ///
    /// `draw(n)` returns a number below `n`, as [`draws`] does. A chain is an empty one, since this module knows no kinds.
    pub fn sample(&self, draw: &mut dyn FnMut(u64) -> u64) -> SettingValue {
        match self {
            Self::Number(range) => SettingValue::Number(number(*range, draw)),
            Self::WordOrNumber(words, range) => {
                if draw(2) == 0 {
                    SettingValue::Word(pick(words, draw).to_owned())
                } else {
                    SettingValue::Number(number(*range, draw))
                }
            }
            Self::Count { least, most } => SettingValue::Count(whole(*least, *most, draw)),
            Self::Flag => SettingValue::Flag(draw(2) == 1),
            Self::Word(words) => SettingValue::Word(pick(words, draw).to_owned()),
            Self::Text => SettingValue::Word(pick(&NAMES, draw).to_owned()),
            Self::Pattern => SettingValue::Word(pick(&PATTERNS, draw).to_owned()),
            Self::Numbers(range) => {
                SettingValue::Numbers((0..=draw(3)).map(|_| number(*range, draw)).collect())
            }
            Self::Counts { least, most, .. } => {
                SettingValue::Counts((0..=draw(3)).map(|_| whole(*least, *most, draw)).collect())
            }
            Self::Texts => SettingValue::Texts(names(draw)),
            Self::TextByName => {
                let names = NAMES.iter().rev().take(1 + draw(2) as usize);
                let pairs = names.map(|name| ((*name).to_owned(), pick(&NAMES, draw).to_owned()));
                SettingValue::TextByName(pairs.collect())
            }
            Self::Modules { all_linear } => SettingValue::Modules(match draw(3) {
                0 if *all_linear => TargetModules::AllLinear,
                1 => TargetModules::Pattern(pick(&PATTERNS, draw).to_owned()),
                _ => TargetModules::Names(names(draw)),
            }),
            Self::CountByPattern { least, most } => {
                let count = draw(4) as usize;
                let patterns = PATTERNS.iter().take(count);
                let pairs = patterns.map(|one| ((*one).to_owned(), whole(*least, *most, draw)));
                SettingValue::CountByPattern(pairs.collect())
            }
            Self::NumberByPattern(range) => {
                let count = draw(4) as usize;
                let patterns = PATTERNS.iter().rev().take(count);
                let pairs = patterns.map(|one| ((*one).to_owned(), number(*range, draw)));
                SettingValue::NumberByPattern(pairs.collect())
            }
            Self::WordOrNumberByName(words, range) => {
                let count = draw(3) as usize;
                let names = NAMES.iter().rev().take(count);
                let pairs: Vec<(String, f64)> = names
                    .map(|name| ((*name).to_owned(), number(*range, draw)))
                    .collect();
                match pairs.is_empty() {
                    true => SettingValue::Word(pick(words, draw).to_owned()),
                    false => SettingValue::NumberByName(pairs),
                }
            }
            Self::Table(specs) => SettingValue::Table(Chosen::sample("", specs, draw).settings),
            Self::Keys => {
                let keys = NAMES.iter().take(1 + draw(3) as usize);
                let pairs = keys.map(|name| {
                    let value = match draw(4) {
                        0 => SettingValue::Flag(draw(2) == 1),
                        1 => SettingValue::Count(whole(0, 1 << 20, draw)),
                        2 => SettingValue::Number(number(Range::Finite, draw)),
                        _ => SettingValue::Texts(names(draw)),
                    };
                    ((*name).to_owned(), value)
                });
                SettingValue::Table(pairs.collect())
            }
            Self::Chain => SettingValue::Chain(Vec::new()),
        }
    }
}

impl Chosen {
    /// Returns a kind with random valid settings; those that may be left out sometimes are, and the rest
    /// have their defaults filled in.
    ///
    /// Rules between two settings are not looked at.
    pub fn sample(
        kind: impl Into<String>,
        specs: &[SettingSpec],
        draw: &mut dyn FnMut(u64) -> u64,
    ) -> Self {
        let mut chosen = Self::with_defaults(kind, specs);
        let defaults = std::mem::take(&mut chosen.settings);
        for spec in specs {
            let default = defaults.iter().find(|(key, _)| key == spec.key);
            let is_required = matches!(spec.fallback, super::Fallback::Required(_));
            let value = if is_required || draw(2) == 1 {
                Some(spec.kind.sample(draw))
            } else {
                default.map(|(_, value)| value.clone())
            };
            chosen
                .settings
                .extend(value.map(|value| (spec.key.to_owned(), value)));
        }
        chosen
    }
}

fn pick<'a>(words: &[&'a str], draw: &mut dyn FnMut(u64) -> u64) -> &'a str {
    words[draw(words.len() as u64) as usize]
}

fn names(draw: &mut dyn FnMut(u64) -> u64) -> Vec<String> {
    (0..=draw(3))
        .map(|_| pick(&NAMES, draw).to_owned())
        .collect()
}

/// Small numbers mostly, and now and then the limits.
fn whole(least: u64, most: u64, draw: &mut dyn FnMut(u64) -> u64) -> u64 {
    match draw(8) {
        0 => least,
        1 => most,
        _ => least + draw((most - least).clamp(1, 1000)),
    }
}

/// Numbers of all sizes that the range has.
fn number(range: Range, draw: &mut dyn FnMut(u64) -> u64) -> f64 {
    // 53 random bits make a number in [0, 1); one more than the bits, in (0, 1).
    const BITS: u64 = 1 << 53;
    let unit = draw(BITS) as f64 / BITS as f64;
    let inside = (draw(BITS - 1) + 1) as f64 / BITS as f64;
    let scale = [1e-12, 1e-3, 1.0, 1e6][draw(4) as usize];
    match range {
        Range::Finite => (unit - 0.5) * scale,
        Range::Positive | Range::Factor => inside * scale,
        Range::NonNegative => [0.0, unit * scale][draw(2) as usize],
        Range::Negative => -inside * scale,
        Range::BelowOne => [0.0, unit][draw(2) as usize],
        Range::InsideUnit => inside,
        Range::UpToOne => [1.0, inside][draw(2) as usize],
        Range::Unit => [0.0, 1.0, unit][draw(3) as usize],
    }
}
