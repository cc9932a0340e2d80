//! A run that takes the place of an earlier one in its directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reparam_formats::file;

/// Where the earlier run is until the new one has its own files.
const ASIDE: &str = ".replaced.tmp";
/// Its events there: their file stays where it is, for it is what is locked.
const EVENTS: &str = "events";

/// An earlier run that is set aside.
#[derive(Debug)]
pub(crate) struct Replaced {
    directory: PathBuf,
    aside: PathBuf,
    names: Vec<String>,
}

impl Replaced {
    /// Sets those of the named entries aside that are there, and a copy of the events; if one of them cannot be, all are where
    /// they were.
    pub(crate) fn set_aside(directory: &Path, names: &[&str], events: &[u8]) -> io::Result<Self> {
        let aside = directory.join(ASIDE);
        fs::create_dir(&aside)?;
        fs::write(aside.join(EVENTS), events)?;
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

    /// Finds what a process that was killed has set aside.
    pub(crate) fn found(directory: &Path, names: &[&str]) -> Option<Self> {
        let aside = directory.join(ASIDE);
        if !aside.is_dir() {
            return None;
        }
        let names = names.iter().map(|name| (*name).to_owned());
        Some(Self {
            names: names
                .filter(|name| fs::symlink_metadata(aside.join(name)).is_ok())
                .collect(),
            directory: directory.to_owned(),
            aside,
        })
    }

    /// Returns the events that were set aside, if they were by the time that the process was killed.
    pub(crate) fn events(&self) -> Option<Vec<u8>> {
        file::read(&self.aside.join(EVENTS)).ok()
    }

    /// Puts everything back, the first of the names last, by which a run is known; what cannot be stays in the folder beside.
    pub(crate) fn restore(self) {
        for name in self.names.iter().rev() {
            let _ = fs::rename(self.aside.join(name), self.directory.join(name));
        }
        let _ = fs::remove_file(self.aside.join(EVENTS));
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
        let set_aside = || Replaced::set_aside(place.path(), &names, b"old events").unwrap();
        let replaced = set_aside();
        assert_eq!(there(), [ASIDE, "notes.txt"]);
        replaced.restore();
        assert_eq!(there(), ["adapter", "notes.txt"]);
        let weights = fs::read_to_string(place.path().join("adapter/weights"));
        assert_eq!(weights.unwrap(), "old");

        // What a killed process has set aside is found.
        drop(set_aside());
        let found = Replaced::found(place.path(), &names).unwrap();
        assert_eq!(found.events().unwrap(), b"old events");
        found.restore();
        assert_eq!(there(), ["adapter", "notes.txt"]);

        assert_eq!(set_aside().discard().unwrap(), ["adapter"]);
        assert_eq!(there(), ["notes.txt"]);
        assert!(Replaced::found(place.path(), &names).is_none());
    }
}
