//! A JSON object whose entries are read by key and type, with the file's name in every error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::ConfigError;

/// The largest size that a configuration may name. Products of two stay within 64 bits, and none that is real comes near.
const MOST: usize = 1 << 31;

/// A JSON object and the file it is from.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonObject {
    path: PathBuf,
    /// Where in the file the object is, such as `rope_parameters.`; empty for the whole file.
    prefix: String,
    map: Map<String, Value>,
    asked: Asked,
}

/// The keys that were looked for, of a file and of the objects in it. It says nothing of the file itself.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<BTreeSet<String>>>);

impl Asked {
    fn with<R>(&self, look: impl FnOnce(&mut BTreeSet<String>) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PartialEq for Asked {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl JsonObject {
    /// Parses the text of a file that has to be one JSON object.
    ///
    /// `NaN` and `Infinity`, which Python writes though JSON has no such numbers, are taken as texts: who reads such a key finds
    /// no number, and who does not is not stopped.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidJson`] or [`ConfigError::NotAnObject`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let path = path.to_path_buf();
        match parse_python(text) {
            Ok(Value::Object(map)) => Ok(Self {
                path,
                prefix: String::new(),
                map,
                asked: Asked::default(),
            }),
            Ok(_) => Err(ConfigError::NotAnObject { path }),
            Err(source) => Err(ConfigError::InvalidJson { path, source }),
        }
    }

    /// Takes entries that are to be written to a file.
    pub fn new(path: &Path, map: Map<String, Value>) -> Self {
        Self {
            path: path.to_path_buf(),
            prefix: String::new(),
            map,
            asked: Asked::default(),
        }
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all entries as they are.
    pub fn map(&self) -> &Map<String, Value> {
        &self.map
    }

    /// Returns an entry, with `null` taken as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.ask(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Returns whether the key is there, be it with `null`.
    pub fn contains(&self, key: &str) -> bool {
        self.ask(key);
        self.map.contains_key(key)
    }

    /// Returns the keys that nobody has looked for, which so have no effect.
    pub fn unread(&self) -> Vec<String> {
        self.asked.with(|asked| {
            let keys = self.map.keys().map(|key| format!("{}{key}", self.prefix));
            keys.filter(|key| !asked.contains(key)).collect()
        })
    }

    /// Returns the keys that were looked for, whether they are there or not.
    pub fn asked(&self) -> Vec<String> {
        self.asked.with(|asked| asked.iter().cloned().collect())
    }

    fn ask(&self, key: &str) {
        self.asked
            .with(|asked| asked.insert(format!("{}{key}", self.prefix)));
    }

    /// Returns the error of a key whose value is of another type than `expected`.
    pub fn wrong_type(&self, key: &str, expected: &'static str) -> ConfigError {
        ConfigError::WrongType {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            expected,
            found: short(self.map.get(key).unwrap_or(&Value::Null)),
        }
    }

    /// Returns the error of a value that is of the right type and still not possible.
    pub fn invalid(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::InvalidValue {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            found: short(self.map.get(key).unwrap_or(&Value::Null)),
            reason: reason.into(),
        }
    }

    /// Returns the error of a key that has to be there.
    pub fn missing(&self, key: &str) -> ConfigError {
        ConfigError::MissingKey {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
        }
    }

    /// Reads an entry through `convert`; `null` counts as absent.
    fn read<'a, T, F>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: F,
    ) -> Result<Option<T>, ConfigError>
    where
        F: FnOnce(&'a Value) -> Option<T>,
    {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match convert(value) {
                Some(converted) => Ok(Some(converted)),
                None => Err(self.wrong_type(key, expected)),
            },
        }
    }

    /// Reads a whole number of at least 0.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn usize(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.read(key, "a whole number", |value| {
            usize::try_from(value.as_u64()?).ok()
        })
    }

    /// Reads a whole number of at least 1 and at most 2^31, the size of something.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`], [`ConfigError::InvalidValue`] for 0 and for more.
    pub fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        match self.usize(key)? {
            Some(0) => Err(self.invalid(key, "it has to be at least 1")),
            Some(size) if size > MOST => Err(self.invalid(key, format!("the most is {MOST}"))),
            size => Ok(size),
        }
    }

    /// Reads a whole number of at least 1 that has to be there.
    ///
    /// # Errors
    ///
    /// Those of [`JsonObject::size`], [`ConfigError::MissingKey`].
    pub fn required_size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    /// Reads a number.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn f64(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.read(key, "a number", Value::as_f64)
    }

    /// Reads a list of numbers.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn f64s(&self, key: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.read(key, "a list of numbers", |value| {
            value.as_array()?.iter().map(Value::as_f64).collect()
        })
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// Reads a string.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn str(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        self.read(key, "a string", Value::as_str)
    }

    /// Reads a list of strings.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn strings(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        self.read(key, "a list of strings", |value| {
            value
                .as_array()?
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect()
        })
    }

    /// Reads a nested object.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn object(&self, key: &str) -> Result<Option<Self>, ConfigError> {
        self.read(key, "an object", |value| {
            Some(Self {
                path: self.path.clone(),
                prefix: format!("{}{key}.", self.prefix),
                map: value.as_object()?.clone(),
                asked: self.asked.clone(),
            })
        })
    }

    /// Reads a token id.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn token_id(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        self.read(key, "a token id", |value| {
            u32::try_from(value.as_u64()?).ok()
        })
    }

    /// Reads one token id or a list of them.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WrongType`].
    pub fn token_ids(&self, key: &str) -> Result<Option<Vec<u32>>, ConfigError> {
        self.read(key, "a token id or a list of them", |value| {
            let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
            match value.as_array() {
                Some(list) => list.iter().map(id).collect(),
                None => Some(vec![id(value)?]),
            }
        })
    }
}

/// Parses JSON, also with the words that Python writes for numbers that are none.
fn parse_python(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).or_else(|error| {
        let quoted = quote_words(text);
        // The place of an error is that in the file.
        serde_json::from_str(&quoted).map_err(|_| error)
    })
}

/// Puts quotes around `NaN`, `Infinity` and `-Infinity` outside of strings.
fn quote_words(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 16);
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let mut words = ["NaN", "Infinity", "-Infinity"].iter();
        if !in_string && let Some(word) = words.find(|word| rest.starts_with(**word)) {
            quoted.push_str(&format!("\"{word}\""));
            rest = &rest[word.len()..];
            continue;
        }
        in_string ^= character == '"' && !escaped;
        escaped = in_string && character == '\\' && !escaped;
        quoted.push(character);
        rest = &rest[character.len_utf8()..];
    }
    quoted
}

/// Renders a value for a message, shortened.
fn short(value: &Value) -> String {
    const LIMIT: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= LIMIT {
        return text;
    }
    let shortened: String = text.chars().take(LIMIT).collect();
    format!("{shortened}..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_stop_only_who_reads_them() {
        let text = r#"{"a": NaN, "b": [0.0, -Infinity], "c": "NaN \" Infinity", "d": 2.5}"#;
        let json = JsonObject::parse(Path::new("config.json"), text).unwrap();
        assert_eq!(json.f64("d").unwrap(), Some(2.5));
        assert_eq!(json.str("c").unwrap(), Some("NaN \" Infinity"));
        let error = json.f64("a").unwrap_err();
        assert!(matches!(error, ConfigError::WrongType { found, .. } if found == "\"NaN\""));
        let error = JsonObject::parse(Path::new("config.json"), "{\"a\": NaN,}").unwrap_err();
        assert!(matches!(error, ConfigError::InvalidJson { .. }));
    }
}
