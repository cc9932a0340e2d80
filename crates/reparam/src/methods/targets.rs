//! Which layers of a model a method is attached to, and which biases go along.

use std::collections::BTreeSet;

use burn::module::{Module, ParamId};
use reparam_formats::peft::{
    LayerIndices, LoraAdapterConfig, ModuleMatcher, TargetModules, is_inside, target_matches,
};

use super::Result;
use super::target_parameters::ExpertParameter;
use crate::schema::{SchemaError, SettingKind, SettingSpec, Settings, optional, word};
use crate::walk::{Entry, Part, beside, walk};

/// In which order a layer stores its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightLayout {
    /// `[d_out, d_in]`: PyTorch, the checkpoints, [`crate::Linear`].
    #[default]
    OutIn,
    /// `[d_in, d_out]`: Burn's `nn::Linear`.
    InOut,
}

/// Which biases are also trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Biases {
    /// None.
    #[default]
    None,
    /// All of the model's.
    All,
    /// Those of the layers that the method is attached to.
    Targets,
}

impl Biases {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::All => "all",
            Self::Targets => "lora_only",
        }
    }
}

/// Which linear layers a method is attached to, by PEFT's rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Whether everything is trained, in whatever layer it is: embeddings, norms, heads and biases, too. It is then only
    /// [`exclude_modules`](Self::exclude_modules) that chooses, among the modules of every kind.
    pub whole: bool,
    /// Which linear layers; `all-linear` leaves out the output head.
    pub target_modules: TargetModules,
    /// Which of them are not, by the same rules.
    pub exclude_modules: Option<TargetModules>,
    /// Which parameters besides, that are no linear layer's: those of experts, by the ends of their paths. The other rules leave them
    /// alone.
    pub target_parameters: Vec<String>,
    /// Modules of which no layer is selected, not even by name: those that are trained whole, as in PEFT, and layers that a checkpoint
    /// does not have. Not a setting: the model says it.
    pub untargeted: Vec<String>,
    /// The layer numbers to take; all if `None`.
    pub layers_to_transform: Option<Vec<usize>>,
    /// The names of the list of layers, when it is not one of the usual ones.
    pub layers_pattern: Vec<String>,
    /// Which existing biases are also trained.
    pub bias: Biases,
    /// In which order the model's linear layers store their weights.
    pub weight_layout: WeightLayout,
}

impl Default for Selection {
    /// Every linear layer but the output head, stored as in PyTorch, and no bias.
    fn default() -> Self {
        Self {
            whole: false,
            target_modules: TargetModules::AllLinear,
            exclude_modules: None,
            target_parameters: Vec::new(),
            untargeted: Vec::new(),
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            bias: Biases::None,
            weight_layout: WeightLayout::OutIn,
        }
    }
}

/// `target_modules` of a run file.
pub const TARGET_MODULES: SettingSpec = SettingSpec {
    key: "target_modules",
    kind: SettingKind::Modules { all_linear: true },
    fallback: crate::schema::Fallback::Word("all-linear"),
    meaning: "modules to adapt: a list of names, or a regex; `all-linear` is all but the output head",
};

/// `exclude_modules` of a run file.
pub const EXCLUDE_MODULES: SettingSpec = optional(
    "exclude_modules",
    SettingKind::Modules { all_linear: false },
    "none",
    "modules left out of them, by the same rules",
);

/// `layers_to_transform` of a run file.
pub const LAYERS_TO_TRANSFORM: SettingSpec = optional(
    "layers_to_transform",
    SettingKind::Counts {
        noun: "layer number",
        least: 0,
        most: u64::MAX,
    },
    "all layers",
    "layers that are adapted, counted from 0; needs a list in target_modules",
);

/// `layers_pattern` of a run file.
pub const LAYERS_PATTERN: SettingSpec = optional(
    "layers_pattern",
    SettingKind::Texts,
    "the usual names",
    "name of the list of layers, or several; needs layers_to_transform",
);

/// `bias` of a run file, for methods without an adapter file.
pub const BIAS: SettingSpec = word(
    "bias",
    &["none", "all"],
    "none",
    "which biases are also trained",
);

/// `bias` of a run file, for methods of PEFT.
pub const ADAPTER_BIAS: SettingSpec = word(
    "bias",
    &["none", "all", "lora_only"],
    "none",
    "which biases are also trained: none, all, or those of the adapted modules (lora_only)",
);

