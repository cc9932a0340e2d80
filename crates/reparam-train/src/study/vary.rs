//! What a study varies.

use crate::config::Override;

/// A key of the run file and the values that it takes in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vary {
    key: String,
    values: Vec<String>,
}

/// Why a text is not a [`Vary`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {problem}")]
pub struct VaryError {
    text: String,
    problem: &'static str,
}

impl VaryError {
    const OUTPUT: &str = "varies the output, of which every run has its own below the study's";
    const TWICE: &str = "varies a key a second time";

    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self.problem {
            Self::OUTPUT => "leave it out; --output says where the study goes".into(),
            Self::TWICE => "give all values of a key at once, as in optimizer.lambda=0.1,1".into(),
            _ => "write section.key=value,value, as in optimizer.lambda=0.1,1".into(),
        })
    }
}

impl Vary {
    /// Reads `section.key=value,value,...`.
    ///
    /// A comma inside of brackets, braces, parentheses or quotes belongs to the value. Values are read as
    /// `--set` reads them.
    ///
    /// # Errors
    ///
    /// Fails when the key or a value is missing, or a value occurs twice.
    pub fn parse(text: &str) -> Result<Self, VaryError> {
        let failed = |problem| VaryError {
            text: text.to_owned(),
            problem,
        };
        let (key, list) = text.split_once('=').ok_or_else(|| failed("has no `=`"))?;
        let key = key.trim();
        if !key.contains('.') || key.split('.').any(str::is_empty) {
            return Err(failed("does not start with section.key"));
        }
        let values = split(list);
        if values.iter().any(String::is_empty) {
            return Err(failed("has an empty value"));
        }
        let repeated = |(place, value)| values[..place].contains(value);
        if values.iter().enumerate().any(repeated) {
            return Err(failed("has a value twice"));
        }
        Ok(Self {
            key: key.to_owned(),
            values,
        })
    }
}

/// Refuses what would have no effect.
pub(super) fn check(vary: &[Vary]) -> Result<(), VaryError> {
    for (place, Vary { key, values }) in vary.iter().enumerate() {
        let failed = |problem| VaryError {
            text: format!("{key}={}", values.join(",")),
            problem,
        };
        if key == "output" || key.starts_with("output.") {
            return Err(failed(VaryError::OUTPUT));
        }
        if vary[..place].iter().any(|earlier| earlier.key == *key) {
            return Err(failed(VaryError::TWICE));
        }
    }
    Ok(())
}

/// Splits at the commas that are outside of everything.
fn split(list: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut depth = 0_usize;
    let mut quote = None;
    for c in list.chars() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            ('(' | '[' | '{', None) => depth += 1,
            (')' | ']' | '}', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(value) = values.last_mut() {
            value.push(c);
        }
    }
    for value in &mut values {
        *value = value.trim().to_owned();
    }
    values
}

/// One choice of all varied values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variant {
    /// The last parts of the keys with their values, as in `lambda=0.1`.
    pub(super) label: String,
    /// The same without the seed, whose values repeat a setting.
    pub(super) setting: String,
    /// The value of the one key besides the seed, if it is a number.
    pub(super) number: Option<f64>,
    pub(super) overrides: Vec<Override>,
}

/// The key whose values repeat a setting.
const SEED: &str = "train.seed";

/// What the setting of a study is called that varies the seed alone.
const AS_IT_IS: &str = "as the run file";

/// Returns what the one key is called that is varied besides the seed; `None` if there is none, or there are several.
pub(super) fn only_key(vary: &[Vary]) -> Option<&str> {
    let mut others = vary.iter().filter(|other| other.key != SEED);
    match (others.next(), others.next()) {
        (Some(only), None) => Some(shown(&only.key, vary)),
        _ => None,
    }
}

/// Returns every combination of the values, the last key varying fastest.
pub(super) fn combinations(vary: &[Vary]) -> Vec<Variant> {
    let mut variants = vec![Variant {
        label: String::new(),
        setting: String::new(),
        number: None,
        overrides: Vec::new(),
    }];
    let has_one = only_key(vary).is_some();
    for Vary { key, values } in vary {
        let name = shown(key, vary);
        variants = variants
            .iter()
            .flat_map(|variant| {
                values.iter().map(move |value| {
                    let mut overrides = variant.overrides.clone();
                    overrides.push(Override::vary(format!("{key}={value}")));
                    let with = |before: &str| {
                        let comma = if before.is_empty() { "" } else { ", " };
                        format!("{before}{comma}{name}={value}")
                    };
                    let (setting, number) = match key == SEED {
                        true => (variant.setting.clone(), variant.number),
                        false => (
                            with(&variant.setting),
                            value.parse().ok().filter(|_| has_one),
                        ),
                    };
                    Variant {
                        label: with(&variant.label),
                        setting,
                        number,
                        overrides,
                    }
                })
            })
            .collect();
    }
    for variant in variants
        .iter_mut()
        .filter(|variant| variant.setting.is_empty())
    {
        variant.setting = AS_IT_IS.to_owned();
    }
    variants
}

