//! A run that takes the place of an earlier one in its directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the earlier run is until the new one has its own files.
const ASIDE: &str = ".replaced.tmp";

/// An earlier run that is set aside.
#[derive(Debug)]
pub(crate) struct Replaced {
    directory: PathBuf,
    aside: PathBuf,
    names: Vec<String>,
}

impl Replaced {
    /// Sets those of the named entries aside that are there; if one of them cannot be, all are where they were.
    pub(crate) fn set_aside(directory: &Path, names: &[&str]) -> io::Result<Self> {
        let aside = directory.join(ASIDE);
        // One that a killed run has left: what was to be removed, is.
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::create_dir(&aside)?;
        let mut replaced = Self {
            directory: directory.to_owned(),
            aside,
            names: Vec::new(),
        };
        for name in names {
            let from = directory.join(name);
            if fs::symlink_metadata(&from).is_err() {
                continue;
            }
            if let Err(error) = fs::rename(&from, replaced.aside.join(name)) {
                replaced.restore();
                return Err(error);
            }
            replaced.names.push((*name).to_owned());
        }
        Ok(replaced)
    }

    /// Puts everything back; what cannot be stays in the folder beside.
    pub(crate) fn restore(self) {
        for name in &self.names {
            let _ = fs::rename(self.aside.join(name), self.directory.join(name));
        }
        let _ = fs::remove_dir(&self.aside);
    }

    /// Removes the earlier run for good, and returns the names of what is gone.
    pub(crate) fn discard(self) -> io::Result<Vec<String>> {
        fs::remove_dir_all(&self.aside)?;
        Ok(self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_comes_back_or_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let there = || {
            let entries = fs::read_dir(place.path()).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        fs::create_dir(place.path().join("adapter")).unwrap();
        fs::write(place.path().join("adapter/weights"), "old").unwrap();
        fs::write(place.path().join("notes.txt"), "mine").unwrap();
        let names = ["adapter", "model"];
        let replaced = Replaced::set_aside(place.path(), &names).unwrap();
        assert_eq!(there(), [ASIDE, "notes.txt"]);
        replaced.restore();
        assert_eq!(there(), ["adapter", "notes.txt"]);
        let weights = fs::read_to_string(place.path().join("adapter/weights"));
        assert_eq!(weights.unwrap(), "old");

        // What a killed run has set aside is in nobody's way.
        fs::create_dir(place.path().join(ASIDE)).unwrap();
        let replaced = Replaced::set_aside(place.path(), &names).unwrap();
        assert_eq!(replaced.discard().unwrap(), ["adapter"]);
        assert_eq!(there(), ["notes.txt"]);
    }
}
