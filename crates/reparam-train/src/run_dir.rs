//! The directory of a run.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use reparam_formats::atomic::{remove_leftovers, write_file_atomic};
use reparam_formats::{FormatError, file};

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

/// How often a file of events that is gone as soon as it is opened is opened again.
const ATTEMPTS: usize = 100;

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

/// Ends what a process was doing that was killed while it replaced a run: before the new one was described, the old one comes
/// back; else it goes.
fn recover(path: &Path, events: &mut File) -> io::Result<()> {
    let Some(replaced) = Replaced::found(path, &ENTRIES) else {
        return Ok(());
    };
    if path.join(CONFIG).exists() {
        return replaced.discard().map(drop);
    }
    if let Some(old) = replaced.events()
        && events.metadata()?.len() == 0
    {
        events.write_all(&old)?;
    }
    replaced.restore();
    Ok(())
}

/// A run directory that this process alone may write to.
///
/// The lock is the system's, on the file of events: it is gone with the process, however that ends. It is taken before anything
/// else is looked at or written, so of two runs that want one new directory, one has it and the other is refused.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    events: File,
    /// How long the file of events is.
    length: u64,
    /// What this process has made, as long as the directory describes no run.
    made: Option<Made>,
}

/// What is removed again if no run comes of it.
#[derive(Debug, Clone, Copy)]
struct Made {
    /// How many directories: that of the run, and those above it.
    directories: usize,
}

impl RunDir {
    /// Checks that a run may be put into a directory: nothing is there that a run has learned.
    ///
    /// What is left of a run that ended before its first step is in nobody's way.
    pub(crate) fn check_free(path: &Path) -> Result<()> {
        if file::is_there(path)? && !path.is_dir() {
            return Err(TrainError::Output {
                directory: path.to_owned(),
                source: std::io::ErrorKind::NotADirectory.into(),
            });
        }
        let is_there = |entry: &&str| path.join(*entry).exists();
        let results = [ADAPTER, MODEL, CHECKPOINTS];
        let descriptions = [CONFIG, PROVENANCE];
        let is_free = match file::read_text(&path.join(EVENTS)) {
            Ok(events) => !events.lines().any(is_progress) && !results.iter().any(is_there),
            Err(_) => !results.iter().chain(&descriptions).any(is_there),
        };
        match is_free {
            true => Ok(()),
            false => Err(TrainError::OutputTaken {
                directory: path.to_owned(),
            }),
        }
    }

