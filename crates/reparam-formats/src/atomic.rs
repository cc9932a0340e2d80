//! Files and directories that are never seen half written.
//!
//! Both ways work alike: the new content is made under a temporary name beside the target,
//! flushed to the disk, and renamed into place in one step. Whoever looks at the target sees all
//! of the old content or all of the new one. After an error, or after a drop without commit, the
//! temporary name is gone and the target is what it was.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::FormatError;

/// How temporary names end, after a part of so many random letters and digits.
const TEMPORARY: &str = ".tmp";
const RANDOM: usize = 6;
/// What is added to one where a directory is set aside for the one that replaces it.
const ASIDE: &str = ".old";

/// Writes `bytes` to `path`, replacing an older file in one step.
///
/// # Errors
///
/// [`FormatError::Permission`], [`FormatError::DiskFull`] or [`FormatError::Io`]; the target is
/// then untouched.
pub fn write_file_atomic(path: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    write_with(path, |writer| writer.write_all(bytes))
}

/// Writes a file through `fill`, replacing an older file in one step.
pub(crate) fn write_with<F>(path: &Path, fill: F) -> Result<(), FormatError>
where
    F: FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
{
    write_through(path, |writer| {
        fill(writer).map_err(|source| FormatError::io("write", path, source))
    })
}

/// Writes a file through `fill`, which can fail in other ways than writing, replacing an older file in one step.
///
/// # Errors
///
/// Those of `fill` and of [`write_file_atomic`]; the target is then untouched.
pub fn write_through<F, E>(path: &Path, fill: F) -> Result<(), E>
where
    F: FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
    E: From<FormatError>,
{
    let failed = |source| FormatError::io("write", path, source);
    let parent = parent_of(path);
    let mut builder = tempfile::Builder::new();
    let prefix = hidden_prefix(path);
    builder.prefix(&prefix).suffix(TEMPORARY).rand_bytes(RANDOM);
    #[cfg(unix)]
    let permissions = {
        // The default of a temporary file is private to the user; the umask narrows this as it
        // does for any other file.
        use std::os::unix::fs::PermissionsExt;
        fs::Permissions::from_mode(0o666)
    };
    #[cfg(unix)]
    builder.permissions(permissions);
    let temporary = builder.tempfile_in(parent).map_err(failed)?;

    let mut writer = BufWriter::with_capacity(1 << 20, temporary.as_file());
    fill(&mut writer)?;
    writer.flush().map_err(failed)?;
    drop(writer);
    temporary.as_file().sync_all().map_err(failed)?;
    temporary
        .persist(path)
        .map_err(|error| failed(error.error))?;
    Ok(sync_directory(parent).map_err(failed)?)
}

/// Builds a directory under a temporary name and renames it into place.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let target = scratch.path().join("step-000100");
/// use reparam_formats::atomic::AtomicDirectory;
///
/// let directory = AtomicDirectory::create(&target)?;
/// std::fs::write(directory.path().join("state.json"), "{}")?;
/// assert!(!target.exists());
/// directory.commit()?;
/// assert!(target.join("state.json").exists());
/// # Ok(())
/// # }
/// ```
///
/// An older directory at the target is replaced: what the new one has too is gone, and any other
/// entry in it, such as a README that somebody put there, is moved over to the new one.
#[derive(Debug)]
pub struct AtomicDirectory {
    temporary: TempDir,
    target: PathBuf,
}

impl AtomicDirectory {
    /// Starts a directory that [`AtomicDirectory::commit`] will place at `target`.
    ///
    /// Missing parents of `target` are created.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotADirectory`] if something else is at `target`, else those of the file
    /// system.
    pub fn create(target: &Path) -> Result<Self, FormatError> {
        let failed = |source| FormatError::io("create", target, source);
        if target.file_name().is_none() || (target.exists() && !target.is_dir()) {
            return Err(FormatError::NotADirectory {
                path: target.to_path_buf(),
            });
        }
        // A link to a directory keeps being one: what it points to is replaced.
        let target = if target.is_symlink() {
            target.canonicalize().map_err(failed)?
        } else {
            target.to_path_buf()
        };
        let parent = parent_of(&target);
        fs::create_dir_all(parent).map_err(failed)?;
        let temporary = tempfile::Builder::new()
            .prefix(&hidden_prefix(&target))
            .suffix(TEMPORARY)
            .rand_bytes(RANDOM)
            .tempdir_in(parent)
            .map_err(failed)?;
        Ok(Self { temporary, target })
    }

