//! Adapters on what they were trained on.

use std::sync::Arc;

use burn::module::Module;
use reparam::methods::{AttachReport, MethodConfig, Methods, WeightLayout, attach_rows};
use reparam_formats::peft::AdapterFiles;
use reparam_models::{Architecture, CausalLm, MaskedLm, Predictor, Seq2SeqLm};

use crate::Result;
use crate::model_files::ModelFiles;
use crate::new_tokens::AdapterTokens;

/// What adapters are attached to.
pub(crate) trait AdapterBase: Module {
    /// Returns the names of two weights that are one, if there are such.
    fn tied(&self) -> Option<(String, String)> {
        None
    }

    /// Returns the modules that no method is attached to, not even by name.
    fn untargeted(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the base as it is under this adapter.
    #[must_use]
    fn under(self, _adapter: &AdapterFiles) -> Self {
        self
    }
}

impl AdapterBase for CausalLm {
    fn tied(&self) -> Option<(String, String)> {
        self.tied_names()
    }

    fn untargeted(&self) -> Vec<String> {
        self.architecture().untargeted()
    }

    /// As in PEFT, what is attached to the head of a tied model leaves its embedding as it is.
    fn under(self, adapter: &AdapterFiles) -> Self {
        match is_of_head(adapter, self.architecture()) {
            true => self.with_own_head(),
            false => self,
        }
    }
}

impl AdapterBase for Seq2SeqLm {
    fn tied(&self) -> Option<(String, String)> {
        self.tied_names()
    }

    /// As for [`CausalLm`].
    fn under(self, adapter: &AdapterFiles) -> Self {
        match is_of_head(adapter, self.architecture()) {
            true => self.with_own_head(),
            false => self,
        }
    }
}

/// Whether an adapter has tensors of the output head.
fn is_of_head(adapter: &AdapterFiles, architecture: &Architecture) -> bool {
    let head = format!("{}.", architecture.head.path);
    adapter.tensors.keys().any(|name| name.starts_with(&head))
}

impl AdapterBase for Predictor {
    /// What is trained whole.
    fn untargeted(&self) -> Vec<String> {
        self.trained.clone()
    }
}

impl AdapterBase for MaskedLm {
    /// The copy of a table is none of the model's layers.
    fn untargeted(&self) -> Vec<String> {
        self.copy_path().into_iter().collect()
    }
}

/// Attaches an adapter to the base that was made of `from`.
pub(crate) fn attach<M: AdapterBase>(
    base: M,
    adapter: AdapterFiles,
    from: &ModelFiles,
    methods: &Methods,
) -> Result<(M, AttachReport, Arc<dyn MethodConfig>)> {
    attach_with_tokens(base, (adapter, None), from, methods)
}

/// [`attach`] with the rows of tokens that were taken out of the adapter.
pub(crate) fn attach_with_tokens<M: AdapterBase>(
    base: M,
    (adapter, tokens): (AdapterFiles, Option<&AdapterTokens>),
    from: &ModelFiles,
    methods: &Methods,
) -> Result<(M, AttachReport, Arc<dyn MethodConfig>)> {
    let tied = base.tied();
    let rows = tokens.map(|tokens| tokens.layers(tied.as_ref()));
    let tied: Vec<(&str, &str)> = tied.iter().map(|(a, b)| (&**a, &**b)).collect();
    let adapter = adapter.over(from.weights(), &tied)?;
    if let Some(tokens) = tokens {
        tokens.check_head(&adapter, base.tied().as_ref())?;
    }
    let base = base.under(&adapter);
    let (model, report, method) = methods.attach_adapter(base, &adapter, WeightLayout::OutIn)?;
    let model = match rows {
        Some(rows) => attach_rows(model, &rows?)?,
        None => model,
    };
    Ok((model, report, method))
}
