//! What a user may mean by the name of a model.

use std::fs;
use std::path::{Path, PathBuf};

use super::HubError;
use crate::nearest as nearest_name;

/// A model as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spec {
    Directory(PathBuf),
    /// `name` or `org/name`.
    Id(String),
}

impl Spec {
    pub(super) fn parse(spec: &str) -> Result<Self, HubError> {
        let path = Path::new(spec);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_path_buf()));
        }
        let looks_like_path = path.exists()
            || path.is_absolute()
            || spec.starts_with(['.', '~', '/'])
            || spec.ends_with('/')
            || spec.contains('\\')
            || spec.matches('/').count() > 1;
        if looks_like_path {
            return Err(HubError::NoSuchModel {
                spec: spec.to_owned(),
                nearest: nearest(spec),
            });
        }
        if spec.split('/').all(is_id_part) {
            Ok(Self::Id(spec.to_owned()))
        } else {
            Err(HubError::InvalidId {
                spec: spec.to_owned(),
            })
        }
    }
}

/// Returns whether a text can be an organization or a model: the hub's own rule.
pub(super) fn is_id_part(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let ends_well = |c: char| !matches!(c, '.' | '-');
    !part.is_empty()
        && part.len() <= 96
        && part.chars().all(is_plain)
        && part.starts_with(ends_well)
        && part.ends_with(ends_well)
        && !part.contains("..")
        && !part.contains("--")
}

/// Returns whether a text can be a branch, a tag, a commit or a reference such as `refs/pr/1`.
pub(super) fn is_revision(revision: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    revision.split('/').all(|part| {
        !part.is_empty() && part.chars().all(is_plain) && part != "." && !part.contains("..")
    })
}

/// Returns the directory beside the missing one whose name is most similar.
pub(super) fn nearest(spec: &str) -> Option<PathBuf> {
    let path = Path::new(spec);
    let name = path.file_name()?.to_str()?;
    let parent = path.parent()?;
    let listed = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let mut names: Vec<String> = fs::read_dir(listed)
        .ok()?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    // The order of a directory is arbitrary; the answer should not be.
    names.sort();
    nearest_name(name, names.iter().map(String::as_str)).map(|name| parent.join(name))
}
