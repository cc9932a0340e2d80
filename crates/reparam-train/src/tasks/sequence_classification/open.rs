//! Opening a classifier: of a checkpoint with or without a head, and with an adapter.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use reparam_data::TextTokenizer;
use reparam_data::rows::{LabelKind, Labels};
use reparam_formats::hub::HubOptions;
use reparam_formats::peft::AdapterFiles;
use reparam_models::{Architecture, NewHead, Precision, SequenceClassifier};

use super::SequenceClassification;
use super::card::Card;
use crate::adapter::attach;
use crate::cards::{self, CARD_FILE};
use crate::config::Precision as Wanted;
use crate::model_files::ModelFiles;
use crate::open::OpenedModel;
use crate::session::{load_adapter, misfit};
use crate::task::{DataRequest, ModelRequest, Task};
use crate::{Result, TrainError};

/// A checkpoint before it is loaded, with its tokenizer.
pub(super) struct Base {
    pub(super) files: Arc<ModelFiles>,
    pub(super) card: Card,
    pub(super) tokenizer: TextTokenizer,
    architecture: Architecture,
}

impl Base {
    /// Finds and checks a checkpoint; `dropout` is another than it says.
    pub(super) fn open(
        request: &ModelRequest,
        hub: &HubOptions,
        dropout: Option<f64>,
    ) -> Result<Self> {
        let opened = OpenedModel::open(&request.model, hub, &request.catalog, dropout)?;
        let json = &opened.files.json().json;
        Ok(Self {
            card: Card::of_model(json.path(), json.map())?,
            files: Arc::new(opened.files),
            tokenizer: opened.tokenizer,
            architecture: opened.architecture,
        })
    }

    /// The labels of the head that the checkpoint has; `None` if it has none.
    pub(super) fn labels(&self) -> Result<Option<Labels>> {
        let Some(head) = &self.architecture.classifier else {
            return Ok(None);
        };
        let weight = format!("{}.weight", head.path);
        let found = self.files.weights().get(&weight);
        let Some(n_classes) = found.and_then(|weight| weight.shape.first().copied()) else {
            return Ok(None);
        };
        let names = named(&self.card, self.files.json().json.path(), n_classes)?;
        Ok(Some(Labels::new(names, self.card.kind())?))
    }

    /// The labels of the head that an adapter brings, else of the checkpoint's; `None` if neither has one.
    pub(super) fn labels_with(
        &self,
        adapter: Option<(&Path, &AdapterFiles)>,
    ) -> Result<Option<Labels>> {
        let n_classes = self.classes_of(adapter.map(|(_, files)| files));
        let (Some((directory, _)), Some(n_classes)) = (adapter, n_classes) else {
            return self.labels();
        };
        let own = card_of(directory)?;
        let card = own.as_ref().unwrap_or(&self.card);
        let names = match &own {
            Some(own) => named(own, &directory.join(CARD_FILE), n_classes)?,
            // The labels of another head say nothing of this one.
            None if card.labels.len() != n_classes => numbered(n_classes),
            None => card.labels.clone(),
        };
        Ok(Some(Labels::new(names, card.kind())?))
    }

    /// The classes of the head that an adapter brings.
    fn classes_of(&self, adapter: Option<&AdapterFiles>) -> Option<usize> {
        let head = self.architecture.classifier.as_ref()?;
        let weight = adapter?.tensors.get(&format!("{}.weight", head.path))?;
        weight.shape.first().copied()
    }

    /// The most tokens of a row: `wanted`, or what the model has positions for.
    pub(super) fn length(&self, wanted: usize) -> usize {
        wanted.min(self.architecture.max_tokens().unwrap_or(usize::MAX))
    }

    /// Checks that the model has all types that its tokenizer gives to tokens.
    pub(super) fn check_types(&self, largest: u32) -> Result<()> {
        match &self.architecture.embedding.token_types {
            Some(table) if largest as usize >= table.rows => Err(TrainError::TokenType {
                found: largest,
                rows: table.rows,
            }),
            _ => Ok(()),
        }
    }

    /// Loads the model with a head of `n_classes`; a new one is made from `seed` if the checkpoint has none.
    pub(super) fn load(
        &self,
        n_classes: usize,
        new_head: Option<NewHead>,
        precision: Precision,
    ) -> Result<SequenceClassifier> {
        let (device, architecture) = (Device::flex(), self.architecture.clone());
        let place = (&device, precision);
        let weights = self.files.weights();
        SequenceClassifier::load(weights, architecture, n_classes, new_head, place)
            .map_err(|error| misfit(error, self.files.json()))
    }
}

/// Names for classes: those of a card, if it has some, else those that transformers gives. `path` is where the card is.
fn named(card: &Card, path: &Path, n_classes: usize) -> Result<Vec<String>> {
    let n_labels = card.labels.len();
    if n_labels == n_classes {
        return Ok(card.labels.clone());
    }
    if n_labels > 0 {
        return Err(TrainError::LabelCount {
            path: path.to_owned(),
            n_labels,
            n_classes,
        });
    }
    Ok(numbered(n_classes))
}

fn numbered(n_classes: usize) -> Vec<String> {
    let classes = 0..n_classes;
    classes.map(|index| format!("LABEL_{index}")).collect()
}

/// What the run of an adapter says of it.
fn card_of(adapter: &Path) -> Result<Option<Card>> {
    cards::of_adapter(adapter, SequenceClassification::NAME)
}

/// A classifier that is only asked.
pub(super) struct Opened {
    pub(super) base: Base,
    pub(super) model: SequenceClassifier,
    pub(super) labels: Labels,
    /// Of the adapter's run, else of the model's.
    pub(super) card: Card,
    /// Where the card is.
    card_path: PathBuf,
}

impl Opened {
    pub(super) fn open(request: &ModelRequest, hub: &HubOptions) -> Result<Self> {
        let precision = precision(request.precision);
        let base = Base::open(request, hub, None)?;
        let directory = request.adapter.as_deref();
        let files = match directory {
            Some(directory) => Some(load_adapter(directory)?),
            None => None,
        };
        let adapter = directory.zip(files.as_ref());
        let of_adapter = base.classes_of(files.as_ref());
        let labels = match base.labels_with(adapter)? {
            Some(labels) => labels,
            None => Labels::new(numbered(2), LabelKind::One)?,
        };
        // The values of a head that the adapter brings take the place of the new one's.
        let new_head = of_adapter.map(|_| NewHead { seed: 0 });
        let mut model = base.load(labels.len(), new_head, precision)?;
        if let Some(files) = files {
            let methods = &request.catalog.methods;
            model = attach(model, files, &base.files, methods)?.0.no_grad();
        }
        let own = directory
            .map(|directory| card_of(directory).map(|card| (directory, card)))
            .transpose()?;
        let (card_path, card) = match own {
            Some((directory, Some(card))) => (directory.join(CARD_FILE), card),
            _ => (base.files.json().json.path().to_owned(), base.card.clone()),
        };
        Ok(Self {
            base,
            model,
            labels,
            card,
            card_path,
        })
    }

    /// Where it is said how data are read, if the card says it and nothing else was asked for, and the options that say otherwise.
    pub(super) fn remembered(&self, data: &DataRequest) -> Option<(&Path, &'static str)> {
        let is_asked = self.card.is_asked(data);
        is_asked.then_some((&self.card_path, "--format or --fields"))
    }
}

/// What a classifier computes in: f32, unless something else is asked for.
pub(super) fn precision(wanted: Wanted) -> Precision {
    wanted.resolve(false)
}
