//! The directory of a run.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use reparam_formats::FormatError;
use reparam_formats::atomic::write_file_atomic;

use crate::event::{Event, Finished, SCHEMA_VERSION, Time};
use crate::replace::Replaced;
use crate::task::ResultKind;
use crate::{Result, TrainError};

/// What a run writes, and so what tells that a directory holds one.
pub(crate) const CONFIG: &str = "config.resolved.toml";
/// The curves of the run.
pub(crate) const PICTURE: &str = "loss.svg";
const EVENTS: &str = "events.jsonl";
pub(crate) const PROVENANCE: &str = "provenance.json";
const ADAPTER: &str = "adapter";
const MODEL: &str = "model";
const CHECKPOINTS: &str = "checkpoints";
/// What goes when a run is replaced.
const ENTRIES: [&str; 8] = [
    CONFIG,
    PROVENANCE,
    PICTURE,
    ADAPTER,
    MODEL,
    CHECKPOINTS,
    "report.json",
    "split.json",
];

/// Returns the directory of a model: that of a run's result, if a directory is that of a run with a whole model.
///
/// # Errors
///
/// [`TrainError::RunOfAdapter`] if it is that of a run with an adapter.
pub(crate) fn model_of(directory: PathBuf) -> Result<PathBuf, TrainError> {
    let inside = directory.join(MODEL);
    let is_model = |directory: &Path| directory.join("config.json").exists();
    if is_model(&directory) {
        return Ok(directory);
    }
    if is_model(&inside) {
        return Ok(inside);
    }
    if directory.join(ADAPTER).join("adapter_config.json").exists() {
        return Err(TrainError::RunOfAdapter { directory });
    }
    Ok(directory)
}

/// A run directory that this process alone may write to.
///
/// The lock is the system's, on the file of events: it is gone with the process, however that ends.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    events: File,
    /// How long the file of events is.
    length: u64,
}

impl RunDir {
    /// Checks that a run may be put into a directory.
    pub(crate) fn check_free(path: &Path) -> Result<()> {
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
    pub(crate) fn create(path: &Path, config: &str, provenance: &str) -> Result<Self> {
        Self::check_free(path)?;
        let was_there = path.exists();
        fs::create_dir_all(path).map_err(|source| TrainError::Output {
            directory: path.to_owned(),
            source,
        })?;
        let events_path = path.join(EVENTS);
        let filled = File::create_new(&events_path)
            .map_err(|source| FormatError::io("create", &events_path, source).into())
            .and_then(|events| Self::locked(path, events))
            .and_then(|mut directory| {
                directory.describe(config, provenance)?;
                Ok(directory)
            });
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

    /// Opens the directory of a run that goes on; `None` if there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let events_path = path.join(EVENTS);
        if !events_path.exists() {
            return Ok(None);
        }
        let events = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&events_path)
            .map_err(|source| FormatError::io("open", &events_path, source))?;
        Self::locked(path, events).map(Some)
    }

