//! What a run was made from.

use std::collections::BTreeMap;
use std::path::Path;

use reparam_data::FileDigest;
use reparam_formats::checkpoint::sha256_bytes;
use serde::{Deserialize, Serialize};

use crate::json::text_of;
use crate::run_dir::PROVENANCE;
use crate::task::{BaseOrigin, Origins, RunFacts};
use crate::{Result, TrainError};

/// The digests and versions that a run depends on, as in `provenance.json`.
///
/// Digests are SHA-256 in lower-case hexadecimal.
#[derive(Debug, Serialize)]
struct Provenance<'a> {
    schema_version: u32,
    reparam_version: &'a str,
    burn_version: &'a str,
    target: String,
    seed: u64,
    #[serde(flatten)]
    base: Option<Base<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer: Option<Digest<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adapter: Vec<Digest<'a>>,
    data: Vec<Digest<'a>>,
    config: String,
}

#[derive(Debug, Serialize)]
struct Base<'a> {
    /// The model as the run file names it.
    model: &'a str,
    revision: Option<&'a str>,
    /// The commit of a model from the hub, which stays when its branch moves on.
    commit: Option<String>,
    /// What is read of its directory besides weights and tokenizer.
    base_files: BTreeMap<&'static str, String>,
    base_tensors: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Digest<'a> {
    path: std::borrow::Cow<'a, str>,
    bytes: u64,
    sha256: &'a str,
}

impl<'a> Digest<'a> {
    fn new(digest: &'a FileDigest) -> Self {
        Self {
            path: digest.path.to_string_lossy(),
            bytes: digest.bytes,
            sha256: &digest.sha256,
        }
    }
}

/// Returns the commit in the path of a model in the hub's cache: `.../snapshots/<commit>`.
fn hub_commit(directory: &Path) -> Option<String> {
    let snapshots = directory.parent()?.file_name()? == "snapshots";
    let commit = directory.file_name()?.to_str()?.to_owned();
    snapshots.then_some(commit)
}

/// What has to be the same for a run to go on: digests of what it is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// Of the configuration, without what changes no number.
    config: String,
    /// What activations are computed in: `auto` is another on another machine.
    precision: String,
    base: Option<String>,
    /// Of the files of the base besides weights and tokenizer, by name.
    base_files: BTreeMap<String, String>,
    tokenizer: Option<String>,
    /// Of the files of an adapter that is trained on from.
    #[serde(default)]
    adapter: Vec<String>,
    data: Vec<String>,
}

impl Fingerprint {
    /// Refuses to go on with a run that was made from something else.
    pub(crate) fn check(&self, now: &Self) -> Result<()> {
        let names = self.base_files.keys().chain(now.base_files.keys());
        let digest = |of: &Self, name: &String| of.base_files.get(name).cloned();
        let mut other_files = names.filter(|name| digest(self, name) != digest(now, name));
        if let Some(name) = other_files.next() {
            return Err(TrainError::ResumeDiffers {
                what: format!("`{name}` of the base model"),
                change: None,
            });
        }
        let same = [
            ("the configuration", self.config == now.config),
            ("the precision", self.precision == now.precision),
            ("the base model", self.base == now.base),
            ("the tokenizer", self.tokenizer == now.tokenizer),
            ("the adapter", self.adapter == now.adapter),
            ("the data", self.data == now.data),
        ];
        match same.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((what, _)) => Err(TrainError::ResumeDiffers {
                what: (*what).to_owned(),
                change: None,
            }),
        }
    }
}

