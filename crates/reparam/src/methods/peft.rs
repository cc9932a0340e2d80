//! Adapters of PEFT: attaching what is in a file, and making a file of what is attached.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ParamId};
use burn::tensor::{Tensor, TensorData};
use reparam_formats::config::JsonObject;
use reparam_formats::peft::{
    self, AdapterFiles, KeySpec, KeyUsage, PeftError, TargetModules, TokenRows,
};
use serde_json::{Map, Value, json};

use super::targets::Selection;
use super::{
    AttachReport, AttachedModule, Biases, LinearModule, MethodConfig, MethodError, MethodSpec,
    Methods, Result, WeightLayout, attach, linear_modules, token_rows, trained_rows,
};
use crate::walk::{Change, Entry, Part, beside, entries, rewrite, walk};

/// How a method is stored in PEFT's files.
#[derive(Debug)]
pub struct PeftFormat {
    /// PEFT's word for it.
    pub peft_type: &'static str,
    /// Whether a configuration with that word means this method.
    pub is_own: fn(&JsonObject) -> bool,
    /// Reads the settings; the selection is the layers that have tensors.
    pub read: fn(&AdapterFiles) -> Result<Arc<dyn MethodConfig>>,
    /// Checks that what is to be written means the same when it is read.
    pub check: fn(&AdapterFiles) -> Result<()>,
}

/// A key of an adapter's configuration, with the default of PEFT as JSON and what is done with it.
pub(super) const fn key(key: &'static str, default: &'static str, usage: KeyUsage) -> KeySpec {
    KeySpec {
        key,
        default,
        usage,
    }
}

/// What an adapter's configuration says besides the method's own keys.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterMeta {
    /// The model that is adapted, as a path or a hub id.
    pub base_model_name_or_path: Option<String>,
    /// Its revision.
    pub revision: Option<String>,
    /// What the model does, such as `CAUSAL_LM`.
    pub task_type: Option<String>,
    /// The targets as they are written.
    pub target_modules: TargetModules,
    /// The adapted modules.
    pub modules: Vec<String>,
    /// Modules that are stored whole, such as a new classification head.
    pub modules_to_save: Vec<String>,
    /// Whether the base stores its weights in x out (GPT-2).
    pub fan_in_fan_out: bool,
}

impl AdapterMeta {
    /// Describes an adapter of the modules of a report.
    pub fn new(method: &dyn MethodConfig, modules: &[AttachedModule]) -> Self {
        let paths = |of: &mut dyn Iterator<Item = &AttachedModule>| -> Vec<String> {
            of.map(|module| module.module.clone()).collect()
        };
        let layers = paths(&mut modules.iter().filter(|module| !module.is_parameter));
        let modules = paths(&mut modules.iter());
        Self {
            base_model_name_or_path: None,
            revision: None,
            task_type: None,
            target_modules: written_targets(&method.selection().target_modules, &layers),
            modules,
            modules_to_save: Vec::new(),
            fan_in_fan_out: false,
        }
    }

    /// The keys that most methods share. PEFT has a word for the biases of the adapted layers for each method.
    pub(super) fn common(
        &self,
        selection: &Selection,
        bias_of_targets: &str,
    ) -> Map<String, Value> {
        let or_null = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
        let given = json!({
            "base_model_name_or_path": self.base_model_name_or_path,
            "revision": self.revision,
            "task_type": self.task_type,
            "target_modules": self.target_modules.to_value(),
            "exclude_modules": selection.exclude_modules.as_ref().map(TargetModules::to_value),
            "layers_to_transform": selection.layers_to_transform,
            "layers_pattern": or_null(&selection.layers_pattern),
            "bias": match selection.bias {
                Biases::Targets => bias_of_targets,
                other => other.name(),
            },
            "modules_to_save": or_null(&self.modules_to_save),
            "fan_in_fan_out": self.fan_in_fan_out,
        });
        match given {
            Value::Object(given) => given,
            _ => Map::new(),
        }
    }
}

/// Returns the targets as they are written: `all-linear` by the names that it stands for.
///
/// PEFT does the same, and other readers of its files do not know the word. The names are the last
/// parts of the paths; they select the same modules, because what `all-linear` leaves out is the
/// output head, which shares its name with no other module, and what `exclude_modules` names, which
/// is written too.
fn written_targets(configured: &TargetModules, modules: &[String]) -> TargetModules {
    if *configured != TargetModules::AllLinear {
        return configured.clone();
    }
    let names: BTreeSet<&str> = modules
        .iter()
        .filter_map(|module| module.rsplit('.').next())
        .collect();
    TargetModules::Names(names.into_iter().map(str::to_owned).collect())
}

