//! What the program knows about a method.

use std::sync::Arc;

use burn::module::Module;

use super::{AfterStep, MethodConfig, MethodError, PeftFormat, Result};
use crate::schema::{Chosen, SchemaError, SettingSpec, Settings};

/// What the program knows about a method: its line in [`Methods`].
#[derive(Debug)]
pub struct MethodSpec {
    /// The name in a run file.
    pub kind: &'static str,
    /// Other names that a run file may use.
    pub aliases: &'static [&'static str],
    /// One line that says what it is.
    pub summary: &'static str,
    /// The effective weight.
    pub formula: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// What a run file's `[method]` section may say.
    pub settings: &'static [SettingSpec],
    /// The tensors it trains or keeps, and their names in gradients, states and files.
    pub tensors: &'static [TensorSpec],
    /// What the stored weight is called where the method trains it in place of the base.
    pub base_name: Option<&'static str>,
    /// Whether the effective weight can be stored in place of the base.
    pub mergeable: bool,
    /// Whether it has a plan for every layer, and so runs over packed weights.
    pub runs_packed: bool,
    /// Whether it may be put over another method.
    pub goes_over_others: bool,
    /// The adapter file of PEFT, if PEFT has the method.
    pub peft: Option<PeftFormat>,
    /// Advances what it keeps but does not train, once after each step of the optimizer.
    pub after_step: Option<AfterStep>,
    /// Makes it from settings.
    pub build: Build,
}

impl MethodSpec {
    /// What a method has that says nothing of it: no names, settings or tensors, a weight that can be merged, and no plan.
    pub const DEFAULT: Self = Self {
        kind: "",
        aliases: &[],
        summary: "",
        formula: "",
        source: "",
        settings: &[],
        tensors: &[],
        base_name: None,
        mergeable: true,
        runs_packed: false,
        goes_over_others: false,
        peft: None,
        after_step: None,
        build: |settings, _| {
            Err(MethodError::Schema(SchemaError::UnknownKind {
                what: "method",
                kind: settings.kind().to_owned(),
                known: Vec::new(),
            }))
        },
    };
}

/// Makes a method from checked settings.
pub type Build = fn(&Settings, &BuildContext) -> Result<Arc<dyn MethodConfig>>;

/// A tensor of a method.
#[derive(Debug)]
pub struct TensorSpec {
    /// The name beside the layer, or at the root of the model. `#` stands for a number.
    pub name: &'static str,
    /// What it is, with its shape.
    pub meaning: &'static str,
    /// Whether the optimizer moves it.
    pub is_trained: bool,
}

impl TensorSpec {
    /// Returns a trained tensor with what it is.
    pub const fn new(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            meaning,
            is_trained: true,
        }
    }

    /// Says that it is kept and not trained.
    pub const fn frozen(self) -> Self {
        Self {
            is_trained: false,
            ..self
        }
    }
}

/// What building a method may need to know of the rest of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildContext {
    /// The planned number of steps, `T`.
    pub total_steps: u64,
}

/// The methods that there are: the built-in ones, and those that a caller adds.
#[derive(Debug, Clone)]
pub struct Methods {
    specs: Vec<&'static MethodSpec>,
}

impl Default for Methods {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Methods {
    /// Returns the built-in methods.
    pub fn builtin() -> Self {
        Self {
            specs: vec![
                &super::lora::SPEC,
                &super::dora::SPEC,
                &super::vera::SPEC,
                &super::ia3::SPEC,
                &super::full::SPEC,
                &super::scale::SPEC,
                &super::weight_norm::SPEC,
                &super::sigma_reparam::SPEC,
                &super::overparameterized::SPEC,
            ],
        }
    }

    /// Adds a method; it takes the place of one of the same kind.
    pub fn with(mut self, spec: &'static MethodSpec) -> Self {
        match self.specs.iter_mut().find(|known| known.kind == spec.kind) {
            Some(known) => *known = spec,
            None => self.specs.push(spec),
        }
        self
    }

    /// Iterates over all methods.
    pub fn iter(&self) -> impl Iterator<Item = &'static MethodSpec> + '_ {
        self.specs.iter().copied()
    }

    /// Returns a method by its name.
    pub fn get(&self, kind: &str) -> Option<&'static MethodSpec> {
        self.iter()
            .find(|spec| spec.kind == kind || spec.aliases.contains(&kind))
    }

    /// Makes a method from its name and settings.
    ///
    /// # Errors
    ///
    /// Fails when there is no such method or setting, or a value is of the wrong kind or out of its range.
    pub fn build(&self, chosen: &Chosen, context: &BuildContext) -> Result<Arc<dyn MethodConfig>> {
        let spec = self
            .get(&chosen.kind)
            .ok_or_else(|| SchemaError::UnknownKind {
                what: "method",
                kind: chosen.kind.clone(),
                known: self.iter().map(|spec| spec.kind).collect(),
            })?;
        let settings = Settings::new(spec.kind, spec.settings, &chosen.settings)?;
        (spec.build)(&settings, context)
    }
}

/// [`Methods::after_step`] of the built-in methods.
pub fn after_step<M: Module>(model: M) -> M {
    Methods::builtin().after_step(model)
}