    fn locked(path: &Path, mut events: File) -> Result<Self> {
        let events_path = path.join(EVENTS);
        match events.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::OutputInUse {
                    directory: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(FormatError::io("lock", &events_path, source).into());
            }
        }
        let length = events
            .seek(SeekFrom::End(0))
            .map_err(|source| FormatError::io("read", &events_path, source))?;
        Ok(Self {
            path: path.to_owned(),
            events,
            length,
        })
    }

    /// Writes down what the run is made from.
    pub(crate) fn describe(&mut self, config: &str, provenance: &str) -> Result<()> {
        write_file_atomic(&self.path.join(CONFIG), config.as_bytes())?;
        write_file_atomic(&self.path.join(PROVENANCE), provenance.as_bytes())?;
        Ok(())
    }

    /// Returns the last event, if the run is complete.
    ///
    /// # Errors
    ///
    /// [`TrainError::OldRun`] when the events are of another version, so that nothing can be said of them.
    pub(crate) fn finished(&mut self) -> Result<Option<Finished>> {
        let text = self.read_events()?;
        let mut finished = None;
        // What was being written when the run was killed is no event.
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            match Event::version(line) {
                Some(SCHEMA_VERSION) | None => {}
                Some(_) => {
                    return Err(TrainError::OldRun {
                        directory: self.path.clone(),
                    });
                }
            }
            finished = match Event::from_json_line(line) {
                Ok(Event::Finished(event)) => Some(event),
                _ => None,
            };
        }
        Ok(finished)
    }

    /// Returns what is in the file of events; what comes next is appended all the same.
    pub(crate) fn read_events(&mut self) -> Result<String> {
        let path = self.path.join(EVENTS);
        let mut text = Vec::new();
        self.events
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.events.read_to_end(&mut text))
            .map_err(|source| FormatError::io("read", &path, source))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Returns how long the file of events is, in bytes.
    pub(crate) fn events_length(&self) -> u64 {
        self.length
    }

    /// Begins another run in the place of the one that is here; whatever else is in the directory stays.
    ///
    /// Returns the names of what is gone. If the new run cannot be described, the old one is what it was.
    pub(crate) fn replace(&mut self, config: &str, provenance: &str) -> Result<Vec<String>> {
        let failed = |directory: &Path, source| TrainError::Output {
            directory: directory.to_owned(),
            source,
        };
        let events = self.read_events()?;
        let replaced = Replaced::set_aside(&self.path, &ENTRIES);
        let replaced = replaced.map_err(|source| failed(&self.path, source))?;
        let begun = self
            .cut_events(0)
            .and_then(|()| self.describe(config, provenance));
        if let Err(error) = begun {
            replaced.restore();
            // The file of events stays, for it is what is locked. The error to report is the first one.
            let _ = self.cut_events(0);
            let _ = self.events.write_all(events.as_bytes());
            return Err(error);
        }
        let gone = replaced.discard();
        gone.map_err(|source| failed(&self.path, source))
    }

    /// Cuts off the events behind a place.
    pub(crate) fn cut_events(&mut self, length: u64) -> Result<()> {
        let path = self.path.join(EVENTS);
        let failed = |source| FormatError::io("write", &path, source);
        self.events.set_len(length).map_err(failed)?;
        self.events.seek(SeekFrom::End(0)).map_err(failed)?;
        self.length = length;
        Ok(())
    }

    /// Appends an event; the line is with the system before this returns.
    pub(crate) fn append(&mut self, event: &Event, time: Time) -> Result<()> {
        let path = self.path.join(EVENTS);
        let failed = |source| FormatError::io("write", &path, source);
        let mut line = event
            .to_json_line(time)
            .map_err(|error| failed(error.into()))?;
        line.push('\n');
        // One call, so that a line is never half there.
        self.events.write_all(line.as_bytes()).map_err(failed)?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Puts the events on the disk: a checkpoint must not be newer than what it says of them.
    pub(crate) fn sync_events(&self) -> Result<()> {
        let path = self.path.join(EVENTS);
        let synced = self.events.sync_data();
        Ok(synced.map_err(|source| FormatError::io("write", &path, source))?)
    }

    /// Returns the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where the result of the run goes.
    pub(crate) fn result(&self, kind: ResultKind) -> PathBuf {
        self.path.join(match kind {
            ResultKind::Adapter => ADAPTER,
            ResultKind::Model => MODEL,
        })
    }

    /// Returns where the checkpoint of a step goes.
    pub(crate) fn checkpoint(&self, step: u64) -> PathBuf {
        self.path.join(CHECKPOINTS).join(format!("step-{step:06}"))
    }

    /// Returns where the best model goes that was measured after a step.
    pub(crate) fn best(&self, step: u64) -> PathBuf {
        self.path.join(CHECKPOINTS).join(format!("best-{step:06}"))
    }

    /// Returns the checkpoints that there are, the newest first.
    pub(crate) fn checkpoints(&self) -> Vec<PathBuf> {
        self.steps("step-")
            .into_iter()
            .map(|(_, path)| path)
            .collect()
    }

    /// Returns the best models that there are, with their steps.
    pub(crate) fn bests(&self) -> Vec<(u64, PathBuf)> {
        self.steps("best-")
    }

    /// Returns what is called so with a step behind it, the newest first.
    fn steps(&self, prefix: &str) -> Vec<(u64, PathBuf)> {
        let step = |path: &Path| -> Option<u64> {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix(prefix)?.parse().ok()
        };
        let entries = fs::read_dir(self.path.join(CHECKPOINTS)).into_iter();
        let paths = entries.flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<(u64, PathBuf)> = paths
            .filter_map(|path| Some((step(&path)?, path)))
            .collect();
        found.sort();
        found.reverse();
        found
    }

    /// Writes a file of the run.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        write_file_atomic(&path, bytes)?;
        Ok(path)
    }
}