/// Returns the selection of the layers that have tensors of these names, with the biases that the configuration asks for.
pub(super) fn targets_of(files: &AdapterFiles, names: &[&str]) -> Result<Selection> {
    let paths: BTreeSet<String> = files
        .tensors
        .keys()
        .filter_map(|tensor| {
            names
                .iter()
                .find_map(|name| tensor.strip_suffix(&format!(".{name}")))
        })
        .map(str::to_owned)
        .collect();
    if paths.is_empty() {
        return Err(PeftError::Empty.into());
    }
    let bias = match files.config.str("bias")? {
        None | Some("none") => Biases::None,
        Some("all") => Biases::All,
        Some(word) if word.ends_with("_only") => Biases::Targets,
        Some(_) => {
            let reason = "it has to be none, all or a method's name with _only";
            return Err(files.config.invalid("bias", reason).into());
        }
    };
    let names = TargetModules::Names(paths.into_iter().collect());
    Ok(Selection::default()
        .with_target_modules(names)
        .with_bias(bias))
}

/// Makes the files of an adapter of what is attached to a model, with the biases and the rows of tokens that are trained and the
/// modules that are saved whole.
///
/// # Errors
///
/// Fails when PEFT does not have the method, or the configuration would mean something else when it is read.
pub fn to_adapter<M: Module>(
    model: &M,
    method: &dyn MethodConfig,
    meta: &AdapterMeta,
) -> Result<AdapterFiles> {
    let (Some(format), Some(mut config)) = (&method.spec().peft, method.peft_config(meta)) else {
        return Err(MethodError::NoAdapterFile {
            method: method.spec().kind,
        });
    };
    // What reading relies on is there whatever the method writes.
    for (key, value) in meta.common(method.selection(), "") {
        let is_needed = ["base_model_name_or_path", "task_type", "modules_to_save"];
        if is_needed.contains(&key.as_str()) {
            config.entry(key).or_insert(value);
        }
    }
    let adapted: BTreeSet<&str> = meta.modules.iter().map(String::as_str).collect();
    let biases = method.selection().bias;
    let mut tensors = BTreeMap::new();
    let mut has_theta = false;
    let mut rows = trained_rows(model);
    if !rows.is_empty() && format.peft_type != HAS_TOKENS {
        return Err(MethodError::NoTokens {
            method: method.spec().kind,
        });
    }
    let mut tokens = BTreeMap::new();
    walk(model, |entry, param| {
        if is_rows(entry) {
            if let Some(indices) = rows.remove(&entry.module) {
                let data = param.values().into_data();
                let rows = peft::Tensor {
                    shape: entry.shape.clone(),
                    data: data.iter::<f32>().collect(),
                };
                tokens.insert(entry.module.clone(), TokenRows { indices, rows });
            }
            return;
        }
        has_theta |= entry.part.is_tensor();
        if let Some(name) = stored_name(entry, &adapted, biases, &meta.modules_to_save) {
            let data = param.values().into_data();
            let tensor = peft::Tensor {
                shape: entry.shape.clone(),
                data: data.iter::<f32>().collect(),
            };
            tensors.insert(name, tensor);
        }
    });
    if !has_theta {
        return Err(PeftError::Empty.into());
    }
    let mut files = AdapterFiles::new(config, tensors);
    (format.check)(&files)?;
    let linears = linear_modules(model);
    let head = linears.iter().find(|linear| linear.is_output_head);
    files.put_tokens(tokens, head.map(|head| &*head.path));
    Ok(files)
}

/// The one type of adapter whose configuration in PEFT has `trainable_token_indices`.
const HAS_TOKENS: &str = "LORA";

/// Whether a parameter is rows of tokens, which are no part of the run's method.
fn is_rows(entry: &Entry) -> bool {
    matches!(&entry.part, Part::Tensor { method } if method == token_rows::KIND)
}

