//! A LoRA of what an adapter of any method, or another checkpoint, makes of the weights of a base.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use reparam::methods::{FactorSize, Factors, factorize};
use reparam_formats::atomic::AtomicDirectory;
use reparam_formats::chat_templates::TEMPLATE_FILE;
use reparam_formats::file;
use reparam_formats::hub::HubOptions;
use reparam_formats::peft::{
    AdapterFiles, LoraAdapterConfig, PeftAdapter, TargetModules, Tensor, TokenRows,
};
use serde::Serialize;

use super::compare::{Agreement, compare_sessions};
use super::weights::transpose;
use super::{MergeError, MergedWeights, Opened, check_free};
use crate::cards::CARD_FILE;
use crate::config::Precision;
use crate::model_files::TOKENIZER;
use crate::open::OpenedModel;
use crate::session::{adapter_directory, load_adapter};
use crate::task::{DataRequest, ModelRequest};
use crate::{Result, Session, Stop};

/// What a LoRA is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum LoraSource {
    /// An adapter of any method that can be merged.
    Adapter(PathBuf),
    /// A model of the same architecture, such as one that was trained whole.
    Model(ModelRequest),
}

/// What is made, and how it is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraRequest {
    /// The base, without an adapter.
    pub base: ModelRequest,
    /// What differs from it.
    pub source: LoraSource,
    /// How large the factors are.
    pub size: FactorSize,
    /// PEFT's word for the task, where an adapter does not say it.
    pub task_type: Option<String>,
    /// Texts on which the source and the base with the LoRA are compared.
    pub data: Option<DataRequest>,
    /// The most tokens that both see at once.
    pub sequence_length: usize,
}

/// What a LoRA leaves of the change that it was made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LoraReport {
    /// The adapted layers, in the order of their names.
    pub layers: Vec<LoraLayer>,
    /// The tensors that differ and have no place in a LoRA: norms, biases, tables.
    pub left_out: Vec<String>,
    /// How close the base with the LoRA is to the source, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub agreement: Option<Agreement>,
}

/// What the factors of one layer leave of its change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraLayer {
    /// The layer.
    pub name: String,
    /// How many factors it has.
    pub rank: usize,
    /// The Frobenius norm of the change.
    pub norm: f64,
    /// That of what the factors leave.
    pub error: f64,
    /// The second divided by the first.
    pub relative_error: f64,
    /// The largest number that they leave.
    pub max_error: f64,
}

impl LoraReport {
    /// Returns the error of all layers together, relative to their change.
    pub fn relative_error(&self) -> f64 {
        let sum = |of: fn(&LoraLayer) -> f64| -> f64 {
            self.layers.iter().map(|layer| of(layer).powi(2)).sum()
        };
        (sum(|layer| layer.error) / sum(|layer| layer.norm)).sqrt()
    }
}

/// Where the weights of a source are.
enum Changed<'a> {
    Adapter(Box<MergedWeights<'a>>),
    Model {
        base: Box<MergedWeights<'a>>,
        tuned: Box<MergedWeights<'a>>,
    },
}

impl Changed<'_> {
    fn base(&self) -> &MergedWeights<'_> {
        match self {
            Self::Adapter(merged) => merged,
            Self::Model { base, .. } => base,
        }
    }

    /// The change of a tensor with its shape as it is stored; `None` if there is none.
    fn of(&self, name: &str) -> Result<Option<(Vec<f64>, Vec<usize>)>> {
        let shape = self.base().of_base(name)?.shape.to_vec();
        let (after, before) = match self {
            Self::Adapter(merged) if !merged.changes(name) => return Ok(None),
            Self::Adapter(merged) => merged.merged(name)?,
            Self::Model { base, tuned } => {
                let stored = tuned.of_base(name)?;
                if stored.shape != shape {
                    return Err(MergeError::Shape {
                        name: name.to_owned(),
                        base: shape,
                        adapter: stored.shape.to_vec(),
                    }
                    .into());
                }
                (tuned.merged(name)?.0, base.merged(name)?.0)
            }
        };
        let change: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let is_there = change.iter().any(|value| *value != 0.0);
        Ok(is_there.then_some((change, shape)))
    }
}

