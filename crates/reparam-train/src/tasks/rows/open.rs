//! Opening a model with a head: of a checkpoint with or without one, and with an adapter.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use reparam_data::TextTokenizer;
use reparam_data::rows::{LabelKind, Labels};
use reparam_formats::hub::HubOptions;
use reparam_formats::peft::{AdapterFiles, is_inside};
use reparam_models::architecture::PredictorSpec;
use reparam_models::{Architecture, ModelError, NewHead, Precision, Predictor};

use serde_json::Value;

use super::card::Card;
use super::{Item, RowTask, Rules};
use crate::adapter::attach;
use crate::cards::{self, CARD_FILE};
use crate::config::Precision as Wanted;
use crate::model_files::ModelFiles;
use crate::open::OpenedModel;
use crate::session::{load_adapter, misfit};
use crate::task::{DataRequest, ModelRequest};
use crate::{Result, TrainError};

/// A checkpoint before it is loaded, with its tokenizer.
pub(super) struct Base {
    pub(super) files: Arc<ModelFiles>,
    pub(super) card: Card,
    pub(super) tokenizer: TextTokenizer,
    architecture: Architecture,
    /// The head that the task has.
    head: PredictorSpec,
    /// Whether the checkpoint says that it is of another class with a head, whose last layer may be called the same.
    is_of_other: bool,
}

impl Base {
    /// Finds and checks a checkpoint.
    fn open<T: RowTask>(request: &ModelRequest, hub: &HubOptions) -> Result<Self> {
        let opened = OpenedModel::open(&request.model, hub, &request.catalog, None)?;
        Self::of::<T>(opened)
    }

    /// Looks for the head of a checkpoint.
    pub(super) fn of<T: RowTask>(opened: OpenedModel) -> Result<Self> {
        let json = &opened.files.json().json;
        let file = |name: &str| opened.files.bytes(name).map(<[u8]>::to_vec);
        let head = T::head(&opened.architecture, &file)?;
        let head = head.ok_or_else(|| ModelError::NoSuchHead {
            model_type: opened.architecture.model_type.clone(),
            head: T::HEAD,
        })?;
        let classes = json.map().get("architectures").and_then(Value::as_array);
        let classes = classes.into_iter().flatten().filter_map(Value::as_str);
        let is_other = |class: &str| class.contains("For") && !class.ends_with(T::CLASS);
        Ok(Self {
            card: Card::of_model::<T>(json.path(), json.map())?,
            is_of_other: classes.into_iter().any(is_other),
            head,
            files: Arc::new(opened.files),
            tokenizer: opened.tokenizer,
            architecture: opened.architecture,
        })
    }

    /// The labels of the head that the checkpoint has; `None` if it has none.
    fn labels(&self) -> Result<Option<Labels>> {
        let found = self.head_weight();
        let found = found.and_then(|weight| self.files.weights().get(&weight));
        let n_classes = found.and_then(|weight| weight.shape.first().copied());
        let Some(n_classes) = n_classes.filter(|_| !self.is_of_other) else {
            return Ok(None);
        };
        let names = named(&self.card, self.files.json().json.path(), n_classes)?;
        Ok(Some(Labels::new(names, self.card.kind())?))
    }

    /// The labels of the head that an adapter brings, else of the checkpoint's; `None` if neither has one.
    pub(super) fn labels_with<T: RowTask>(
        &self,
        adapter: Option<(&Path, &AdapterFiles)>,
    ) -> Result<Option<Labels>> {
        if !T::HAS_LABELS {
            return Ok(None);
        }
        let n_classes = self.classes_of(adapter.map(|(_, files)| files));
        let (Some((directory, _)), Some(n_classes)) = (adapter, n_classes) else {
            return self.labels();
        };
        let own = card_of::<T>(directory)?;
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
        let weight = adapter?.tensors.get(&self.head_weight()?)?;
        weight.shape.first().copied()
    }

    /// The name of the weight of the head's last layer, if it has one.
    fn head_weight(&self) -> Option<String> {
        let path = self.head.output.as_ref()?;
        Some(format!("{path}.weight"))
    }

    /// The most tokens of a row: `wanted`, or what the model has positions for.
    pub(super) fn length(&self, wanted: usize) -> usize {
        wanted.min(self.architecture.max_tokens().unwrap_or(usize::MAX))
    }