/// The name under which an adapter stores a parameter; `None` if it does not.
fn stored_name(
    entry: &Entry,
    adapted: &BTreeSet<&str>,
    biases: Biases,
    modules_to_save: &[String],
) -> Option<String> {
    let module = entry.module.as_str();
    let is_adapted = adapted.contains(module);
    match &entry.part {
        Part::Tensor { .. } => Some(entry.name.clone()),
        Part::Own { .. } if peft::is_inside(module, modules_to_save) => Some(entry.name.clone()),
        Part::Own { field, .. } if field == "bias" => match biases {
            Biases::None => None,
            Biases::All | Biases::Targets if is_adapted => Some(beside(module, "base_layer.bias")),
            Biases::All => Some(entry.name.clone()),
            Biases::Targets => None,
        },
        Part::Own { .. } => None,
    }
}

impl Methods {
    /// Attaches an adapter: the method, the values of its tensors, biases and modules that are saved whole.
    ///
    /// What counts is the tensors in the file: a configuration written by PEFT may leave the choice of
    /// targets to PEFT's own table.
    ///
    /// # Errors
    ///
    /// Fails when there is no such method, a setting asks for something that is not there, or the tensors do not fit the
    /// model.
    pub fn attach_adapter<M: Module>(
        &self,
        model: M,
        files: &AdapterFiles,
        layout: WeightLayout,
    ) -> Result<(M, AttachReport, Arc<dyn MethodConfig>)> {
        let (_, format) = self.of_adapter(files)?;
        let method = (format.read)(files)?;
        let linears = linear_modules(&model);
        let known: BTreeSet<&str> = linears.iter().map(|linear| linear.path.as_str()).collect();
        if let TargetModules::Names(names) = &method.selection().target_modules {
            let unknown = names.iter().filter(|name| !known.contains(name.as_str()));
            let unknown: Vec<String> = unknown.cloned().collect();
            if let Some(prefixes) = unknown.first().and_then(|name| prefixes(name, &known)) {
                let (found, expected) = prefixes;
                return Err(MethodError::AdapterPrefix { found, expected });
            }
            mismatch("the model has no such linear layers", unknown)?;
        }
        let biases = method.selection().bias;
        let selection = method.selection().clone().with_weight_layout(layout);
        // Of a model without biases "all" trains none, which is no error in a file.
        let has_biases = files.tensors.keys().any(|name| name.ends_with(".bias"));
        let selection = if has_biases {
            selection
        } else {
            selection.with_bias(Biases::None)
        };
        let method = method.with_selection(selection);
        let (model, report) = attach(model, &*method, 0).map_err(|error| match error {
            MethodError::NoBias { .. } => {
                let biases = files.tensors.keys().filter(|name| name.ends_with(".bias"));
                MethodError::AdapterMismatch {
                    problem: "the model has no such biases",
                    names: biases.take(10).cloned().collect(),
                }
            }
            other => other,
        })?;
        let adapted: BTreeSet<&str> = report
            .modules
            .iter()
            .filter(|module| !module.is_parameter)
            .map(|module| module.module.as_str())
            .collect();
        let saved = files.config.strings("modules_to_save")?.unwrap_or_default();
        check_targets(files, (&linears, &saved), &adapted)?;
        let method = match last_names(&linears, &adapted) {
            None => method,
            Some(names) => {
                let selection = method.selection().clone().with_target_modules(names);
                method.with_selection(selection)
            }
        };
        let mut left: BTreeSet<&str> = files.tensors.keys().map(String::as_str).collect();
        let mut changes = HashMap::new();
        let mut missing = Vec::new();
        let mut packed = HashSet::new();
        walk(&model, |entry, param| {
            if !param.is_there() {
                packed.insert(entry.id);
            }
        });
        for entry in entries(&model) {
            let Some(name) = stored_name(&entry, &adapted, biases, &saved) else {
                continue;
            };
            let Some(tensor) = files.tensors.get(&name) else {
                if !entry.part.is_field("bias") {
                    missing.push(name);
                }
                continue;
            };
            if tensor.shape != entry.shape {
                return Err(MethodError::FactorShape {
                    name,
                    expected: entry.shape,
                    found: tensor.shape.clone(),
                });
            }
            if packed.contains(&entry.id) {
                return Err(MethodError::PackedModule {
                    module: entry.module,
                });
            }
            left.remove(name.as_str());
            changes.insert(entry.id, tensor.clone());
        }
        mismatch("tensors are missing", missing)?;
        let left = left.into_iter().map(str::to_owned).collect();
        mismatch("the model has no place for these tensors", left)?;
        Ok((put(model, &changes), report, method))
    }

