//! Rotary positions, as llama.cpp reads them.

use reparam_formats::config::{RopeScaling, YarnScaling};
use reparam_formats::gguf::{GgufValue, GgufWeight, Source};

use super::{GgufFamily, GgufFrequencies, GgufWindows, number};
use crate::Architecture;
use crate::architecture::RotarySpec;

#[derive(Default)]
pub(super) struct Rotary {
    pub(super) settings: Vec<(&'static str, GgufValue)>,
    pub(super) weights: Vec<GgufWeight>,
    pub(super) notes: Vec<String>,
}

/// Returns what says how queries and keys are rotated; an error is the reason why the model is refused. `sliding` are the layers with
/// a window.
pub(super) fn settings(
    family: &GgufFamily,
    architecture: &Architecture,
    sliding: Option<&[bool]>,
) -> Result<Rotary, String> {
    let mut kinds = architecture.rotary.iter();
    let Some(full) = kinds.next() else {
        return Ok(Rotary::default());
    };
    let mut kinds_alike = architecture.rotary.iter();
    if !kinds_alike.all(|kind| kind.interleaved == full.interleaved)
        || (full.interleaved && !family.rotates_neighbours)
    {
        return Err("it rotates neighbours".to_owned());
    }
    let mut rotary = Rotary::default();
    let turned = 2 * full.inverse_frequencies.len();
    let count = |number: usize| GgufValue::U32(u32::try_from(number).unwrap_or(u32::MAX));
    rotary.settings.extend([
        ("rope.dimension_count", count(turned)),
        ("rope.freq_base", number(full.theta)),
    ]);
    rotary.scaling(family, full, architecture.max_positions)?;
    match (kinds.next(), kinds.next()) {
        (None, _) => {}
        (Some(own), None) => {
            let of_own = |layer: usize| architecture.blocks[layer].attention.rotary == Some(1);
            let mut layers = sliding.unwrap_or_default().iter().enumerate();
            if layers.any(|(layer, slides)| *slides != of_own(layer)) {
                return Err("layers with and without a window share rotary positions".to_owned());
            }
            let has_own = matches!(
                family.windows,
                GgufWindows::Groups {
                    own_theta: true,
                    ..
                }
            );
            if !has_own && own.theta != full.theta {
                return Err("layers with a window have another base of rotary positions".to_owned());
            }
            if has_own && matches!(full.scaling, RopeScaling::Yarn(_)) {
                return Err("YaRN would stretch layers with a window, too".to_owned());
            }
            if own.scaling != RopeScaling::Default {
                return Err("the rotary positions of layers with a window are stretched".to_owned());
            }
            rotary
                .settings
                .push(("rope.freq_base_swa", number(own.theta)));
        }
        _ => return Err("it has more than two kinds of rotary positions".to_owned()),
    }
    Ok(rotary)
}

impl Rotary {
    fn scaling(
        &mut self,
        family: &GgufFamily,
        full: &RotarySpec,
        max_positions: usize,
    ) -> Result<(), String> {
        let text = |text: &str| GgufValue::Text(text.to_owned());
        let count = |number: usize| GgufValue::U32(u32::try_from(number).unwrap_or(u32::MAX));
        match &full.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } => self.settings.extend([
                ("rope.scaling.type", text("linear")),
                ("rope.scaling.factor", number(*factor)),
            ]),
            RopeScaling::Yarn(yarn) => {
                if !is_theirs(yarn) {
                    return Err("YaRN has other settings than llama.cpp's".to_owned());
                }
                self.settings.extend([
                    ("rope.scaling.type", text("yarn")),
                    ("rope.scaling.factor", number(yarn.factor)),
                    (
                        "rope.scaling.original_context_length",
                        count(yarn.original_max_position_embeddings),
                    ),
                ]);
            }
            RopeScaling::Llama3 { .. } if family.frequencies == GgufFrequencies::Factors => {
                let factors = factors(full, &full.inverse_frequencies);
                self.put("rope_freqs.weight", factors);
            }
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                attention_factor,
                original_max_position_embeddings,
            } if family.frequencies == GgufFrequencies::ShortAndLong => {
                let narrow = |all: &[f64]| all.iter().map(|factor| *factor as f32).collect();
                self.put("rope_factors_long.weight", narrow(long_factor));
                self.put("rope_factors_short.weight", narrow(short_factor));
                self.settings.extend([
                    ("rope.scaling.attn_factor", number(*attention_factor)),
                    (
                        "rope.scaling.original_context_length",
                        count(*original_max_position_embeddings),
                    ),
                ]);
                if max_positions > *original_max_position_embeddings {
                    self.notes.push(format!(
                        "llama.cpp takes the frequencies of long sequences for all once its context is longer than {original_max_position_embeddings} \
                         tokens, not once a sequence is"
                    ));
                }
            }
            RopeScaling::Dynamic { .. } => {
                return Err(
                    "its rotary positions change with the length of the sequence".to_owned(),
                );
            }
            RopeScaling::Llama3 { .. } | RopeScaling::LongRope { .. } => {
                return Err("llama.cpp does not stretch its rotary positions so".to_owned());
            }
        }
        Ok(())
    }

    fn put(&mut self, name: &str, values: Vec<f32>) {
        self.weights.push(GgufWeight {
            name: name.to_owned(),
            source: Source::Given(values),
        });
    }
}

/// Whether YaRN is as llama.cpp has it by default, which no file changes.
fn is_theirs(yarn: &YarnScaling) -> bool {
    let attention = 1.0 + 0.1 * yarn.factor.ln();
    yarn.beta_fast == 32.0
        && yarn.beta_slow == 1.0
        && yarn.truncate
        && (yarn.attention_factor - attention).abs() <= 1e-6 * attention
}

/// What frequencies of a base are divided by to get others.
fn factors(rotary: &RotarySpec, frequencies: &[f32]) -> Vec<f32> {
    let turned = (2 * frequencies.len()) as f64;
    let pairs = frequencies.iter().enumerate();
    pairs
        .map(|(pair, frequency)| {
            let base = rotary.theta.powf(-2.0 * pair as f64 / turned);
            (base / f64::from(*frequency)) as f32
        })
        .collect()
}
