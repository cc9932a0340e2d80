//! A method that the library does not know: all layers share one trained matrix.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::tensor::Tensor;
use reparam::methods::{
    AdapterMeta, Layer, LinearModule, Method, MethodConfig, MethodError, MethodSpec, NewTensor,
    PeftFormat, Place, Selection, Start, TARGET_MODULES, TensorSpec, Theta,
};
use reparam::schema::{Range, TargetModules, number};
use serde_json::{Map, Value, json};

/// `W = W0 + s (1 - 2^-n) C` after `n - 1` steps: what all layers share is learned, what each counts is not.
pub(crate) static SPEC: MethodSpec = MethodSpec {
    kind: "common_offset",
    aliases: &["offset"],
    summary: "One matrix is added to all weights, more of it at each step",
    formula: "W = W0 + s (1 - 2^-n) C",
    source: "this test",
    settings: &[
        number("strength", Range::Positive, 1.0, "s"),
        TARGET_MODULES,
    ],
    tensors: &[
        TensorSpec::new(OFFSET, "C, of the weights' shape, of the whole model"),
        TensorSpec::new(COUNT, "n, one number a layer").frozen(),
    ],
    peft: Some(PeftFormat {
        peft_type: "COMMON_OFFSET",
        is_own: |_| true,
        read: |files| {
            let suffix = format!(".{COUNT}");
            let names = files.tensors.keys();
            let layers: BTreeSet<String> = names
                .filter_map(|name| Some(name.strip_suffix(&suffix)?.to_owned()))
                .collect();
            Ok(Arc::new(CommonOffset {
                strength: files.config.f64("strength")?.unwrap_or(1.0),
                selection: Selection::default()
                    .with_target_modules(TargetModules::Names(layers.into_iter().collect())),
            }))
        },
        check: |_| Ok(()),
    }),
    after_step: Some(|_, state| vec![(COUNT, state[COUNT].clone() + 1.0)]),
    build: |settings, _| {
        Ok(Arc::new(CommonOffset {
            strength: settings.number("strength")?,
            selection: Selection::from_settings(settings)?,
        }))
    },
    ..MethodSpec::DEFAULT
};

pub(crate) const OFFSET: &str = "common_offset";
pub(crate) const COUNT: &str = "offset_count";

#[derive(Debug, Clone)]
struct CommonOffset {
    strength: f64,
    selection: Selection,
}

impl MethodConfig for CommonOffset {
    fn spec(&self) -> &'static MethodSpec {
        &SPEC
    }

    fn selection(&self) -> &Selection {
        &self.selection
    }

    fn with_selection(&self, selection: Selection) -> Arc<dyn MethodConfig> {
        Arc::new(Self {
            selection,
            ..self.clone()
        })
    }

    fn check(&self, layers: &[&LinearModule]) -> Result<(), MethodError> {
        match layers.iter().find(|layer| layer.shape != layers[0].shape) {
            None => Ok(()),
            Some(other) => Err(MethodError::Setting {
                setting: "target_modules",
                expected: "layers of one shape",
                found: format!("{:?} and {:?}", layers[0].shape, other.shape),
            }),
        }
    }

    fn shared(
        &self,
        layers: &[&LinearModule],
        place: &Place<'_>,
    ) -> Result<Vec<NewTensor>, MethodError> {
        let (d_out, d_in) = layers[0].dims(self.selection.weight_layout);
        let offset = place.tensor(vec![0.0; d_out * d_in], [d_out, d_in]);
        Ok(vec![NewTensor::matrix(OFFSET, offset)])
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start, MethodError> {
        let count = NewTensor::vector(COUNT, layer.place.tensor(vec![1.0], [1]));
        let method = OnLayer {
            strength: self.strength,
        };
        Ok(Start::new(method).with(count.frozen()))
    }

    fn peft_config(&self, meta: &AdapterMeta) -> Option<Map<String, Value>> {
        Some(Map::from_iter([
            ("peft_type".to_owned(), json!("COMMON_OFFSET")),
            ("task_type".to_owned(), json!(meta.task_type)),
            (
                "base_model_name_or_path".to_owned(),
                json!(meta.base_model_name_or_path),
            ),
            ("strength".to_owned(), json!(self.strength)),
        ]))
    }
}

#[derive(Debug)]
struct OnLayer {
    strength: f64,
}

impl Method for OnLayer {
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let missing = (theta.vector(COUNT) * -std::f64::consts::LN_2).exp();
        let share = (-missing + 1.0).unsqueeze::<2>() * self.strength;
        base + theta.matrix(OFFSET) * share
    }
}