    /// Returns the temporary directory to write into.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Returns where the directory will be after the commit.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Flushes everything to the disk and renames the directory into place.
    ///
    /// # Errors
    ///
    /// Those of the file system; the target then is what it was before, and the temporary
    /// directory is removed.
    pub fn commit(self) -> Result<(), FormatError> {
        let failed = |source| FormatError::io("write", &self.target, source);
        sync_tree(self.temporary.path()).map_err(failed)?;
        if self.target.is_dir() {
            exchange(self.temporary.path(), &self.target).map_err(failed)?;
            // The temporary name now holds the old directory. From here on nothing of the new one
            // can be lost; entries that only the old one has go back to where the user put them.
            if let Err(source) = move_foreign_entries(self.temporary.path(), &self.target) {
                let kept = self.temporary.keep();
                return Err(FormatError::io(
                    "move the older files out of",
                    &kept,
                    source,
                ));
            }
        } else {
            fs::rename(self.temporary.path(), &self.target).map_err(failed)?;
            // The temporary name is free again; nothing is left to remove under it.
            let _ = self.temporary.keep();
            return sync_directory(parent_of(&self.target)).map_err(failed);
        }
        sync_directory(parent_of(&self.target)).map_err(failed)?;
        // Dropping removes what the temporary name holds now: the replaced entries.
        Ok(())
    }
}

/// Removes what a process that was killed has left of files and directories it was writing into `directory`.
///
/// `is_ours` is asked for the name of each target; whoever calls has to be the only one who writes these. A directory that was
/// about to be swapped in two steps, and so has no name of its own, gets it back.
///
/// # Errors
///
/// Those of the file system.
pub fn remove_leftovers(
    directory: &Path,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), FormatError> {
    let failed = |path: &Path, source| FormatError::io("remove", path, source);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(directory, error)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    // What was set aside comes before what was to take its place.
    names.sort_by_key(|name| !name.ends_with(ASIDE));
    for name in names {
        let Some(target) = target_of(&name).filter(|target| is_ours(target)) else {
            continue;
        };
        let (path, target) = (directory.join(&name), directory.join(target));
        let removed = if name.ends_with(ASIDE) && fs::symlink_metadata(&target).is_err() {
            fs::rename(&path, &target)
        } else if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Returns the name of the target of a temporary name: `.NAME.aB3dE6.tmp`, or that with the end of what is set aside.
fn target_of(name: &str) -> Option<&str> {
    let name = name.strip_suffix(ASIDE).unwrap_or(name);
    let rest = name.strip_prefix('.')?.strip_suffix(TEMPORARY)?;
    let (target, random) = rest.rsplit_once('.')?;
    let is_random = random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric());
    is_random.then_some(target)
}

/// Swaps two directories, in one step where the system can.
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(()),
            // Some network file systems cannot exchange; those take the three renames below.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    exchange_by_renames(new, old)
}

/// Swaps two directories by three renames; a failure in between is undone.
fn exchange_by_renames(new: &Path, old: &Path) -> io::Result<()> {
    let mut aside = new.as_os_str().to_owned();
    aside.push(ASIDE);
    let aside = PathBuf::from(aside);
    fs::rename(old, &aside)?;
    if let Err(error) = fs::rename(new, old) {
        fs::rename(&aside, old)?;
        return Err(error);
    }
    fs::rename(&aside, new)
}

/// Moves every entry of `old` that `new` lacks over to `new`.
fn move_foreign_entries(old: &Path, new: &Path) -> io::Result<()> {
    for entry in fs::read_dir(old)? {
        let entry = entry?;
        let target = new.join(entry.file_name());
        if fs::symlink_metadata(&target).is_err() {
            fs::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Flushes every file below a directory, and the directories themselves.
fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(directory)
}

/// Flushes a directory's list of names, which is what makes a rename permanent.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    // Other systems do not open directories as files and flush renames themselves.
    if cfg!(unix) {
        File::open(directory)?.sync_all()
    } else {
        Ok(())
    }
}

/// Returns the directory that contains `path`.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns the beginning of a temporary name: hidden, and telling what it belongs to.
fn hidden_prefix(path: &Path) -> String {
    let name = path
        .file_name()
        .unwrap_or(OsStr::new("file"))
        .to_string_lossy();
    // File names are limited to 255 bytes on the common systems.
    let short: String = name.chars().take(40).collect();
    format!(".{short}.")
}

#[cfg(test)]
mod tests;
