//! Adapters on what they were trained on.

use std::sync::Arc;

use burn::module::Module;
use reparam::methods::{AttachReport, MethodConfig, Methods, WeightLayout};
use reparam_formats::peft::AdapterFiles;
use reparam_models::{Architecture, CausalLm, MaskedLm, Predictor, Seq2SeqLm};

use crate::Result;
use crate::model_files::ModelFiles;

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

    /// Those of Mamba whose stored weight transformers reads past what is attached: PEFT refuses adapters of the last layer, and one of
    /// the steps would do nothing there.
    fn untargeted(&self) -> Vec<String> {
        let layers = self.body.state_space.iter().flat_map(|of| of.layers.iter());
        let layers = layers.flat_map(|layer| [&layer.step, &layer.output]);
        layers.map(|layer| layer.path().to_owned()).collect()
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
    let tied = base.tied();
    let tied: Vec<(&str, &str)> = tied.iter().map(|(a, b)| (&**a, &**b)).collect();
    let adapter = adapter.over(from.weights(), &tied)?;
    let base = base.under(&adapter);
    Ok(methods.attach_adapter(base, &adapter, WeightLayout::OutIn)?)
}
