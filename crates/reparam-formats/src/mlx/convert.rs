//! Between PEFT and MLX.

use std::collections::{BTreeMap, BTreeSet};

use super::{MlxAdapter, MlxError};
use crate::peft::{
    AdapterFiles, LoraAdapterConfig, PeftAdapter, TargetModules, Tensor, most_common,
};

const A: &str = ".lora_a";
const B: &str = ".lora_b";
const MAGNITUDE: &str = ".m";

/// Makes an adapter of MLX of one of PEFT.
///
/// A rank of a module's own becomes the largest of all with zeros, which leaves the product as it is. The scale in the file is that
/// of the most modules; `B` of the others is scaled, in f64 with one rounding.
///
/// # Errors
///
/// [`MlxError::NoPlace`] for anything but LoRA and DoRA on linear layers of a model whose modules MLX calls as transformers does,
/// and those of [`PeftAdapter::from_files`].
pub fn from_peft(files: AdapterFiles) -> Result<MlxAdapter, MlxError> {
    let refuse = |name: &str, reason| MlxError::NoPlace {
        name: name.to_owned(),
        format: "MLX",
        reason,
    };
    let kind = files.peft_type()?;
    if kind != "LORA" {
        return Err(refuse(
            kind,
            "an adapter of this type is no pair of factors",
        ));
    }
    let adapter = PeftAdapter::from_files(files.without_base())?;
    let config = adapter.config();
    if config.fan_in_fan_out {
        return Err(refuse(
            "fan_in_fan_out",
            "MLX names and stores such layers otherwise",
        ));
    }
    let modules = adapter.module_paths();
    let scale = most_common(modules.filter_map(|module| adapter.scaling_for(module)));
    let rank = adapter
        .module_paths()
        .filter_map(|module| adapter.rank_for(module));
    let rank = rank.max().unwrap_or(config.r);
    let mut tensors = BTreeMap::new();
    let mut left: BTreeSet<&str> = adapter.tensors().keys().map(String::as_str).collect();
    for module in adapter.module_paths() {
        let Some(pair) = adapter.pair(module) else {
            continue;
        };
        if module.starts_with("transformer.") {
            return Err(refuse(
                module,
                "MLX calls the modules of such models otherwise",
            ));
        }
        left.remove(&*PeftAdapter::a_name(module));
        left.remove(&*PeftAdapter::b_name(module));
        let factor = pair.numbers.scaling / scale;
        let (d_in, d_out, own) = (pair.a.shape[1], pair.b.shape[0], pair.numbers.rank);
        let a = filled([d_in, rank], |row, column| match column < own {
            true => pair.a.data[column * d_in + row],
            false => 0.0,
        });
        let b = filled([rank, d_out], |row, column| match row < own {
            true => scaled(pair.b.data[column * own + row], factor),
            false => 0.0,
        });
        tensors.insert(format!("{module}{A}"), a);
        tensors.insert(format!("{module}{B}"), b);
        let magnitude = format!("{module}.lora_magnitude_vector");
        if let Some(lengths) = adapter.tensors().get(&magnitude) {
            left.remove(&*magnitude);
            tensors.insert(format!("{module}{MAGNITUDE}"), lengths.clone());
        }
    }
    if let Some(name) = left.first() {
        return Err(refuse(name, "it is no factor of a linear layer"));
    }
    Ok(MlxAdapter {
        is_dora: config.use_dora,
        rank,
        scale,
        dropout: config.lora_dropout,
        model: config.base_model_name_or_path.clone(),
        tensors,
    })
}

/// Makes an adapter of PEFT of one of MLX.
///
/// # Errors
///
/// [`MlxError::NoPlace`] for what is no pair of factors, and those of [`PeftAdapter::new`].
pub fn to_peft(adapter: &MlxAdapter) -> Result<PeftAdapter, MlxError> {
    let refuse = |name: &str, reason| MlxError::NoPlace {
        name: name.to_owned(),
        format: "PEFT",
        reason,
    };
    let mut tensors = BTreeMap::new();
    let mut modules = BTreeSet::new();
    for (name, tensor) in &adapter.tensors {
        let is_matrix = tensor.shape.len() == 2;
        let (module, own) = if let Some(module) = name.strip_suffix(A).filter(|_| is_matrix) {
            (module, PeftAdapter::a_name(module))
        } else if let Some(module) = name.strip_suffix(B).filter(|_| is_matrix) {
            (module, PeftAdapter::b_name(module))
        } else if let Some(module) = name.strip_suffix(MAGNITUDE).filter(|_| adapter.is_dora) {
            let name = format!("{module}.lora_magnitude_vector");
            tensors.insert(name, tensor.clone());
            continue;
        } else {
            return Err(refuse(name, "it is no factor of LoRA"));
        };
        modules.insert(module);
        let (rows, columns) = (tensor.shape[1], tensor.shape[0]);
        let value = |row: usize, column: usize| tensor.data[column * rows + row];
        tensors.insert(own, filled([rows, columns], value));
    }
    let config = LoraAdapterConfig {
        r: adapter.rank,
        lora_alpha: adapter.scale * adapter.rank as f64,
        lora_dropout: adapter.dropout,
        use_dora: adapter.is_dora,
        target_modules: Some(TargetModules::Names(targets(&modules))),
        base_model_name_or_path: adapter.model.clone(),
        task_type: Some("CAUSAL_LM".to_owned()),
        ..LoraAdapterConfig::default()
    };
    Ok(PeftAdapter::new(config, tensors)?)
}

/// The names of the modules: the last parts alone where each is in every layer up to the last one that has any, else whole paths, since
/// MLX adapts the last layers of a model if it is told so.
fn targets(modules: &BTreeSet<&str>) -> Vec<String> {
    let last = |module: &str| module.rsplit('.').next().unwrap_or(module).to_owned();
    let layer = |module: &str| {
        module
            .split('.')
            .find_map(|part| part.parse::<usize>().ok())
    };
    let names: BTreeSet<String> = modules.iter().map(|module| last(module)).collect();
    let layers: BTreeSet<Option<usize>> = modules.iter().map(|module| layer(module)).collect();
    let all = layers.iter().copied().eq((0..layers.len()).map(Some));
    match all && modules.len() == names.len() * layers.len() {
        true => names.into_iter().collect(),
        false => modules.iter().map(|module| (*module).to_owned()).collect(),
    }
}

fn scaled(value: f32, factor: f64) -> f32 {
    (f64::from(value) * factor) as f32
}

/// Makes a matrix of what is at each place.
fn filled(shape: [usize; 2], value: impl Fn(usize, usize) -> f32) -> Tensor {
    let [rows, columns] = shape;
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    Tensor {
        shape: shape.to_vec(),
        data: places.map(|(row, column)| value(row, column)).collect(),
    }
}
