//! Finds a data set: the Parquet files of its training split, in the cache or brought there.

use std::collections::{BTreeMap, BTreeSet};
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

    /// The address of the repository, behind which folders and files are named.
    fn root(&self) -> String {
        let revision = match self.revision.as_deref() {
            None => String::new(),
            Some(CONVERTED) => format!("@{CONVERTED_NAME}"),
            Some(revision) => format!("@{revision}"),
        };
        format!("{ADDRESS}{}{revision}", self.id)
    }
}

/// Returns the Parquet files of the training split of `hf://datasets/OWNER/NAME`, sorted by their names.
///
/// They are those of the repository; where it has none, those that the hub has made of its files. `@REVISION` behind the name
/// chooses a branch, a tag or a commit, and a folder or a file behind that what is read of it: one configuration, or another
/// split, as in `/en/test` or, of the files `data/train_sft-00000-of-00003.parquet` and so on, `/data/train_sft`. What the cache
/// has whole is used without a request. [`HubOptions::revision`] is that of a model and not looked at.
///
/// # Errors
///
/// [`HubError::InvalidDataset`], [`HubError::NoParquet`], [`HubError::SeveralConfigs`], [`HubError::SeveralSplits`];
/// [`HubError::NotCached`] when offline, and those of the download, after which the next one goes on.
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
        match files_of(&asked, &folder, &of_revision, progress) {
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
    asked: &Address,
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
        let files = training_files(asked, &listing)?;
        if !missing(&files, &commit) {
            return Ok(paths(folder, &commit, &files));
        }
    }
    if options.offline {
        return Err(HubError::NotCached {
            id: asked.id.clone(),
            revision: options.revision.clone(),
            cache: options.cache_dir.clone(),
            nearest: None,
        });
    }
    let client = Client::new(Repository::Dataset, &asked.id, options)?;
    let info = client.info()?;
    folder.list(&info.commit, &info.files)?;
    let files = training_files(asked, &info.files);
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
/// The rule is that of the `datasets` library: what stands before the number of `NAME-00000-of-00002.parquet` is a split; of other
/// files the word of one in a folder or a name, between other characters than letters, says it; where no file says one, all are
/// for training. Other folders are configurations, of which one has to be chosen. A folder that itself says a split stands for the
/// files of that. Files that hold only the beginning of a split (`partial-train`) are left alone.
fn training_files(asked: &Address, all: &[String]) -> Result<Vec<String>, HubError> {
    let within = asked.within.as_deref();
    let is_within = |file: &str| match within {
        None => true,
        Some(within) => {
            let rest = file.strip_prefix(within);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                || before_number(file) == Some(within)
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
    // A file, or all those of a number.
    let is_named = within.is_some_and(|within| {
        let is_it = |file: &&String| *file == within || before_number(file) == Some(within);
        files.iter().all(is_it)
    });
    if !is_named && files.iter().any(|file| split_of(file).is_some()) {
        let wanted = within.and_then(word_of).unwrap_or(TRAIN);
        files = of_split(asked, files, wanted)?;
    }
    let configs: BTreeMap<String, String> =
        files.iter().map(|file| config_of(file, within)).collect();
    if configs.len() > 1 {
        return Err(HubError::SeveralConfigs {
            address: asked.root(),
            configs: configs.into_values().collect(),
        });
    }
    if files.is_empty() {
        let id = asked.id.clone();
        return Err(HubError::NoParquet { id });
    }
    Ok(files.into_iter().cloned().collect())
}

/// Keeps the files of a split; where none is called so, those of the only one that begins with its name and an underscore.
fn of_split<'a>(
    asked: &Address,
    files: Vec<&'a String>,
    wanted: &str,
) -> Result<Vec<&'a String>, HubError> {
    let is_wanted = |file: &&String| split_of(file) == Some(wanted);
    if files.iter().any(is_wanted) {
        return Ok(files.into_iter().filter(is_wanted).collect());
    }
    let begins = |file: &&String| {
        let rest = split_of(file).and_then(|split| split.strip_prefix(wanted));
        rest.is_some_and(|rest| rest.starts_with('_'))
    };
    let files: Vec<&String> = files.into_iter().filter(begins).collect();
    let splits: BTreeSet<&str> = files.iter().filter_map(|file| split_of(file)).collect();
    if splits.len() > 1 {
        let names = files.iter().filter_map(|file| before_number(file));
        let names: BTreeSet<&str> = names.collect();
        return Err(HubError::SeveralSplits {
            address: asked.root(),
            splits: names.into_iter().map(str::to_owned).collect(),
        });
    }
    Ok(files)
}

/// What stands before the number in `data/NAME-00000-of-00002.parquet`, with its folders; behind the number may be a digest.
fn before_number(file: &str) -> Option<&str> {
    let stem = file.strip_suffix(".parquet")?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (before, behind) = stem.rsplit_once("-of-")?;
    let count = behind.split_once('-').map_or(behind, |(count, _)| count);
    let (name, number) = before.rsplit_once('-')?;
    let is_shard = is_number(number) && is_number(count);
    (is_shard && !name.is_empty() && !name.ends_with('/')).then_some(name)
}

/// The split that the name of a file says.
fn split_of(file: &str) -> Option<&str> {
    match before_number(file) {
        Some(name) => name.rsplit('/').next(),
        None => word_of(file.strip_suffix(".parquet").unwrap_or(file)),
    }
}

/// The split whose word is the last in a path.
fn word_of(path: &str) -> Option<&'static str> {
    let mut words = path.split(|c: char| !c.is_ascii_alphabetic());
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

/// The configuration that a file is of, and its folder: the folders behind what was asked for that say no split and more than
/// that they hold data.
fn config_of(file: &str, within: Option<&str>) -> (String, String) {
    let within = within.unwrap_or_default();
    let rest = file.strip_prefix(within).unwrap_or(file);
    let folders = rest.rsplit_once('/').map_or("", |(folders, _)| folders);
    let (mut config, mut end) = (Vec::new(), 0);
    let mut at = 0;
    for part in folders.split('/') {
        at += part.len();
        if !matches!(part, "" | "data") && split_word(part).is_none() {
            config.push(part);
            end = at;
        }
        at += 1;
    }
    let folder = format!("{within}{}", &folders[..end]);
    (config.join("/"), folder.trim_start_matches('/').to_owned())
}