impl Selection {
    /// Reads the settings of a method that are about its targets: [`TARGET_MODULES`] and, where its spec lists them, the
    /// others. Nothing makes the selection a [`whole`](Self::whole) one.
    ///
    /// # Errors
    ///
    /// Fails when the spec lacks [`TARGET_MODULES`], or has one of these keys with another kind of value.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        check_layers(settings)?;
        let exclude = settings.optional("exclude_modules", Settings::modules)?;
        let patterns = settings.optional("layers_pattern", Settings::texts)?;
        let parameters = settings.optional("target_parameters", Settings::texts)?;
        if parameters.is_none() && settings.modules("target_modules")?.is_empty() {
            return Err(SchemaError::Value {
                setting: "target_modules".to_owned(),
                expected: TARGET_MODULES.kind.describe(),
                found: "[]".to_owned(),
            }
            .into());
        }
        let bias = settings.optional("bias", |settings, key| {
            settings.choice(
                key,
                &[
                    ("none", Biases::None),
                    ("all", Biases::All),
                    ("lora_only", Biases::Targets),
                ],
            )
        })?;
        Ok(Self {
            whole: false,
            target_modules: settings.modules("target_modules")?.clone(),
            exclude_modules: exclude.cloned(),
            target_parameters: parameters.map(<[String]>::to_vec).unwrap_or_default(),
            layers_to_transform: settings.optional("layers_to_transform", Settings::counts)?,
            layers_pattern: patterns.map(<[String]>::to_vec).unwrap_or_default(),
            untargeted: Vec::new(),
            bias: bias.unwrap_or_default(),
            weight_layout: WeightLayout::OutIn,
        })
    }

    /// Sets which modules have no layer that is selected.
    #[must_use]
    pub fn with_untargeted(self, untargeted: Vec<String>) -> Self {
        Self { untargeted, ..self }
    }

    /// Sets which linear layers are selected; it is no longer the whole model.
    pub fn with_target_modules(self, target_modules: TargetModules) -> Self {
        Self {
            whole: false,
            target_modules,
            ..self
        }
    }

    /// Sets which of them are not.
    pub fn with_exclude_modules(self, exclude_modules: TargetModules) -> Self {
        Self {
            exclude_modules: Some(exclude_modules),
            ..self
        }
    }

    /// Sets which existing biases are also trained.
    pub fn with_bias(self, bias: Biases) -> Self {
        Self { bias, ..self }
    }

    /// Sets in which order the model's linear layers store their weights.
    pub fn with_weight_layout(self, weight_layout: WeightLayout) -> Self {
        Self {
            weight_layout,
            ..self
        }
    }

    /// Checks that what a whole selection leaves out is there, and is not everything.
    pub(super) fn check_whole(&self, entries: &[Entry]) -> Result<()> {
        if !self.whole || self.exclude_modules.is_none() {
            return Ok(());
        }
        let rules = LoraAdapterConfig {
            target_modules: Some(TargetModules::Pattern(".*".to_owned())),
            ..self.rules()
        };
        let modules: BTreeSet<&str> = entries.iter().map(|entry| &*entry.module).collect();
        let modules: Vec<&str> = modules.into_iter().collect();
        ModuleMatcher::new(&rules)?
            .report(&modules)?
            .require_all()?;
        Ok(())
    }

    /// Returns whether [`exclude_modules`](Self::exclude_modules) names a module.
    pub(super) fn leaves_out(&self, module: &str) -> Result<bool> {
        match &self.exclude_modules {
            None => Ok(false),
            Some(exclude) => Ok(target_matches(exclude, module)?),
        }
    }

    /// Returns the rules in the terms of the matcher, which are PEFT's.
    pub(super) fn rules(&self) -> LoraAdapterConfig {
        LoraAdapterConfig {
            target_modules: Some(self.target_modules.clone()),
            exclude_modules: self.exclude_modules.clone(),
            target_parameters: self.target_parameters.clone(),
            layers_to_transform: self.layers_to_transform.clone().map(LayerIndices::List),
            layers_pattern: self.layers_pattern.clone(),
            ..LoraAdapterConfig::default()
        }
    }

    /// Returns the selected layers, in order.
    ///
    /// # Errors
    ///
    /// Fails when nothing is selected, or an entry matches nothing.
    pub(super) fn select<'a>(&self, linears: &[&'a LinearModule]) -> Result<Vec<&'a LinearModule>> {
        if self.whole {
            let mut selected = Vec::new();
            for &linear in linears {
                if !self.leaves_out(&linear.path)? {
                    selected.push(linear);
                }
            }
            return Ok(selected);
        }
        let rules = self.rules();
        rules.validate()?;
        if !self.target_parameters.is_empty() && self.target_modules.is_empty() {
            return Ok(Vec::new());
        }
        let all_linear = self.target_modules == TargetModules::AllLinear;
        let candidates: Vec<&LinearModule> = linears
            .iter()
            .copied()
            .filter(|linear| !(all_linear && linear.is_output_head))
            .filter(|linear| !is_inside(&linear.path, &self.untargeted))
            .collect();
        let paths: Vec<&str> = candidates
            .iter()
            .map(|linear| linear.path.as_str())
            .collect();
        let matcher = ModuleMatcher::new(&rules)?;
        matcher.report(&paths)?.require_all()?;
        let mut selected = Vec::new();
        for module in candidates {
            if matcher.matches(&module.path)? {
                selected.push(module);
            }
        }
        Ok(selected)
    }
}