/// Makes a LoRA of the change that an adapter or another checkpoint is to a base, and writes it as PEFT does.
///
/// For each linear layer the change `dW` is formed in f64, and the nearest product `B A` of the asked size takes its place
/// ([`factorize`]); a layer without a change is left out. The scaling is 1.
///
/// # Errors
///
/// [`MergeError::NoChange`] if no linear layer differs; those of opening both, and of files.
///
/// # Cost
///
/// One layer at a time: its weight three times in f64.
pub fn to_lora(
    request: &LoraRequest,
    output: &Path,
    hub: &HubOptions,
    stop: Stop<'_>,
) -> Result<LoraReport> {
    request.base.runtime.run(|| {
        check_free(output)?;
        let adapters: Vec<(PathBuf, f64)> = match &request.source {
            LoraSource::Adapter(path) => vec![(path.clone(), 1.0)],
            LoraSource::Model(_) => Vec::new(),
        };
        let opened = Opened::find(&request.base, &adapters, hub)?;
        let tuned = match &request.source {
            LoraSource::Adapter(_) => None,
            LoraSource::Model(model) => {
                let (found, hub) = model.found(hub)?;
                let adapters = found.adapter.clone().map(|path| (path, 1.0));
                let adapters: Vec<_> = adapters.into_iter().collect();
                Some(Opened::find(&found, &adapters, &hub)?)
            }
        };
        let changed = match &tuned {
            None => Changed::Adapter(Box::new(opened.weights(&request.base)?)),
            Some(tuned) => Changed::Model {
                base: Box::new(opened.weights(&request.base)?),
                tuned: Box::new(tuned.weights(&request.base)?),
            },
        };
        let mut report = LoraReport::default();
        let factors = factors_of(&changed, &opened.model, request.size, &mut report, stop)?;
        let adapter = adapter_of(request, &opened, factors)?;
        let files = beside(&request.source)?;
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, &**text)).collect();
        let directory = AtomicDirectory::create(output)?;
        adapter.save_with(directory.path(), &files)?;
        if let Some(data) = &request.data {
            report.agreement = Some(compared(request, data, directory.path(), hub, stop)?);
        }
        directory.commit()?;
        Ok(report)
    })?
}

/// The factors of all layers that differ, by their paths.
fn factors_of(
    changed: &Changed<'_>,
    model: &OpenedModel,
    size: FactorSize,
    report: &mut LoraReport,
    stop: Stop<'_>,
) -> Result<BTreeMap<String, Factors>> {
    let architecture = &model.architecture;
    let base = changed.base();
    let (head, table) = architecture.head_names();
    let linears = architecture
        .linears()
        .map(|linear| (architecture.full_path(&linear.path), linear.transposed));
    let mut linears: BTreeMap<String, bool> = linears.collect();
    // A head that is the table is no layer of its own.
    if !base.is_tied() {
        linears.insert(head.trim_end_matches(".weight").to_owned(), false);
    }
    let is_buffer = |name: &str| {
        let mut buffers = architecture.buffers.iter();
        buffers.any(|buffer| name.ends_with(buffer))
    };
    let of_rows = base.row_names();
    let mut factors = BTreeMap::new();
    for (name, _) in base.names() {
        stop.check()?;
        if is_buffer(&name) {
            continue;
        }
        if let Changed::Model { tuned, .. } = changed {
            // A head that is the table in both differs as the table does, which is said.
            if base.is_tied() && tuned.is_tied() && name == head {
                continue;
            }
            if !tuned.has(&name) {
                report.left_out.push(name);
                continue;
            }
        }
        let Some((change, shape)) = changed.of(&name)? else {
            continue;
        };
        // Rows of tokens go on as they are.
        if of_rows.contains(&name) || (base.is_tied() && name == head && of_rows.contains(&table)) {
            continue;
        }
        let path = name.strip_suffix(".weight").unwrap_or(&name);
        let (Some(is_transposed), [rows, columns]) = (linears.get(path), &*shape) else {
            report.left_out.push(name);
            continue;
        };
        let (change, shape) = match is_transposed {
            true => (transpose(&change, &shape), [*columns, *rows]),
            false => (change, [*rows, *columns]),
        };
        let squares: f64 = change.iter().map(|value| value * value).sum();
        if !squares.is_finite() {
            return Err(MergeError::NotFinite { name }.into());
        }
        let Some(found) = factorize(&change, shape, size, 0) else {
            continue;
        };
        report.layers.push(LoraLayer {
            name: path.to_owned(),
            rank: found.rank,
            norm: found.norm,
            error: found.error,
            relative_error: found.relative(),
            max_error: found.max_error,
        });
        factors.insert(path.to_owned(), found);
    }
    if let Changed::Model { base, tuned } = changed {
        let known: BTreeSet<String> = base.names().into_iter().map(|(name, _)| name).collect();
        let names = tuned.names().into_iter().map(|(name, _)| name);
        // A head that is the table is no tensor more.
        let is_copy = |name: &String| tuned.is_tied() && *name == head;
        report.left_out.extend(
            names.filter(|name| !known.contains(name) && !is_buffer(name) && !is_copy(name)),
        );
    }
    match factors.is_empty() {
        true => Err(MergeError::NoChange.into()),
        false => Ok(factors),
    }
}

