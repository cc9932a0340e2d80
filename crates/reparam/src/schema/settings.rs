//! Typed reading of settings.

use super::{Chosen, Fallback, SchemaError, SettingSpec, SettingValue, TargetModules, find};

/// Checked settings with every default filled in.
///
/// A reading function returns an error where the list of specs does not have the key with that kind of
/// value, and for a setting that has no default and is not given. Such a setting is read with
/// [`optional`](Self::optional).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    kind: String,
    values: Vec<(String, SettingValue)>,
}

/// A function that returns the value of a setting of one kind.
macro_rules! reader {
    ($(#[$doc:meta])* $name:ident -> $type:ty: $kind:ident($value:ident) => $result:expr, $expected:literal) => {
        $(#[$doc])*
        pub fn $name(&self, key: &str) -> Result<$type, SchemaError> {
            match self.value(key)? {
                SettingValue::$kind($value) => Ok($result),
                _ => Err(self.wrong(key, $expected)),
            }
        }
    };
}

impl Settings {
    /// Checks given settings against a list, and fills in the defaults, in the list's order.
    ///
    /// `kind` is what errors call the owner of the settings.
    ///
    /// # Errors
    ///
    /// Fails when a setting is unknown, of the wrong kind or out of its range, and when one without a
    /// default is missing.
    pub fn new(
        kind: &str,
        specs: &'static [SettingSpec],
        given: &[(String, SettingValue)],
    ) -> Result<Self, SchemaError> {
        if let Some((key, _)) = given.iter().find(|(key, _)| find(specs, key).is_none()) {
            return Err(SchemaError::Unknown {
                kind: kind.to_owned(),
                setting: key.clone(),
                known: specs.iter().map(|spec| spec.key).collect(),
            });
        }
        let mut values = Vec::new();
        for spec in specs {
            // The last one counts, as with overrides.
            let own = given.iter().rfind(|(key, _)| key == spec.key);
            let value = match (own, spec.fallback) {
                (Some((_, value)), _) => Some(spec.kind.accept(spec.key, value)?),
                (None, Fallback::Required(example)) => {
                    return Err(SchemaError::Missing {
                        kind: kind.to_owned(),
                        setting: spec.key.to_owned(),
                        example,
                    });
                }
                (None, _) => spec.default_value(&values),
            };
            values.extend(value.map(|value| (spec.key.to_owned(), value)));
        }
        Ok(Self {
            kind: kind.to_owned(),
            values,
        })
    }

    /// Returns the name of the owner of the settings.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns all values by key, in the order of the specs.
    pub fn into_values(self) -> Vec<(String, SettingValue)> {
        self.values
    }

    /// Iterates over all values by key, in the order of the specs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SettingValue)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Returns whether a setting has a value.
    pub fn has(&self, key: &str) -> bool {
        self.values.iter().any(|(name, _)| name == key)
    }

    /// Reads a setting that may be absent: `settings.optional("lambda_min", Settings::number)?`.
    ///
    /// # Errors
    ///
    /// As the reading function.
    pub fn optional<'a, T>(
        &'a self,
        key: &str,
        read: impl FnOnce(&'a Self, &str) -> Result<T, SchemaError>,
    ) -> Result<Option<T>, SchemaError> {
        if self.has(key) {
            read(self, key).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Returns a value of any kind.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn value(&self, key: &str) -> Result<&SettingValue, SchemaError> {
        let own = self.values.iter().find(|(name, _)| name == key);
        own.map(|(_, value)| value)
            .ok_or_else(|| SchemaError::Missing {
                kind: self.kind.clone(),
                setting: key.to_owned(),
                example: "a value",
            })
    }

    fn wrong(&self, key: &str, expected: &str) -> SchemaError {
        match self.value(key) {
            Ok(value) => SchemaError::Value {
                setting: key.to_owned(),
                expected: expected.to_owned(),
                found: value.to_string(),
            },
            Err(error) => error,
        }
    }

    reader! {
        /// Returns a number.
        ///
        /// # Errors
        ///
        /// Fails when it is none; see [`Settings`].
        number -> f64: Number(number) => *number, "a number"
    }

    reader! {
        /// Returns a whole number.
        ///
        /// # Errors
        ///
        /// Fails when it is none; see [`Settings`].
        count -> u64: Count(count) => *count, "a whole number"
    }

    /// Returns a whole number as a size in memory.
    ///
    /// # Errors
    ///
    /// Fails when it is none, or does not fit; see [`Settings`].
    pub fn size(&self, key: &str) -> Result<usize, SchemaError> {
        usize::try_from(self.count(key)?).map_err(|_| self.wrong(key, "a smaller number"))
    }

    reader! {
        /// Returns a flag.
        ///
        /// # Errors
        ///
        /// Fails when it is none; see [`Settings`].
        flag -> bool: Flag(flag) => *flag, "true or false"
    }

    reader! {
        /// Returns a word, a text or a pattern.
        ///
        /// # Errors
        ///
        /// Fails when it is none; see [`Settings`].
        word -> &str: Word(word) => word, "a word"
    }

    /// Returns a word, a text or a pattern, to keep.
    ///
    /// # Errors
    ///
    /// Fails when it is none; see [`Settings`].
    pub fn text(&self, key: &str) -> Result<String, SchemaError> {
        self.word(key).map(str::to_owned)
    }

    /// Returns what a word stands for, as a table of all words says it.
    ///
    /// # Errors
    ///
    /// Fails when it is no word, or one that the table does not have; see [`Settings`].
    pub fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<T, SchemaError> {
        let word = self.word(key)?;
        match words.iter().find(|(name, _)| *name == word) {
            Some((_, choice)) => Ok(*choice),
            None => Err(self.wrong(key, "one of the words for it")),
        }
    }

    reader! {
        /// Returns numbers.
        ///
        /// # Errors
        ///
        /// Fails when there are none; see [`Settings`].
        numbers -> &[f64]: Numbers(numbers) => numbers, "a list of numbers"
    }

    /// Returns whole numbers.
    ///
    /// # Errors
    ///
    /// Fails when there are none, or one does not fit; see [`Settings`].
    pub fn counts(&self, key: &str) -> Result<Vec<usize>, SchemaError> {
        let SettingValue::Counts(counts) = self.value(key)? else {
            return Err(self.wrong(key, "a list of whole numbers"));
        };
        let counts: Result<_, _> = counts.iter().map(|count| usize::try_from(*count)).collect();
        counts.map_err(|_| self.wrong(key, "a list of smaller numbers"))
    }

    reader! {
        /// Returns texts.
        ///
        /// # Errors
        ///
        /// Fails when there are none; see [`Settings`].
        texts -> &[String]: Texts(texts) => texts, "a list of strings"
    }

    reader! {
        /// Returns texts by name.
        ///
        /// # Errors
        ///
        /// Fails when there are none; see [`Settings`].
        texts_by_name -> &[(String, String)]: TextByName(pairs) => pairs, "a table of name = \"text\""
    }

    reader! {
        /// Returns numbers by name.
        ///
        /// # Errors
        ///
        /// Fails when there are none; see [`Settings`].
        numbers_by_name -> &[(String, f64)]: NumberByName(pairs) => pairs, "a table of name = number"
    }

    reader! {
        /// Returns a choice of modules.
        ///
        /// # Errors
        ///
        /// Fails when it is none; see [`Settings`].
        modules -> &TargetModules: Modules(modules) => modules, "a choice of modules"
    }

    /// Returns whole numbers by pattern; none if they are not given.
    ///
    /// # Errors
    ///
    /// Fails when the value is another one, or a number does not fit.
    pub fn counts_by_pattern(&self, key: &str) -> Result<Vec<(String, usize)>, SchemaError> {
        let pairs = match self.value(key) {
            Ok(SettingValue::CountByPattern(pairs)) => pairs.as_slice(),
            Err(_) => &[],
            Ok(_) => return Err(self.wrong(key, "a table of module pattern = whole number")),
        };
        let sized = |(pattern, count): &(String, u64)| {
            Some((pattern.clone(), usize::try_from(*count).ok()?))
        };
        let pairs: Option<_> = pairs.iter().map(sized).collect();
        pairs.ok_or_else(|| self.wrong(key, "a table of smaller numbers"))
    }

    /// Returns numbers by pattern; none if they are not given.
    ///
    /// # Errors
    ///
    /// Fails when the value is another one.
    pub fn numbers_by_pattern(&self, key: &str) -> Result<Vec<(String, f64)>, SchemaError> {
        match self.value(key) {
            Ok(SettingValue::NumberByPattern(pairs)) => Ok(pairs.clone()),
            Err(_) => Ok(Vec::new()),
            Ok(_) => Err(self.wrong(key, "a table of module pattern = number")),
        }
    }

    /// Returns the settings of a table; `specs` are those of its kind.
    ///
    /// # Errors
    ///
    /// Fails when it is none; see [`Settings`].
    pub fn table(&self, key: &str, specs: &'static [SettingSpec]) -> Result<Self, SchemaError> {
        match self.value(key)? {
            SettingValue::Table(given) => Self::new(key, specs, given),
            _ => Err(self.wrong(key, "a table")),
        }
    }

    reader! {
        /// Returns a table of keys that are another program's.
        ///
        /// # Errors
        ///
        /// Fails when it is none; see [`Settings`].
        keys -> &[(String, SettingValue)]: Table(keys) => keys, "a table"
    }

    reader! {
        /// Returns the kinds of a chain.
        ///
        /// # Errors
        ///
        /// Fails when it is none; see [`Settings`].
        chain -> &[Chosen]: Chain(chain) => chain, "a list of kinds"
    }
}