/// PEFT refuses the same combinations, because it would ignore one of the keys.
fn check_layers(settings: &Settings) -> Result<(), SchemaError> {
    let no_effect = |setting, reason, fix| {
        Err(SchemaError::NoEffect {
            setting,
            reason,
            fix,
        })
    };
    if !settings.has("layers_to_transform") {
        if settings.has("layers_pattern") {
            return no_effect(
                "layers_pattern",
                "`layers_to_transform` is absent",
                "give the layers in `layers_to_transform`, or remove `layers_pattern`",
            );
        }
        return Ok(());
    }
    match settings.modules("target_modules")? {
        TargetModules::AllLinear => no_effect(
            "layers_to_transform",
            "`target_modules` is \"all-linear\", which is the layers of every block",
            "list names in `target_modules`, as in [\"q_proj\", \"v_proj\"]",
        ),
        TargetModules::Pattern(_) => no_effect(
            "layers_to_transform",
            "`target_modules` is a regular expression over whole module names",
            "select the layers in the regular expression, or list names in `target_modules`",
        ),
        TargetModules::Names(_) => Ok(()),
    }
}

/// A linear layer found in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearModule {
    /// Its path, empty if the model itself is the layer.
    pub path: String,
    /// The shape of its weight, as stored.
    pub shape: [usize; 2],
    /// The names of the methods that are attached to the weight, the one next to it first.
    pub methods: Vec<String>,
    /// Whether the weight is packed for fused operations.
    pub is_packed: bool,
    /// Whether it is the output head, which `all-linear` leaves out.
    pub is_output_head: bool,
    /// What it is if it is no linear layer but a parameter that only `target_parameters` reach; its path then ends with the parameter's
    /// name.
    pub parameter: Option<ExpertParameter>,
    pub(super) weight_id: ParamId,
    pub(super) bias_id: Option<ParamId>,
}

impl LinearModule {
    /// Returns the path of the module in which the weight is.
    pub fn module(&self) -> &str {
        match &self.parameter {
            None => &self.path,
            Some(_) => self.path.rsplit_once('.').map_or("", |(module, _)| module),
        }
    }

    /// Returns whether a method is attached to the weight.
    pub fn is_reparameterized(&self) -> bool {
        !self.methods.is_empty()
    }

    /// Returns the name of a tensor beside the weight.
    pub fn tensor_name(&self, name: &str) -> String {
        beside(self.module(), name)
    }

    /// Returns `(d_out, d_in)`, given how the layer stores its weight.
    pub fn dims(&self, layout: WeightLayout) -> (usize, usize) {
        let [rows, cols] = self.shape;
        match layout {
            WeightLayout::OutIn => (rows, cols),
            WeightLayout::InOut => (cols, rows),
        }
    }
}

/// Returns the linear layers of a model, in its order.
///
/// A layer is a struct named `Linear` with a two-dimensional `weight`: this crate's, Burn's, or a
/// user's own.
pub fn linear_modules<M: Module>(model: &M) -> Vec<LinearModule> {
    all_modules(model).0
}

/// Returns the linear layers, and the parameters that are none's but those of experts.
pub(super) fn all_modules<M: Module>(model: &M) -> (Vec<LinearModule>, Vec<LinearModule>) {
    let mut parameters: Vec<LinearModule> = Vec::new();
    let mut found: Vec<LinearModule> = Vec::new();
    let mut first: Option<(String, ParamId)> = None;
    walk(model, |entry, param| match &entry.part {
        Part::Own { field, methods } if entry.is_in_linear && field == "weight" => {
            if let [rows, cols] = entry.shape[..] {
                found.push(LinearModule {
                    path: entry.module.clone(),
                    shape: [rows, cols],
                    methods: methods.clone(),
                    is_packed: !param.is_there(),
                    is_output_head: entry.is_in_output_head,
                    parameter: None,
                    weight_id: entry.id,
                    bias_id: first
                        .take_if(|(module, _)| *module == entry.module)
                        .map(|(_, bias)| bias),
                });
            }
        }
        Part::Own { field, .. } if entry.is_in_linear && field == "bias" => {
            match found.last_mut().filter(|last| last.path == entry.module) {
                Some(last) => last.bias_id = Some(entry.id),
                None => first = Some((entry.module.clone(), entry.id)),
            }
        }
        Part::Own { field, methods } => {
            if let (Some(n_experts), [rows, cols]) = (entry.n_experts, &entry.shape[..]) {
                parameters.push(LinearModule {
                    path: beside(&entry.module, field),
                    shape: [*rows, *cols],
                    methods: methods.clone(),
                    is_packed: !param.is_there(),
                    is_output_head: false,
                    parameter: Some(ExpertParameter {
                        n_experts,
                        wrapped: 0,
                    }),
                    weight_id: entry.id,
                    bias_id: None,
                });
            }
        }
        Part::Tensor { .. } => {}
    });
    (found, parameters)
}
