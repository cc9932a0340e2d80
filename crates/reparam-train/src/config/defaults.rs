//! What a run file means that names neither a method nor an optimizer. No other file of this crate names one.

/// `[method]` where it says nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct MethodDefaults {
    pub(super) kind: &'static str,
    /// `bias`, of methods that have it.
    pub(super) bias: &'static str,
}

/// `[optimizer]` where it says nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct OptimizerDefaults {
    pub(super) kind: &'static str,
    /// The learning rate of this kind, where it has none of its own.
    pub(super) learning_rate: Option<f64>,
    pub(super) clip_grad_norm: f64,
}

/// For a model that starts from its weights.
pub(super) const METHOD: MethodDefaults = MethodDefaults {
    kind: "lora",
    bias: "none",
};

/// For the same.
pub(super) const OPTIMIZER: OptimizerDefaults = OptimizerDefaults {
    kind: "adamw",
    learning_rate: None,
    clip_grad_norm: 1.0,
};

/// For a model that begins with nothing.
pub(super) const NEW_METHOD: MethodDefaults = MethodDefaults {
    kind: "full",
    bias: "all",
};

/// The method's own reference case.
pub(super) const REGRESSION_OPTIMIZER: OptimizerDefaults = OptimizerDefaults {
    kind: "sgd",
    learning_rate: Some(0.1),
    clip_grad_norm: 0.0,
};

/// A kind of a transform, where an error shows one.
pub(super) const TRANSFORM: &str = "\"scale\"";