/// Returns the provenance of a run as JSON, and what has to stay for the run to go on.
pub(crate) fn provenance(
    config: &str,
    seed: u64,
    facts: &RunFacts,
    origins: &Origins,
) -> Result<(String, Fingerprint)> {
    let base = match &origins.base {
        None => None,
        Some(base) => Some(Base {
            model: &base.model,
            revision: base.revision.as_deref(),
            commit: hub_commit(base.from.directory()),
            base_files: digests(base),
            base_tensors: base.from.weights().sha256_tensors()?,
        }),
    };
    let tensors = |base: &Base<'_>| {
        let mut text = String::new();
        for (name, digest) in &base.base_tensors {
            text += &format!("{name} {digest}\n");
        }
        sha256_bytes(text.as_bytes())
    };
    let digest = |digest: &FileDigest| digest.sha256.clone();
    let base_files = base.iter().flat_map(|base| &base.base_files);
    let base_files = base_files.map(|(name, digest)| ((*name).to_owned(), digest.clone()));
    let fingerprint = Fingerprint {
        config: sha256_bytes(what_counts(config).to_string().as_bytes()),
        precision: facts.precision.clone(),
        base: base.as_ref().map(tensors),
        base_files: base_files.collect(),
        tokenizer: origins.tokenizer.as_ref().map(digest),
        adapter: origins.adapter.iter().map(digest).collect(),
        data: origins.data.iter().map(digest).collect(),
    };
    let provenance = Provenance {
        schema_version: 1,
        reparam_version: env!("CARGO_PKG_VERSION"),
        burn_version: BURN_VERSION,
        target: target(),
        seed,
        base,
        tokenizer: origins.tokenizer.as_ref().map(Digest::new),
        adapter: origins.adapter.iter().map(Digest::new).collect(),
        data: origins.data.iter().map(Digest::new).collect(),
        config: sha256_bytes(config.as_bytes()),
    };
    let json = text_of(PROVENANCE.as_ref(), &provenance)?;
    Ok((json, fingerprint))
}

/// Returns the digests of the files that were read of a base, where they are there.
fn digests(base: &BaseOrigin) -> BTreeMap<&'static str, String> {
    let files = base.files.iter();
    files
        .filter_map(|name| Some((*name, sha256_bytes(base.from.bytes(name)?))))
        .collect()
}

/// Returns the part of a configuration that changes what a run computes.
///
/// Where the result goes, how many threads compute, what is written down, which checkpoints stay and where tokens are kept
/// does not.
fn what_counts(config: &str) -> toml::Table {
    let mut table: toml::Table = config.parse().unwrap_or_default();
    table.remove("output");
    if let Some(toml::Value::Table(train)) = table.get_mut("train") {
        train.remove("threads");
        train.remove("log_every");
        train.remove("save_every");
        train.remove("keep_last");
    }
    if let Some(toml::Value::Table(data)) = table.get_mut("data") {
        data.remove("cache");
    }
    table
}

/// Refuses to go on with a run whose configuration was another.
pub(crate) fn check_config(before: &str, now: &str) -> Result<()> {
    let (before, now) = (what_counts(before), what_counts(now));
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten("", &before, &mut old);
    flatten("", &now, &mut new);
    let keys = old.keys().chain(new.keys());
    let differs = keys.clone().find(|key| old.get(*key) != new.get(*key));
    match differs {
        None => Ok(()),
        Some(key) => {
            let value = |values: &BTreeMap<String, String>| {
                values
                    .get(key)
                    .cloned()
                    .unwrap_or_else(|| "absent".to_owned())
            };
            Err(TrainError::ResumeDiffers {
                what: format!("`{key}`"),
                change: Some((value(&old), value(&new))),
            })
        }
    }
}

/// Returns what runs with these configurations have in common, key by key, apart from where they go.
pub(crate) fn in_common<'a>(configs: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
    let mut common: Option<BTreeMap<String, String>> = None;
    for config in configs {
        let mut flat = BTreeMap::new();
        let mut table: toml::Table = config.parse().unwrap_or_default();
        table.remove("output");
        flatten("", &table, &mut flat);
        match &mut common {
            None => common = Some(flat),
            Some(common) => common.retain(|key, value| flat.get(key) == Some(value)),
        }
    }
    common.unwrap_or_default().into_iter().collect()
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => flatten(&format!("{key}."), inner, flat),
            value => {
                flat.insert(key, value.to_string());
            }
        }
    }
}

const BURN_VERSION: &str = "0.22.1";

fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}
