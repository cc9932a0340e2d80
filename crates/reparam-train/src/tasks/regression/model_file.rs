//! A trained regression on disk.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use reparam::{ForwardContext, Linear, parameters};
use reparam_data::tabular::{Notation, Standardizer, Table};
use reparam_formats::atomic::AtomicDirectory;
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::safetensors::{TensorData as Data, TensorToWrite, write_safetensors};
use reparam_formats::{FormatError, file};
use serde::{Deserialize, Serialize};

use super::network::{Network, tensor, values};
use crate::config::Activation;
use crate::json::{read_json, text_of};
use crate::run_dir::model_of;
use crate::{Result, TrainError};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
pub(super) const MODEL_TYPE: &str = "reparam-regression";

/// What `config.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    model_type: String,
    /// The activation's word; linear models have none.
    activation: Option<String>,
    /// The columns that it predicts from, in the order of the first weight's columns.
    features: Vec<String>,
    /// The column that is predicted.
    target: String,
    /// How the numbers of the table are written that it was trained on.
    #[serde(default, skip_serializing_if = "Notation::is_plain")]
    notation: Notation,
}

/// A trained regression: it predicts in the columns' own units.
///
/// On disk it is a directory with `config.json` (names, activation, and how numbers are written unless plainly) and `model.safetensors`, in `f64`: for
/// each layer `layers.<n>.weight` `[d_out, d_in]` and `layers.<n>.bias`, the effective ones; and what the
/// columns were standardized by, `standardization.feature_mean`, `.feature_scale`, `.target_mean`,
/// `.target_scale`.
#[derive(Debug)]
pub struct RegressionModel {
    network: Network,
    activation: Activation,
    features: Vec<String>,
    target: String,
    standardizer: Standardizer,
    notation: Notation,
}

impl RegressionModel {
    pub(super) fn new(
        network: Network,
        activation: Activation,
        table: &Table,
        standardizer: Standardizer,
    ) -> Self {
        Self {
            network: network.materialize(),
            activation,
            features: table.features.clone(),
            target: table.target.clone(),
            standardizer,
            notation: table.notation,
        }
    }

    /// Returns whether a directory holds the model of a regression.
    pub(crate) fn is_at(directory: &Path) -> bool {
        let json = read_json(&directory.join(CONFIG));
        json.is_some_and(|json| json["model_type"] == MODEL_TYPE)
    }

    pub(crate) fn n_layers(&self) -> usize {
        self.network.layers.len()
    }

    /// Returns the columns that it predicts from.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// Returns the column that is predicted.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns how the numbers of the table are written that it was trained on, and so those of the files to predict from.
    pub fn notation(&self) -> Notation {
        self.notation
    }

    /// Predicts from rows of features, row-major, in the columns' own units.
    ///
    /// # Errors
    ///
    /// Fails when the numbers are not a whole number of rows.
    pub fn predict(&self, x: &[f64]) -> Result<Vec<f64>> {
        let x = self.standardizer.apply_features(x)?;
        let rows = x.len() / self.features.len();
        let x = tensor(&x, [rows, self.features.len()]);
        let y = self
            .network
            .forward(x, self.activation, &ForwardContext::inference());
        Ok(self.standardizer.invert_target(&values(y)))
    }

    /// Returns weights and bias of a linear model, in units of the standardized problem.
    pub(super) fn linear(&self) -> Option<(Vec<f64>, f64)> {
        let [layer] = &self.network.layers[..] else {
            return None;
        };
        let bias = values(layer.bias.as_ref()?.val());
        Some((values(layer.weight.param().val()), *bias.first()?))
    }