    /// Returns the method that an adapter is of.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn of_adapter(
        &self,
        files: &AdapterFiles,
    ) -> Result<(&'static MethodSpec, &'static PeftFormat)> {
        let peft_type = files.peft_type()?;
        let own = self.iter().find_map(|spec| {
            let format = spec.peft.as_ref()?;
            let is_own = format.peft_type == peft_type && (format.is_own)(&files.config);
            is_own.then_some((spec, format))
        });
        own.ok_or_else(|| {
            let error = PeftError::UnsupportedType {
                path: files.config.path().to_path_buf(),
                peft_type: peft_type.to_owned(),
            };
            error.into()
        })
    }
}

/// [`Methods::attach_adapter`] of the built-in methods.
///
/// # Errors
///
/// As that.
pub fn attach_adapter<M: Module>(
    model: M,
    files: &AdapterFiles,
    layout: WeightLayout,
) -> Result<(M, AttachReport)> {
    let (model, report, _) = Methods::builtin().attach_adapter(model, files, layout)?;
    Ok((model, report))
}

/// Finds a layer of the model whose path differs from `name` in its beginning alone, and returns what each begins with: an
/// adapter that was trained through another class of transformers.
fn prefixes(name: &str, known: &BTreeSet<&str>) -> Option<(String, String)> {
    known.iter().find_map(|path| {
        let [parts, own] = [name, path].map(|path| path.split('.').collect::<Vec<_>>());
        let same = parts.iter().rev().zip(own.iter().rev());
        let same = same.take_while(|(a, b)| a == b).count();
        // The number of a layer has to be among what agrees.
        let tail = &own[own.len() - same..];
        if !tail.iter().any(|part| part.parse::<usize>().is_ok()) {
            return None;
        }
        let begin = |parts: &[&str]| {
            let begin = parts[..parts.len() - same].iter();
            begin.map(|part| format!("{part}.")).collect::<String>()
        };
        Some((begin(&parts), begin(&own)))
    })
}

/// Returns the last parts of the paths of adapted layers, if they select the same layers: so they are written, and read by
/// others.
fn last_names(linears: &[LinearModule], adapted: &BTreeSet<&str>) -> Option<TargetModules> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    let names: BTreeSet<String> = adapted.iter().map(|path| last(path)).collect();
    let is_selected = |linear: &LinearModule| names.contains(&last(&linear.path));
    let is_adapted = |linear: &LinearModule| adapted.contains(linear.path.as_str());
    let is_same = linears.iter().all(|l| is_selected(l) == is_adapted(l));
    is_same.then(|| TargetModules::Names(names.into_iter().collect()))
}

/// Checks that each layer that the configuration targets has tensors, but for those in modules that are saved whole, which PEFT
/// leaves out.
fn check_targets(
    files: &AdapterFiles,
    (linears, saved): (&[LinearModule], &[String]),
    adapted: &BTreeSet<&str>,
) -> Result<()> {
    let modules = |key| files.config.get(key).and_then(TargetModules::from_value);
    let has_layers = files.config.get("layers_to_transform").is_some();
    let targets = match modules("target_modules") {
        Some(targets) if !has_layers && targets != TargetModules::AllLinear => targets,
        _ => return Ok(()),
    };
    let exclude = modules("exclude_modules");
    let mut missing = Vec::new();
    for LinearModule { path, .. } in linears {
        let is_excluded = match &exclude {
            Some(exclude) => peft::target_matches(exclude, path)?,
            None => false,
        };
        let is_excluded = is_excluded || peft::is_inside(path, saved);
        if !is_excluded && peft::target_matches(&targets, path)? && !adapted.contains(path.as_str())
        {
            missing.push(path.clone());
        }
    }
    let problem = "its configuration targets layers that it has no factors for";
    mismatch(problem, missing)
}

fn mismatch(problem: &'static str, mut names: Vec<String>) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    names.truncate(10);
    Err(MethodError::AdapterMismatch { problem, names })
}

/// Puts values into a model.
fn put<M: Module>(model: M, values: &HashMap<ParamId, peft::Tensor>) -> M {
    let mut changes = HashMap::new();
    walk(&model, |entry, param| {
        if let Some(tensor) = values.get(&entry.id) {
            let old = param.values();
            let data = TensorData::new(tensor.data.clone(), [tensor.data.len()]);
            let dtype = old.dtype();
            let new = Tensor::from_data(data.convert_dtype(dtype), (&old.device(), dtype));
            changes.insert(entry.id, Change::of_values(new));
        }
    });
    rewrite(model, changes)
}
