//! Finds a data set: the Parquet files of its training split, in the cache or brought there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::cache::Folder;
use super::client::Client;
use super::names::{Commit, FileName};
use super::{HubError, HubOptions, Progress, Repository, spec};

#[cfg(test)]
mod tests;

/// How the address of a data set begins, as the file system of `huggingface_hub` writes it.
const ADDRESS: &str = "hf://datasets/";

/// Where the hub keeps Parquet that it has made of other files, and what addresses call it.
const CONVERTED: &str = "refs/convert/parquet";
const CONVERTED_NAME: &str = "~parquet";

/// The words that files and folders of the splits have in their names.
const SPLITS: [(&str, &[&str]); 3] = [
    (TRAIN, &[TRAIN, "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];
const TRAIN: &str = "train";

/// Returns whether a path is meant as the address of a data set.
pub fn is_dataset(path: &str) -> bool {
    path.starts_with("hf://")
}

/// A data set as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    id: String,
    revision: Option<String>,
    /// A folder or a file of the repository.
    within: Option<String>,
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(ADDRESS)?.trim_end_matches('/');
        let (owner, rest) = rest.split_once('/')?;
        let (name, within) = match rest.split_once('/') {
            Some((name, within)) => (name, Some(FileName::parse(within)?.as_str().to_owned())),
            None => (rest, None),
        };
        let (name, revision) = match name.split_once('@') {
            Some((name, CONVERTED_NAME)) => (name, Some(CONVERTED.to_owned())),
            Some((name, revision)) if spec::is_revision(revision) => {
                (name, Some(revision.to_owned()))
            }
            Some(_) => return None,
            None => (name, None),
        };
        let is_id = spec::is_id_part(owner) && spec::is_id_part(name);
        is_id.then(|| Self {
            id: format!("{owner}/{name}"),
            revision,
            within,
        })
    }
}

/// Returns the Parquet files of the training split of `hf://datasets/OWNER/NAME`, sorted by their names.
///
/// They are those of the repository; where it has none, those that the hub has made of its files. `@REVISION` behind the name
/// chooses a branch, a tag or a commit, and a folder or a file behind that what is read of it: one configuration, for example.
/// What the cache has whole is used without a request. [`HubOptions::revision`] is that of a model and not looked at.
///
/// # Errors
///
/// [`HubError::InvalidDataset`], [`HubError::NoParquet`], [`HubError::SeveralConfigs`]; [`HubError::NotCached`] when offline,
/// and those of the download, after which the next one goes on.
pub fn resolve_dataset(
    address: &str,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<PathBuf>, HubError> {
    let parsed = Address::parse(address);
    let asked = parsed.ok_or_else(|| HubError::InvalidDataset {
        spec: address.to_owned(),
    })?;
    let revisions = match &asked.revision {
        Some(revision) => vec![revision.as_str()],
        None => vec!["main", CONVERTED],
    };
    let folder = Folder::new(&options.cache_dir, Repository::Dataset, &asked.id);
    let mut last = None;
    for revision in revisions {
        let of_revision = HubOptions {
            revision: revision.to_owned(),
            ..options.clone()
        };
        let within = asked.within.as_deref();
        match files_of(&asked.id, within, &folder, &of_revision, progress) {
            // A repository may have been converted or not.
            Err(error @ HubError::NoParquet { .. }) => last = Some(error),
            Err(HubError::NotInRepository {
                what: "revision", ..
            }) if last.is_some() => {}
            result => return result,
        }
    }
    Err(last.unwrap_or(HubError::NoParquet { id: asked.id }))
}

/// Finds or brings the files of one revision.
fn files_of(
    id: &str,
    within: Option<&str>,
    folder: &Folder,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<PathBuf>, HubError> {
    let known = folder.commit(&options.revision);
    let known = known.and_then(|commit| Some((folder.listing(&commit)?, commit)));
    let missing = |files: &[String], commit: &Commit| -> bool {
        let is_there = |file: &String| {
            let file = FileName::parse(file);
            file.is_some_and(|file| folder.pointer(commit, file).is_file())
        };
        !files.iter().all(is_there)
    };
    if let Some((listing, commit)) = known {
        let files = training_files(id, &listing, within)?;
        if !missing(&files, &commit) {
            return Ok(paths(folder, &commit, &files));
        }
    }
    if options.offline {
        return Err(HubError::NotCached {
            id: id.to_owned(),
            revision: options.revision.clone(),
            cache: options.cache_dir.clone(),
            nearest: None,
        });
    }
    let client = Client::new(Repository::Dataset, id, options)?;
    let info = client.info()?;
    folder.list(&info.commit, &info.files)?;
    let files = training_files(id, &info.files, within);
    // What a revision does not have is known as well, so that it is not asked for offline.
    if !matches!(files, Err(HubError::NoParquet { .. })) {
        for file in files.iter().flatten() {
            client.fetch(&info.commit, file, progress)?;
        }
    }
    folder.note(&options.revision, &info.commit)?;
    Ok(paths(folder, &info.commit, &files?))
}

fn paths(folder: &Folder, commit: &Commit, files: &[String]) -> Vec<PathBuf> {
    let names = files.iter().filter_map(|file| FileName::parse(file));
    names.map(|file| folder.pointer(commit, file)).collect()
}

/// Chooses the files of the training split among the names of all files.
///
/// The rule is that of the `datasets` library: a split's word in a folder or a name, between other characters than letters, says
/// which split a file is of; where no file says one, all are for training. Other folders are configurations, of which one has to
/// be chosen. Files that hold only the beginning of a split (`partial-train`) are left alone.
fn training_files(id: &str, all: &[String], within: Option<&str>) -> Result<Vec<String>, HubError> {
    let is_within = |file: &str| match within {
        None => true,
        Some(within) => {
            let rest = file.strip_prefix(within);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    };
    let is_parquet = |file: &&String| {
        file.ends_with(".parquet")
            && FileName::parse(file).is_some()
            && !file.split('/').any(|part| part.starts_with("partial-"))
    };
    let files = all.iter().filter(is_parquet);
    let mut files: Vec<&String> = files.filter(|file| is_within(file)).collect();
    files.sort();
    let of_train = |file: &&String| split_of(file) == Some(TRAIN);
    if files.iter().any(|file| split_of(file).is_some())
        && within != files.first().map(|file| file.as_str())
    {
        files.retain(of_train);
    }
    let configs: BTreeSet<String> = files.iter().map(|file| config_of(file, within)).collect();
    if configs.len() > 1 {
        return Err(HubError::SeveralConfigs {
            id: id.to_owned(),
            configs: configs.into_iter().collect(),
        });
    }
    if files.is_empty() {
        return Err(HubError::NoParquet { id: id.to_owned() });
    }
    Ok(files.into_iter().cloned().collect())
}

/// The split that the name of a file says, the last word of it that does.
fn split_of(file: &str) -> Option<&'static str> {
    let stem = file.strip_suffix(".parquet").unwrap_or(file);
    let mut words = stem.split(|c: char| !c.is_ascii_alphabetic());
    words
        .rfind(|word| split_word(word).is_some())
        .and_then(split_word)
}

fn split_word(word: &str) -> Option<&'static str> {
    let mut splits = SPLITS.iter();
    splits
        .find(|(_, words)| words.contains(&word))
        .map(|(split, _)| *split)
}

/// The folders of a file that say neither a split nor nothing, behind what was asked for.
fn config_of(file: &str, within: Option<&str>) -> String {
    let rest = within.and_then(|within| file.strip_prefix(within));
    let rest = rest.unwrap_or(file).trim_start_matches('/');
    let folders = rest.rsplit_once('/').map_or("", |(folders, _)| folders);
    let says = folders.split('/');
    let says = says.filter(|part| *part != "data" && split_word(part).is_none());
    says.collect::<Vec<_>>().join("/")
}
