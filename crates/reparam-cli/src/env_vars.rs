//! Every environment variable that the program reads; no other module reads any.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use reparam_formats::hub::HubOptions;

use crate::error::{CliError, Result};

/// An environment variable.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    /// One line for the help.
    pub(crate) help: &'static str,
    /// Whether its value must not be shown.
    pub(crate) is_secret: bool,
}

const fn variable(name: &'static str, help: &'static str) -> Variable {
    Variable {
        name,
        help,
        is_secret: false,
    }
}

/// The address of the hub, for a mirror; `https://huggingface.co` if not set.
pub(crate) const HF_ENDPOINT: Variable = variable("HF_ENDPOINT", "URL of the hub");
/// The access token for gated and private models.
pub(crate) const HF_TOKEN: Variable = Variable {
    name: "HF_TOKEN",
    help: "Access token for the hub",
    is_secret: true,
};
/// With `1`, `true`, `yes` or `on`, only models that are in the cache are used.
pub(crate) const HF_HUB_OFFLINE: Variable =
    variable("HF_HUB_OFFLINE", "Never contact the hub (1, true, yes, on)");
/// The directory of everything from the hub; `~/.cache/huggingface` if not set.
pub(crate) const HF_HOME: Variable = variable("HF_HOME", "Directory of files from the hub");
/// The directory of the models from the hub; `hub` in [`HF_HOME`] if not set.
pub(crate) const HF_HUB_CACHE: Variable =
    variable("HF_HUB_CACHE", "Directory of models from the hub");
/// The instruction set of the kernels, instead of the best one that the machine has.
pub(crate) const REPARAM_ISA: Variable =
    variable("REPARAM_ISA", "Force an instruction set (see doctor)");
/// The number of threads where the run file does not say; all cores if not set.
pub(crate) const REPARAM_THREADS: Variable =
    variable("REPARAM_THREADS", "Number of compute threads");
/// If set to anything but the empty string, nothing is colored (<https://no-color.org>).
pub(crate) const NO_COLOR: Variable = variable("NO_COLOR", "Disable colored output");
/// If set to anything but the empty string, there is no progress bar.
pub(crate) const REPARAM_NO_PROGRESS: Variable =
    variable("REPARAM_NO_PROGRESS", "Disable the progress bar");

/// All of them, in the order of the help.
pub(crate) const ALL: [&Variable; 9] = [
    &HF_ENDPOINT,
    &HF_TOKEN,
    &HF_HUB_OFFLINE,
    &HF_HOME,
    &HF_HUB_CACHE,
    &REPARAM_ISA,
    &REPARAM_THREADS,
    &NO_COLOR,
    &REPARAM_NO_PROGRESS,
];

/// What the environment says about every kind of work.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Threads to compute with where the run file leaves it open; all cores if `None`.
    pub(crate) threads: Option<NonZeroUsize>,
    /// The instruction set that kernels are forced to.
    pub(crate) isa: Option<String>,
    /// Where models come from.
    pub(crate) hub: HubOptions,
    /// What a `~` at the beginning of a path stands for.
    pub(crate) home: Option<PathBuf>,
}

/// The values of the variables at the start of the program.
///
/// A variable that is set to the empty string counts as not set, as is the custom.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    values: BTreeMap<&'static str, OsString>,
    home: Option<PathBuf>,
}