/// Puts the adapter together, with the rows of tokens that the source has.
fn adapter_of(
    request: &LoraRequest,
    opened: &Opened,
    factors: BTreeMap<String, Factors>,
) -> Result<AdapterFiles> {
    let architecture = &opened.model.architecture;
    let rank = factors.values().map(|factors| factors.rank).max();
    let rank = rank.unwrap_or(1);
    let others: Vec<(&String, usize)> = factors
        .iter()
        .filter(|(_, factors)| factors.rank != rank)
        .map(|(path, factors)| (path, factors.rank))
        .collect();
    let path_of = |path: &String| path.clone();
    let (source, rows) = match &request.source {
        LoraSource::Adapter(directory) => {
            let mut files = load_adapter(directory)?;
            let rows = files.take_tokens()?;
            (Some(files.config), rows.map(|tokens| tokens.layers))
        }
        LoraSource::Model(_) => (None, None),
    };
    let said = |key: &str| -> Result<Option<String>> {
        let value = source.as_ref().map(|config| config.str(key)).transpose()?;
        Ok(value.flatten().map(str::to_owned))
    };
    let config = LoraAdapterConfig {
        r: rank,
        // A scaling of 1 for each.
        lora_alpha: rank as f64,
        rank_pattern: others
            .iter()
            .map(|(path, rank)| (path_of(path), *rank))
            .collect(),
        alpha_pattern: others
            .iter()
            .map(|(path, rank)| (path_of(path), *rank as f64))
            .collect(),
        target_modules: Some(targets(factors.keys(), architecture)),
        fan_in_fan_out: factors
            .keys()
            .any(|path| architecture.stores_transposed(&format!("{path}.weight"))),
        base_model_name_or_path: Some(request.base.model.clone()),
        revision: said("revision")?,
        task_type: said("task_type")?.or_else(|| request.task_type.clone()),
        ..LoraAdapterConfig::default()
    };
    let mut tensors = BTreeMap::new();
    for (path, found) in factors {
        let (d_in, d_out) = (found.a.len() / found.rank, found.b.len() / found.rank);
        let tensor = |shape: [usize; 2], data: Vec<f32>| Tensor {
            shape: shape.to_vec(),
            data,
        };
        tensors.insert(
            PeftAdapter::a_name(&path),
            tensor([found.rank, d_in], found.a),
        );
        tensors.insert(
            PeftAdapter::b_name(&path),
            tensor([d_out, found.rank], found.b),
        );
    }
    let adapter = PeftAdapter::new(config, tensors)?;
    adapter.check_writable()?;
    let mut files = AdapterFiles::new(adapter.config().to_map(), adapter.tensors().clone());
    if let Some(rows) = rows {
        let (head, is_tied) = (&architecture.head.path, opened.model.is_tied()?);
        let rows = rows
            .into_iter()
            .filter(|(path, _)| !is_tied || path != head);
        let rows = rows.collect::<BTreeMap<String, TokenRows>>();
        files.put_tokens(rows, Some(head));
    }
    Ok(files)
}

/// The targets by the last parts of their paths where those stand for no other layer, else by their whole paths.
fn targets<'a>(
    paths: impl Iterator<Item = &'a String> + Clone,
    architecture: &reparam_models::Architecture,
) -> TargetModules {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let own: BTreeSet<&String> = paths.clone().collect();
    let lasts: BTreeSet<String> = paths.clone().map(|path| last(path)).collect();
    let mut linears = architecture
        .linears()
        .map(|linear| architecture.full_path(&linear.path));
    let is_same = linears.all(|path| !lasts.contains(&last(&path)) || own.contains(&path));
    TargetModules::Names(match is_same {
        true => lasts.into_iter().collect(),
        false => own.into_iter().cloned().collect(),
    })
}

/// What is beside an adapter and goes on with it: what it is for, its template, its tokenizer.
fn beside(source: &LoraSource) -> Result<Vec<(&'static str, String)>> {
    let mut files = Vec::new();
    if let LoraSource::Adapter(directory) = source {
        let directory = adapter_directory(directory);
        for name in [CARD_FILE, TEMPLATE_FILE].into_iter().chain(TOKENIZER) {
            let path = directory.join(name);
            if file::is_there(&path)? {
                files.push((name, file::read_text(&path)?));
            }
        }
    }
    Ok(files)
}

/// Compares the source with the base under the LoRA.
fn compared(
    request: &LoraRequest,
    data: &DataRequest,
    lora: &Path,
    hub: &HubOptions,
    stop: Stop<'_>,
) -> Result<Agreement> {
    let open = |model: &ModelRequest, adapter: Option<PathBuf>| {
        let request = ModelRequest {
            precision: Precision::F32,
            adapter,
            ..model.clone()
        };
        Session::open_request(&request, hub)
    };
    let theirs = match &request.source {
        LoraSource::Adapter(path) => open(&request.base, Some(path.clone()))?,
        LoraSource::Model(model) => open(model, model.adapter.clone())?,
    };
    let ours = open(&request.base, Some(lora.to_owned()))?;
    compare_sessions(&theirs, &ours, data, request.sequence_length, stop)
}