    /// Takes a directory, which is made if there is none; what is in it is as it was.
    ///
    /// # Errors
    ///
    /// [`TrainError::OutputInUse`] while another process has it; [`TrainError::Output`], and those of the file of events.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        if file::is_there(path)? && !path.is_dir() {
            return Err(TrainError::Output {
                directory: path.to_owned(),
                source: std::io::ErrorKind::NotADirectory.into(),
            });
        }
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let directories = path.ancestors().take_while(is_missing).count();
        let events_path = path.join(EVENTS);
        // Whoever made the file may have given it up and removed it before it was locked here.
        for attempt in 1..=ATTEMPTS {
            match fs::create_dir_all(path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => continue,
                Err(source) => {
                    return Err(TrainError::Output {
                        directory: path.to_owned(),
                        source,
                    });
                }
            }
            let opened = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&events_path);
            let mut events = match opened {
                Ok(events) => events,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(FormatError::io("create", &events_path, error).into()),
            };
            match events.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(source)) => {
                    return Err(FormatError::io("lock", &events_path, source).into());
                }
            }
            if !is_at(&events, &events_path) {
                continue;
            }
            recover(path, &mut events)
                .map_err(|source| FormatError::io("write", &events_path, source))?;
            let length = events
                .seek(SeekFrom::End(0))
                .map_err(|source| FormatError::io("read", &events_path, source))?;
            let is_new = length == 0 && !path.join(CONFIG).exists();
            return Ok(Self {
                path: path.to_owned(),
                events,
                length,
                made: is_new.then_some(Made { directories }),
            });
        }
        Err(TrainError::OutputInUse {
            directory: path.to_owned(),
        })
    }

    /// Returns whether the directory holds a run, be it one that has not begun to learn.
    pub(crate) fn holds_run(&self) -> bool {
        self.made.is_none()
    }

    /// Begins a new run in the directory, which has to be [free](Self::check_free).
    pub(crate) fn begin(&mut self, config: &str, provenance: &str) -> Result<()> {
        self.cut_events(0)?;
        self.describe(config, provenance)
    }

    /// Removes what a process that was killed was writing, or removing.
    pub(crate) fn remove_leftovers(&self) -> Result<()> {
        remove_leftovers(&self.path, |name| {
            let is_written = [".json", ".toml", ".svg"]
                .iter()
                .any(|end| name.ends_with(end));
            is_written || [ADAPTER, MODEL].contains(&name)
        })?;
        let checkpoints = self.path.join(CHECKPOINTS);
        Ok(remove_leftovers(&checkpoints, |name| {
            ["step-", "best-"]
                .iter()
                .any(|start| name.starts_with(start))
        })?)
    }

    /// Writes down what the run is made from.
    pub(crate) fn describe(&mut self, config: &str, provenance: &str) -> Result<()> {
        write_file_atomic(&self.path.join(CONFIG), config.as_bytes())?;
        write_file_atomic(&self.path.join(PROVENANCE), provenance.as_bytes())?;
        self.made = None;
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
        Ok(String::from_utf8_lossy(&self.event_bytes()?).into_owned())
    }

    fn event_bytes(&mut self) -> Result<Vec<u8>> {
        let path = self.path.join(EVENTS);
        let mut bytes = Vec::new();
        self.events
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.events.read_to_end(&mut bytes))
            .map_err(|source| FormatError::io("read", &path, source))?;
        Ok(bytes)
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
        let events = self.event_bytes()?;
        let replaced = Replaced::set_aside(&self.path, &ENTRIES, &events);
        let replaced = replaced.map_err(|source| failed(&self.path, source))?;
        let begun = self
            .cut_events(0)
            .and_then(|()| self.describe(config, provenance));
        if let Err(error) = begun {
            replaced.restore();
            // The file of events stays, for it is what is locked. The error to report is the first one.
            let _ = self.cut_events(0);
            if self.events.write_all(&events).is_ok() {
                self.length = events.len() as u64;
            }
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
        if let Err(error) = self.events.write_all(line.as_bytes()) {
            // At a limit or on a full disk a part of the line may be there. The error to report is the first one.
            let _ = self.cut_events(self.length);
            return Err(failed(error).into());
        }
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

impl Drop for RunDir {
    /// Gives up a directory that came to hold no run: what is half made would look like one. Nothing else is removed.
    fn drop(&mut self) {
        let Some(made) = self.made else {
            return;
        };
        // Nobody is left to tell.
        for entry in [CONFIG, PROVENANCE, EVENTS] {
            let _ = fs::remove_file(self.path.join(entry));
        }
        for directory in self.path.ancestors().take(made.directories) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Whether a line of the events says that a run has learned something, or cannot be read.
fn is_progress(line: &str) -> bool {
    match Event::from_json_line(line) {
        Ok(event) => matches!(
            event,
            Event::Step(_) | Event::Saved { .. } | Event::Stopped { .. } | Event::Finished(_)
        ),
        Err(_) => !line.is_empty(),
    }
}

/// Whether an open file is still the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let (open, named) = (file.metadata().map(place), fs::metadata(path).map(place));
        matches!((open, named), (Ok(open), Ok(named)) if open == named)
    }
    #[cfg(not(unix))]
    {
        // A file that is open keeps its name there.
        let _ = file;
        path.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The process is killed while it replaces a run: before the new one is described, and after.
    #[test]
    fn a_replacement_that_was_killed_is_undone_or_done() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let old_events = b"{\"not\": \"of this version\"}\n\xff";
        fs::write(path(CONFIG), "old").unwrap();
        fs::create_dir(path(ADAPTER)).unwrap();
        fs::write(path(ADAPTER).join("weights"), "old").unwrap();
        for are_cut in [false, true] {
            fs::write(path(EVENTS), old_events).unwrap();
            drop(Replaced::set_aside(place.path(), &ENTRIES, old_events).unwrap());
            assert!(!path(CONFIG).exists() && !path(ADAPTER).exists());
            if are_cut {
                fs::write(path(EVENTS), "").unwrap();
            }
            let directory = RunDir::take(place.path()).unwrap();
            assert!(directory.holds_run());
            assert_eq!(directory.events_length(), old_events.len() as u64);
            drop(directory);
            assert_eq!(fs::read(path(EVENTS)).unwrap(), old_events);
            assert_eq!(fs::read(path(CONFIG)).unwrap(), b"old");
            assert_eq!(fs::read(path(ADAPTER).join("weights")).unwrap(), b"old");
        }
        drop(Replaced::set_aside(place.path(), &ENTRIES, old_events).unwrap());
        fs::write(path(CONFIG), "new").unwrap();
        drop(RunDir::take(place.path()).unwrap());
        assert_eq!(fs::read(path(CONFIG)).unwrap(), b"new");
        assert!(!path(ADAPTER).exists());
        assert!(Replaced::found(place.path(), &ENTRIES).is_none());
    }
}
