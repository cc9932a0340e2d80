//! Which files are meant by paths: files, directories and patterns.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use glob::MatchOptions;
use reparam_formats::nearest;
use walkdir::WalkDir;

use super::Format;
use super::input::expanded_name;
use crate::error::{DataError, Result};

#[cfg(test)]
mod tests;

/// How many names an error lists.
const LISTED: usize = 10;

/// How patterns are matched: `*` finds no hidden file and nothing in a directory below.
const PATTERN: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The files that paths stand for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The files, in the order of the paths; those of a directory or a pattern sorted.
    pub(crate) files: Vec<PathBuf>,
    /// Of each file which of the paths stands for it.
    pub(crate) paths: Vec<usize>,
    /// What is there too in directories and among the matches of patterns, and is no file of data by its name.
    pub(crate) left_out: Vec<PathBuf>,
}

impl Files {
    /// How many bytes they have together; of what cannot be read none.
    pub(crate) fn bytes(&self) -> u64 {
        self.sizes(|_| 1)
    }

    /// How many bytes of text they may have together, where a byte that is compressed is so many.
    pub(crate) fn expanded_bytes(&self, expansion: u64) -> u64 {
        let is_small = |path: &Path| {
            expanded_name(path) != *path || Format::of_name(path) == Some(Format::Parquet)
        };
        self.sizes(|path| if is_small(path) { expansion } else { 1 })
    }

    fn sizes(&self, times: impl Fn(&Path) -> u64) -> u64 {
        let sizes = self.files.iter().map(|path| {
            let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
            length.saturating_mul(times(path))
        });
        sizes.fold(0, u64::saturating_add)
    }
}

/// Finds the files that `paths` stand for: a file stands for itself, a directory for all files in it and below, a pattern
/// for what it matches (`*`, `?`, `[..]`, and `**` for any directories). Hidden files are only found by their whole names,
/// and a file that was found before is not found again by a directory or a pattern.
///
/// `is_data` says of a name whether such a file can be read.
pub(crate) fn find(paths: &[PathBuf], is_data: impl Fn(&Path) -> bool) -> Result<Files> {
    if paths.is_empty() {
        return Err(DataError::NoPaths);
    }
    let mut found = Files::default();
    let mut known = HashSet::new();
    for (number, path) in paths.iter().enumerate() {
        let candidates = if path.is_dir() {
            below(path)?
        } else if !matches!(path.try_exists(), Ok(false)) {
            // Whatever else is wrong with it shows where it is read.
            known.insert(key(path));
            found.files.push(path.clone());
            found.paths.push(number);
            continue;
        } else if is_pattern(path) {
            matches(path)?
        } else {
            return Err(not_found(path));
        };
        let (files, others): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|path| is_data(path));
        if files.is_empty() {
            let others = others.iter().take(LISTED);
            return Err(DataError::NoFiles {
                path: path.clone(),
                is_directory: path.is_dir(),
                others: others.map(|path| path.display().to_string()).collect(),
            });
        }
        for file in files {
            if known.insert(key(&file)) {
                found.files.push(file);
                found.paths.push(number);
            }
        }
        found.left_out.extend(others);
    }
    Ok(found)
}

/// What is the same for `a.txt` and `./a.txt`.
fn key(path: &Path) -> PathBuf {
    let parts = path.components();
    parts.filter(|part| *part != Component::CurDir).collect()
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// The files in a directory and below, sorted.
fn below(directory: &Path) -> Result<Vec<PathBuf>> {
    let walk = WalkDir::new(directory)
        .follow_links(true)
        .sort_by_file_name();
    let is_hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
    let walk = walk
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name()));
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|error| DataError::Unreadable {
            path: error.path().unwrap_or(directory).to_owned(),
            source: error.into(),
        })?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

/// The files that a pattern matches, sorted.
fn matches(pattern: &Path) -> Result<Vec<PathBuf>> {
    let text = pattern.to_string_lossy();
    let wrong = |error: glob::PatternError| DataError::Pattern {
        pattern: text.clone().into_owned(),
        message: error.msg.to_owned(),
    };
    let mut files = Vec::new();
    for path in glob::glob_with(&text, PATTERN).map_err(wrong)? {
        let path = path.map_err(|error| DataError::Unreadable {
            path: error.path().to_owned(),
            source: error.into(),
        })?;
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The error for a file that does not exist.
pub(super) fn not_found(path: &Path) -> DataError {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("."),
    };
    // The outermost missing directory is the one that was mistyped.
    let missing_directory = parent
        .ancestors()
        .filter(|ancestor| !ancestor.as_os_str().is_empty());
    let missing_directory = missing_directory
        .filter(|ancestor| !ancestor.exists())
        .last();
    let mut siblings: Vec<String> = fs::read_dir(parent)
        .map(|entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            names.filter_map(|name| name.into_string().ok()).collect()
        })
        .unwrap_or_default();
    // The order of a directory is arbitrary; the answer should not be.
    siblings.sort();
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    DataError::NotFound {
        path: path.to_owned(),
        nearest: nearest(&name, siblings.iter().map(String::as_str)).map(str::to_owned),
        missing_directory: missing_directory.map(Path::to_owned),
    }
}

/// Whether a path that does not exist looks like the id of a data set on a hub: `owner/name`, or a name without extension.
pub(crate) fn looks_like_id(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let is_name = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.starts_with('.') && part.chars().all(known)
    };
    parts.len() == 2 && parts.iter().all(|part| is_name(part)) && path.extension().is_none()
}
