//! The directory of a run.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use reparam_formats::FormatError;
use reparam_formats::atomic::write_file_atomic;

use crate::TrainError;
use crate::event::Event;

/// What a run writes, and so what tells that a directory holds one.
const CONFIG: &str = "config.resolved.toml";
const EVENTS: &str = "events.jsonl";
const PROVENANCE: &str = "provenance.json";
const ADAPTER: &str = "adapter";
const MODEL: &str = "model";
const CHECKPOINTS: &str = "checkpoints";

/// An open run directory.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    events: File,
}

impl RunDir {
    /// Checks that a run may be put into a directory.
    pub(crate) fn check_free(path: &Path) -> Result<(), TrainError> {
        if path.exists() && !path.is_dir() {
            return Err(TrainError::Output {
                directory: path.to_owned(),
                source: std::io::ErrorKind::NotADirectory.into(),
            });
        }
        let entries = [CONFIG, EVENTS, PROVENANCE, ADAPTER, MODEL, CHECKPOINTS];
        if entries.iter().any(|entry| path.join(entry).exists()) {
            return Err(TrainError::OutputTaken {
                directory: path.to_owned(),
            });
        }
        Ok(())
    }

    /// Creates the directory with the resolved configuration and the provenance.
    pub(crate) fn create(path: &Path, config: &str, provenance: &str) -> Result<Self, TrainError> {
        Self::check_free(path)?;
        let was_there = path.exists();
        fs::create_dir_all(path).map_err(|source| TrainError::Output {
            directory: path.to_owned(),
            source,
        })?;
        let filled = Self::fill(path, config, provenance);
        if filled.is_err() {
            // What is half made would look like a run and be in the way of the next attempt. The
            // error to report is the first one.
            for entry in [CONFIG, PROVENANCE, EVENTS] {
                let _ = fs::remove_file(path.join(entry));
            }
            if !was_there {
                let _ = fs::remove_dir(path);
            }
        }
        filled
    }

    fn fill(path: &Path, config: &str, provenance: &str) -> Result<Self, TrainError> {
        write_file_atomic(&path.join(CONFIG), config.as_bytes())?;
        write_file_atomic(&path.join(PROVENANCE), provenance.as_bytes())?;
        let events_path = path.join(EVENTS);
        let events = File::create_new(&events_path)
            .map_err(|source| FormatError::io("create", &events_path, source))?;
        Ok(Self {
            path: path.to_owned(),
            events,
        })
    }

    /// Appends an event; the line is with the system before this returns.
    pub(crate) fn append(&mut self, event: &Event) -> Result<(), TrainError> {
        let path = self.path.join(EVENTS);
        let failed = |source| FormatError::io("write", &path, source);
        let mut line = event.to_json_line().map_err(|error| failed(error.into()))?;
        line.push('\n');
        // One call, so that a line is never half there.
        self.events.write_all(line.as_bytes()).map_err(failed)?;
        Ok(())
    }

    /// Returns where the adapter of the run's end goes.
    pub(crate) fn adapter(&self) -> PathBuf {
        self.path.join(ADAPTER)
    }

    /// Returns where the model of the run's end goes.
    pub(crate) fn model(&self) -> PathBuf {
        self.path.join(MODEL)
    }

    /// Returns where the result of a step goes.
    pub(crate) fn checkpoint(&self, step: u64) -> PathBuf {
        self.path.join(CHECKPOINTS).join(format!("step-{step:06}"))
    }

    /// Writes a file of the run.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, TrainError> {
        let path = self.path.join(name);
        write_file_atomic(&path, bytes)?;
        Ok(path)
    }
}