/// Returns the last part of a key, or all of it where another key ends alike.
fn shown<'a>(key: &'a str, vary: &[Vary]) -> &'a str {
    let last = |key: &'a str| key.rsplit('.').next().unwrap_or(key);
    let alike = vary
        .iter()
        .filter(|other| other.key.rsplit('.').next() == Some(last(key)));
    if alike.count() > 1 { key } else { last(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_split_at_the_outer_commas() {
        let vary = Vary::parse("optimizer.lambda = 0.1, 1/sqrt(T) ,1").unwrap();
        assert_eq!(vary.key, "optimizer.lambda");
        assert_eq!(vary.values, ["0.1", "1/sqrt(T)", "1"]);
        let vary = Vary::parse("optimizer.transforms=[{a=1,b=2}],[]").unwrap();
        assert_eq!(vary.values, ["[{a=1,b=2}]", "[]"]);
        let vary = Vary::parse("a.b=\"x,y\",z").unwrap();
        assert_eq!(vary.values, ["\"x,y\"", "z"]);
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in [
            "lambda=1",
            "optimizer.lambda",
            "a.b=",
            "a.b=1,,2",
            "a.b=1,1",
            ".b=1",
            "a.=1",
        ] {
            let error = Vary::parse(text).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("`{text}` ")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        let parse = |texts: &[&str]| -> Vec<Vary> {
            texts
                .iter()
                .map(|text| Vary::parse(text).unwrap())
                .collect()
        };
        assert_eq!(check(&parse(&["a.b=1,2", "a.c=1"])), Ok(()));
        let error = check(&parse(&["a.b=1,2", "a.c=1", "a.b=3"])).unwrap_err();
        assert_eq!(error.to_string(), "`a.b=3` varies a key a second time");
        let error = check(&parse(&["output.dir=x,y"])).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`output.dir=x,y` varies the output")
        );
        assert!(error.hint().unwrap().contains("--output"));
    }

    #[test]
    fn all_combinations_are_made() {
        let vary = [
            Vary::parse("a.b=1,2").unwrap(),
            Vary::parse("c.d=x,y,z").unwrap(),
        ];
        let labels: Vec<String> = combinations(&vary)
            .into_iter()
            .map(|variant| variant.label)
            .collect();
        assert_eq!(
            labels,
            [
                "b=1, d=x", "b=1, d=y", "b=1, d=z", "b=2, d=x", "b=2, d=y", "b=2, d=z"
            ]
        );
    }

    #[test]
    fn a_seed_repeats_a_setting() {
        let parse = |text: &str| Vary::parse(text).unwrap();
        let vary = [parse("train.seed=1,2"), parse("data.few=4,8")];
        let variants = combinations(&vary);
        let of = |variant: &Variant| (variant.setting.clone(), variant.number);
        let settings: Vec<_> = variants.iter().map(of).collect();
        let expected = [("few=4", Some(4.0)), ("few=8", Some(8.0))].map(|(a, b)| (a.to_owned(), b));
        assert_eq!(settings, [&expected[..], &expected[..]].concat());
        assert_eq!(variants[1].label, "seed=1, few=8");
        assert_eq!(only_key(&vary), Some("few"));
        let alone = &combinations(&vary[..1])[0];
        assert_eq!((alone.setting.as_str(), alone.number), (AS_IT_IS, None));
        let more = [&vary[..], &[parse("a.b=1")]].concat();
        assert_eq!(
            (only_key(&more), combinations(&more)[0].number),
            (None, None)
        );
    }

    #[test]
    fn keys_that_end_alike_are_told_apart() {
        let vary = [
            Vary::parse("train.seed=1").unwrap(),
            Vary::parse("data.generate.seed=2").unwrap(),
        ];
        let label = &combinations(&vary)[0].label;
        assert_eq!(label, "train.seed=1, data.generate.seed=2");
    }
}