    /// Writes the model as a directory, in one step.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let standardizer = &self.standardizer;
        let n = self.features.len();
        let mut tensors: Vec<(String, Vec<usize>, Vec<f64>)> = parameters::effective(&self.network)
            .into_iter()
            .map(|tensor| (tensor.name, tensor.shape, values(tensor.values)))
            .collect();
        let measured: [(&str, Vec<usize>, &[f64]); 4] = [
            ("feature_mean", vec![n], &standardizer.feature_mean),
            ("feature_scale", vec![n], &standardizer.feature_scale),
            ("target_mean", vec![1], &[standardizer.target_mean]),
            ("target_scale", vec![1], &[standardizer.target_scale]),
        ];
        for (name, shape, numbers) in measured {
            tensors.push((format!("standardization.{name}"), shape, numbers.to_vec()));
        }
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, numbers)| numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
            .collect();
        let to_write: Vec<TensorToWrite<'_>> = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), bytes)| TensorToWrite {
                name,
                shape,
                data: Data::Bytes(bytes, Dtype::F64),
            })
            .collect();
        let description = Description {
            model_type: MODEL_TYPE.to_owned(),
            activation: (self.network.layers.len() > 1).then(|| word(self.activation).to_owned()),
            features: self.features.clone(),
            target: self.target.clone(),
            notation: self.notation,
        };
        let target = AtomicDirectory::create(directory)?;
        let config = target.path().join(CONFIG);
        let json = text_of(&config, &description)?;
        std::fs::write(&config, json).map_err(|error| FormatError::io("write", &config, error))?;
        write_safetensors(&target.path().join(WEIGHTS), &to_write, &BTreeMap::new())?;
        Ok(target.commit()?)
    }

    /// Reads what [`save`](Self::save) wrote; the directory of a run will do.
    ///
    /// # Errors
    ///
    /// Fails when there is no such directory, or what is in it is not such a model.
    pub fn load(directory: &Path) -> Result<Self> {
        let directory = model_of(directory.to_owned())?;
        let config = directory.join(CONFIG);
        let invalid = |problem: String| TrainError::NotARegression {
            path: config.clone(),
            problem,
        };
        let text = file::read_text(&config).map_err(|error| match error {
            FormatError::NoSuchFile { .. } => invalid("there is no such file".to_owned()),
            error => error.into(),
        })?;
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        // What another model's file lacks is of no interest.
        match json.get("model_type").and_then(serde_json::Value::as_str) {
            Some(MODEL_TYPE) => {}
            Some(other) => {
                let problem = format!("its model_type is `{other}`, not `{MODEL_TYPE}`");
                return Err(invalid(problem));
            }
            None => return Err(invalid("it has no model_type".to_owned())),
        }
        let description: Description =
            serde_json::from_value(json).map_err(|error| invalid(error.to_string()))?;
        if description.features.is_empty() {
            return Err(invalid("it has no features".to_owned()));
        }
        let activation = match &description.activation {
            None => Activation::Tanh,
            Some(name) => *Activation::ALL
                .iter()
                .find(|(word, _)| word == name)
                .map(|(_, activation)| activation)
                .ok_or_else(|| invalid(format!("there is no activation `{name}`")))?,
        };
        read(&directory.join(WEIGHTS), description, activation)
    }
}

fn word(activation: Activation) -> &'static str {
    let found = Activation::ALL
        .iter()
        .find(|(_, known)| *known == activation);
    found.map_or("", |(word, _)| word)
}

fn read(path: &Path, description: Description, activation: Activation) -> Result<RegressionModel> {
    let file = Checkpoint::open_file(path)?;
    let invalid = |problem: String| TrainError::NotARegression {
        path: path.to_owned(),
        problem,
    };
    let numbers = |name: &str, shape: &[usize]| -> Result<Vec<f64>> {
        let stored = file.expect(name, shape)?;
        if stored.dtype != Dtype::F64 {
            return Err(invalid(format!("`{name}` is {}, not F64", stored.dtype)));
        }
        stored.check_finite()?;
        let bytes = stored.bytes()?;
        let words = bytes.as_chunks::<8>().0.iter();
        Ok(words.map(|word| f64::from_le_bytes(*word)).collect())
    };
    let mut layers = Vec::new();
    let mut width = description.features.len();
    loop {
        let name = format!("layers.{}", layers.len());
        let weight_name = format!("{name}.weight");
        // The first layer has to be there; what follows it is as long as there is a next one.
        if !layers.is_empty() && file.get(&weight_name).is_none() {
            break;
        }
        let shape = file.require(&weight_name)?.shape;
        let d_out = shape.first().copied().unwrap_or(0);
        if d_out == 0 {
            return Err(invalid(format!("`{weight_name}` has no rows")));
        }
        let weight = numbers(&weight_name, &[d_out, width])?;
        let bias = numbers(&format!("{name}.bias"), &[d_out])?;
        let bias = tensor(&bias, [d_out]);
        layers.push(Linear::new(tensor(&weight, [d_out, width]), Some(bias)));
        width = d_out;
    }
    if width != 1 {
        let problem = format!("its last layer has {width} outputs, not 1");
        return Err(invalid(problem));
    }
    let n = description.features.len();
    let measured = |name: &str, len: usize| numbers(&format!("standardization.{name}"), &[len]);
    let scale = |name: &str, len: usize| -> Result<Vec<f64>> {
        let scale = measured(name, len)?;
        if scale.iter().all(|scale| *scale > 0.0) {
            return Ok(scale);
        }
        let problem = format!("`standardization.{name}` is not positive");
        Err(invalid(problem))
    };
    Ok(RegressionModel {
        network: Network { layers },
        activation,
        standardizer: Standardizer {
            feature_mean: measured("feature_mean", n)?,
            feature_scale: scale("feature_scale", n)?,
            target_mean: measured("target_mean", 1)?[0],
            target_scale: scale("target_scale", 1)?[0],
        },
        features: description.features,
        target: description.target,
        notation: description.notation,
    })
}