impl Environment {
    /// Reads the process's environment.
    pub(crate) fn read() -> Self {
        let values = ALL
            .iter()
            .filter_map(|variable| Some((variable.name, std::env::var_os(variable.name)?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self {
            values,
            home: std::env::home_dir(),
        }
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn path(&self, variable: &Variable) -> Option<PathBuf> {
        self.values.get(variable.name).map(PathBuf::from)
    }

    /// The value as text; `expected` is for the error if it is not.
    pub(crate) fn text(
        &self,
        variable: &Variable,
        expected: &'static str,
    ) -> Result<Option<String>> {
        self.values
            .get(variable.name)
            .map(|value| match value.to_str() {
                Some(text) => Ok(text.to_owned()),
                None => Err(unusable(variable, expected, value)),
            })
            .transpose()
    }

    /// What commands are told, with defaults that depend on the environment filled in.
    pub(crate) fn settings(&self) -> Result<Settings> {
        const COUNT: &str = "a whole number from 1 to 1024";
        let threads = self
            .text(&REPARAM_THREADS, COUNT)?
            .map(|text| {
                text.parse::<NonZeroUsize>()
                    .ok()
                    .filter(|threads| threads.get() <= 1024)
                    .ok_or_else(|| unusable(&REPARAM_THREADS, COUNT, text.as_ref()))
            })
            .transpose()?;
        let offline = self
            .text(&HF_HUB_OFFLINE, "text")?
            .is_some_and(|text| ["1", "true", "yes", "on"].contains(&&*text.to_lowercase()));
        let home = self.path(&HF_HOME).or_else(|| {
            let home = self.home.as_ref()?;
            Some(home.join(".cache").join("huggingface"))
        });
        // Without a home directory there is no cache to look into; a relative one is the least
        // surprising place to download to.
        let cache = self
            .path(&HF_HUB_CACHE)
            .or_else(|| home.map(|home| home.join("hub")))
            .unwrap_or_else(|| ".cache/huggingface/hub".into());
        let mut hub = HubOptions::new(cache);
        hub.token = self.text(&HF_TOKEN, "a token")?;
        hub.offline = offline;
        if let Some(endpoint) = self.text(&HF_ENDPOINT, "a URL")? {
            hub.endpoint = endpoint;
        }
        Ok(Settings {
            threads,
            isa: self.text(&REPARAM_ISA, "the name of an instruction set")?,
            hub,
            home: self.home.clone(),
        })
    }

    /// The variables that are set with values that may be shown.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&'static str, String)> {
        ALL.iter().filter_map(|variable| {
            let value = self.values.get(variable.name)?;
            let shown = if variable.is_secret {
                "(set, not shown)".to_owned()
            } else {
                value.to_string_lossy().into_owned()
            };
            Some((variable.name, shown))
        })
    }

    /// An environment with the given variables, for tests.
    #[cfg(test)]
    pub(crate) fn of(values: &[(&'static str, &str)]) -> Self {
        Self {
            values: values
                .iter()
                .map(|(name, value)| (*name, OsString::from(value)))
                .collect(),
            home: Some("/home/user".into()),
        }
    }
}

fn unusable(variable: &Variable, expected: &'static str, value: &OsStr) -> CliError {
    let value = if variable.is_secret {
        "...".to_owned()
    } else {
        value.to_string_lossy().into_owned()
    };
    CliError::Variable {
        variable: variable.name,
        expected,
        value,
    }
}

/// The paragraph of the help that lists the variables.
pub(crate) fn help() -> String {
    let rows = ALL.map(|variable| format!("  {:<20} {}\n", variable.name, variable.help));
    format!("Environment variables:\n{}", rows.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_most_specific_variable_says() {
        let cache = |values: &[(&'static str, &str)]| {
            let settings = Environment::of(values).settings().unwrap();
            settings.hub.cache_dir
        };
        let home = ("HF_HOME", "/data/hf");
        let hub = ("HF_HUB_CACHE", "/fast/models");
        assert_eq!(
            cache(&[]),
            PathBuf::from("/home/user/.cache/huggingface/hub")
        );
        assert_eq!(cache(&[home]), PathBuf::from("/data/hf/hub"));
        assert_eq!(cache(&[home, hub]), PathBuf::from("/fast/models"));
    }

    #[test]
    fn offline_takes_the_words_of_the_hub() {
        for (value, offline) in [("1", true), ("TRUE", true), ("on", true), ("0", false)] {
            let environment = Environment::of(&[("HF_HUB_OFFLINE", value)]);
            assert_eq!(environment.settings().unwrap().hub.offline, offline);
        }
    }

    #[test]
    fn threads_must_be_a_number() {
        let settings = Environment::of(&[("REPARAM_THREADS", "3")]).settings();
        assert_eq!(settings.unwrap().threads, NonZeroUsize::new(3));
        for value in ["0", "-1", "many", "1000000"] {
            let error = Environment::of(&[("REPARAM_THREADS", value)]).settings();
            let message = error.unwrap_err().to_string();
            assert!(message.starts_with("REPARAM_THREADS must be"), "{message}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let environment = Environment::of(&[("HF_TOKEN", "hf_secret"), ("NO_COLOR", "1")]);
        let shown: Vec<_> = environment.shown().collect();
        assert_eq!(shown.len(), 2);
        assert!(shown.iter().all(|(_, value)| !value.contains("secret")));
        let debug = format!("{:?}", environment.settings().unwrap());
        assert!(!debug.contains("secret"), "{debug}");
    }
}
