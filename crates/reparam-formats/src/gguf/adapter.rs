//! LoRA adapters by themselves, which llama.cpp applies to a model at run time.

use std::path::Path;

use super::model::text;
use super::write::{TensorEntry, write};
use super::{GgufDtype, GgufError, GgufModel, GgufValue, Layout, Source};
use crate::peft::{AdapterFiles, PeftAdapter, most_common};

/// How an adapter is written.
#[derive(Debug, Clone, Copy)]
pub struct AdapterOptions {
    /// The type of the factors.
    pub dtype: GgufDtype,
}

/// A factor to be written.
struct Factor {
    entry: TensorEntry,
    values: Vec<f64>,
}

/// Writes a LoRA adapter of a model, replacing an older file in one step.
///
/// llama.cpp multiplies `B A` of every module by `adapter.lora.alpha` divided by that module's rank, and knows neither rank-stabilized
/// LoRA nor an alpha of a module's own. So the alpha in the file is the one that is right for most modules, and `B` of the others
/// is scaled, in f64 with one rounding: `s B A` is the same for all.
///
/// # Errors
///
/// [`GgufError::NoPlace`] for anything but LoRA on linear layers that the model has in the file, [`GgufError::AdapterDtype`],
/// those of [`PeftAdapter::from_files`] and of the file system.
pub fn write_adapter(
    path: &Path,
    files: AdapterFiles,
    base: &GgufModel,
    options: AdapterOptions,
) -> Result<(), GgufError> {
    if options.dtype == GgufDtype::Q8_0 {
        let dtype = options.dtype;
        return Err(GgufError::AdapterDtype { dtype });
    }
    let adapter = lora_only(files)?;
    let alpha = common_alpha(&adapter);
    let mut factors = Vec::new();
    for module in adapter.module_paths() {
        let Some(pair) = adapter.pair(module) else {
            continue;
        };
        let (name, layout) = place_of(module, base)?;
        let rank = pair.numbers.rank;
        // llama.cpp multiplies by this.
        let theirs = alpha / rank as f64;
        let factor = pair.numbers.scaling / theirs;
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let rows = pair.b.shape[0];
        let b = wide(&pair.b.data);
        let b: Vec<f64> = (0..rows)
            .flat_map(|place| {
                let row = layout.row(place, rows);
                b[row * rank..(row + 1) * rank]
                    .iter()
                    .map(|value| value * factor)
            })
            .collect();
        let mut add = |suffix: &str, shape: &[usize], values: Vec<f64>| {
            let entry = TensorEntry {
                name: format!("{name}.{suffix}"),
                shape: shape.to_vec(),
                dtype: options.dtype,
            };
            factors.push(Factor { entry, values });
        };
        add("lora_a", &pair.a.shape, wide(&pair.a.data));
        add("lora_b", &pair.b.shape, b);
    }
    let metadata = [
        text("general.architecture", &base.architecture),
        text("general.type", "adapter"),
        text("adapter.type", "lora"),
        (
            "adapter.lora.alpha".to_owned(),
            GgufValue::F32(alpha as f32),
        ),
        (
            "general.file_type".to_owned(),
            GgufValue::U32(options.dtype.file_type()),
        ),
    ];
    let (entries, values): (Vec<_>, Vec<_>) = factors
        .into_iter()
        .map(|factor| (factor.entry, factor.values))
        .unzip();
    let mut values = values.iter();
    write(path, &metadata, &entries, |_, take| {
        values.next().map_or(Ok(()), |values| take(values))
    })
    .map(drop)
}

/// Checks that an adapter has nothing but factors of linear layers.
fn lora_only(files: AdapterFiles) -> Result<PeftAdapter, GgufError> {
    let refuse = |name: &str, reason: &str| GgufError::NoPlace {
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    let kind = files.peft_type()?;
    if kind != "LORA" {
        return Err(refuse(
            kind,
            "an adapter of this type is no pair of factors",
        ));
    }
    let adapter = PeftAdapter::from_files(files.without_base())?;
    if adapter.config().use_dora {
        return Err(refuse(
            "use_dora",
            "DoRA has lengths of rows besides the factors",
        ));
    }
    let factors: Vec<String> = adapter
        .module_paths()
        .flat_map(|module| [PeftAdapter::a_name(module), PeftAdapter::b_name(module)])
        .collect();
    match adapter
        .tensors()
        .keys()
        .find(|name| !factors.contains(name))
    {
        None => Ok(adapter),
        Some(name) => Err(refuse(name, "it is no factor of a linear layer")),
    }
}

/// Returns the alpha that gives the most modules their scaling without a change of `B`.
fn common_alpha(adapter: &PeftAdapter) -> f64 {
    let modules = adapter.module_paths();
    let pairs = modules.filter_map(|module| adapter.pair(module));
    // What llama.cpp divides by the rank.
    let alphas = pairs.map(|pair| pair.numbers.scaling * pair.numbers.rank as f64);
    // As it is in the file, so that what is divided by is what llama.cpp multiplies by.
    f64::from(most_common(alphas) as f32)
}

/// Returns what the file calls the weight of a module, and how its rows are laid out.
fn place_of<'a>(module: &str, base: &'a GgufModel) -> Result<(&'a str, Layout), GgufError> {
    let wanted = format!("{module}.weight");
    let found = base.weights.iter().find_map(|weight| match &weight.source {
        Source::Stored { name, layout, .. } if *name == wanted => Some((&*weight.name, *layout)),
        _ => None,
    });
    found.ok_or_else(|| GgufError::NoPlace {
        name: module.to_owned(),
        reason: "the base has no such tensor of its own in GGUF".to_owned(),
    })
}