    /// Checks that the model has all types that its tokenizer gives to tokens.
    pub(super) fn check_types<'a, T: RowTask>(
        &self,
        items: impl IntoIterator<Item = &'a Item<T>>,
    ) -> Result<()> {
        let windows = items.into_iter().flat_map(|item| &item.windows);
        self.check_type_ids(windows.flat_map(|window| &window.row.type_ids).copied())
    }

    pub(super) fn check_type_ids(&self, types: impl Iterator<Item = u32>) -> Result<()> {
        let largest = types.max().unwrap_or(0);
        match &self.architecture.embedding.token_types {
            Some(table) if largest as usize >= table.rows => Err(TrainError::TokenType {
                found: largest,
                rows: table.rows,
            }),
            _ => Ok(()),
        }
    }

    /// Loads the model with a head of `n_outputs`; a new one is drawn from `seed`, if there is one, where the checkpoint has none.
    pub(super) fn load(
        &self,
        n_outputs: usize,
        seed: Option<u64>,
        precision: Precision,
    ) -> Result<Predictor> {
        let (device, architecture) = (Device::flex(), self.architecture.clone());
        let stored = self
            .head_weight()
            .and_then(|name| self.files.weights().get(&name));
        let n_stored = stored.and_then(|weight| weight.shape.first().copied());
        // That of another class, or one that an adapter's head of another size takes the place of.
        let replaces = self.is_of_other || n_stored.is_some_and(|n| n != n_outputs);
        let new_head = seed.map(|seed| NewHead { seed, replaces });
        let head = (self.head.clone(), n_outputs);
        let loaded = match new_head {
            None if self.is_of_other && self.head.output.is_some() => Err(ModelError::NoHead {
                path: self.head.output.clone().unwrap_or_default(),
            }),
            _ => {
                let (weights, place) = (self.files.weights(), (&device, precision));
                Predictor::load(weights, architecture, head, new_head, place)
            }
        };
        loaded.map_err(|error| misfit(error, self.files.json()))
    }
}

impl Base {
    /// Checks that no layer of a head stays as it was drawn.
    fn check_saved(&self, model: &Predictor, adapter: &AdapterFiles) -> Result<()> {
        let is_in = |name: &str, module: &String| is_inside(name, std::slice::from_ref(module));
        let is_saved = |module: &String| {
            let mut own = adapter.tensors.keys();
            let mut stored = self.files.weights().names();
            own.any(|name| is_in(name, module))
                || !self.is_of_other && stored.any(|name| is_in(name, module))
        };
        match model.trained.iter().find(|module| !is_saved(module)) {
            None => Ok(()),
            Some(module) => Err(TrainError::HeadNotSaved {
                module: module.clone(),
            }),
        }
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
fn card_of<T: RowTask>(adapter: &Path) -> Result<Option<Card>> {
    cards::of_adapter(adapter, T::NAME)
}

/// What a model is, where it is asked by examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tasks) enum Body {
    /// It, or its adapter, has a head for the task.
    Headed,
    /// It predicts the next token.
    Causal,
    /// It writes targets for sources.
    Seq2seq,
    /// It gives each token a vector that knows all others.
    Encoder,
}

impl Body {
    /// Finds out what a model is, and whether it has the head of a task.
    pub(in crate::tasks) fn of<T: RowTask>(
        request: &ModelRequest,
        hub: &HubOptions,
    ) -> Result<Self> {
        let opened = OpenedModel::open(&request.model, hub, &request.catalog, None)?;
        let architecture = &opened.architecture;
        let body = match (&architecture.seq2seq, architecture.is_causal()) {
            (Some(_), _) => Self::Seq2seq,
            (None, true) => Self::Causal,
            (None, false) => Self::Encoder,
        };
        let file = |name: &str| opened.files.bytes(name).map(<[u8]>::to_vec);
        if T::head(architecture, &file)?.is_none() {
            return Ok(body);
        }
        let base = Base::of::<T>(opened)?;
        let adapter = request.adapter.as_deref().map(load_adapter).transpose()?;
        let is_headed = base.classes_of(adapter.as_ref()).is_some() || base.labels()?.is_some();
        Ok(if is_headed { Self::Headed } else { body })
    }
}

/// A model that is only asked.
pub(super) struct Opened {
    pub(super) base: Base,
    pub(super) model: Predictor,
    pub(super) rules: Rules,
    /// Of the adapter's run, else of the model's.
    pub(super) card: Card,
    /// Where the card is.
    card_path: PathBuf,
}

impl Opened {
    pub(super) fn open<T: RowTask>(request: &ModelRequest, hub: &HubOptions) -> Result<Self> {
        let precision = precision(request.precision);
        let base = Base::open::<T>(request, hub)?;
        let directory = request.adapter.as_deref();
        let files = match directory {
            Some(directory) => Some(load_adapter(directory)?),
            None => None,
        };
        let adapter = directory.zip(files.as_ref());
        let of_adapter = base.classes_of(files.as_ref());
        let labels = match base.labels_with::<T>(adapter)? {
            Some(labels) => labels,
            // Of a task without labels: the two ends of a span.
            None => Labels::new(numbered(2), LabelKind::One)?,
        };
        // The values of a head that the adapter brings take the place of the new one's.
        let seed = of_adapter.map(|_| 0);
        let mut model = base.load(labels.len(), seed, precision)?;
        if let Some(files) = files {
            if of_adapter.is_some() {
                base.check_saved(&model, &files)?;
            }
            let methods = &request.catalog.methods;
            model = attach(model, files, &base.files, methods)?.0.no_grad();
        }
        let own = directory
            .map(|directory| card_of::<T>(directory).map(|card| (directory, card)))
            .transpose()?;
        let (card_path, card) = match own {
            Some((directory, Some(card))) => (directory.join(CARD_FILE), card),
            _ => (base.files.json().json.path().to_owned(), base.card.clone()),
        };
        let settings = card.settings::<T>(&card_path)?;
        Ok(Self {
            base,
            model,
            rules: Rules::new(labels, settings).with_thresholds(&card.thresholds),
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

/// What a model with a head computes in: f32, unless something else is asked for.
pub(super) fn precision(wanted: Wanted) -> Precision {
    wanted.resolve(false)
}
