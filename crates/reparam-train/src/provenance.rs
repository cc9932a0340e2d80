//! What a run was made from.

use std::collections::BTreeMap;
use std::path::Path;

use reparam_data::FileDigest;
use reparam_formats::checkpoint::{Checkpoint, sha256_bytes};
use serde::Serialize;

use crate::config::RunConfig;
use crate::{Session, TrainError};

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
    /// The model as the run file names it.
    model: &'a str,
    revision: Option<&'a str>,
    /// The commit of a model from the hub, which stays when its branch moves on.
    commit: Option<String>,
    base_tensors: BTreeMap<String, String>,
    tokenizer: Digest<'a>,
    data: Vec<Digest<'a>>,
    config: String,
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

/// Returns the provenance of a run as JSON.
pub(crate) fn provenance(
    config: &RunConfig,
    resolved: &str,
    session: &Session,
    data: &[&FileDigest],
) -> Result<String, TrainError> {
    let base_tensors = Checkpoint::open(&session.directory)?.sha256_tensors();
    let provenance = Provenance {
        schema_version: 1,
        reparam_version: env!("CARGO_PKG_VERSION"),
        burn_version: BURN_VERSION,
        target: target(),
        seed: config.train.seed,
        model: &config.model.path,
        revision: config.model.revision.as_deref(),
        commit: hub_commit(&session.directory),
        base_tensors,
        tokenizer: Digest::new(session.tokenizer.digest()),
        data: data.iter().map(|digest| Digest::new(digest)).collect(),
        config: sha256_bytes(resolved.as_bytes()),
    };
    let mut json = serde_json::to_string_pretty(&provenance).map_err(|error| {
        reparam_formats::FormatError::io("write", "provenance.json".as_ref(), error.into())
    })?;
    json.push('\n');
    Ok(json)
}

/// Returns the provenance of a run on a table as JSON; a generated table follows from the configuration.
pub(crate) fn table_provenance(resolved: &str, seed: u64, data: Option<&FileDigest>) -> String {
    let data: Vec<Digest<'_>> = data.map(Digest::new).into_iter().collect();
    let provenance = serde_json::json!({
        "schema_version": 1,
        "reparam_version": env!("CARGO_PKG_VERSION"),
        "burn_version": BURN_VERSION,
        "target": target(),
        "seed": seed,
        "data": data,
        "config": sha256_bytes(resolved.as_bytes()),
    });
    format!("{provenance:#}\n")
}

const BURN_VERSION: &str = "0.22.1";

fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}
