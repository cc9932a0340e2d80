//! Why adapters could not be merged.

use std::path::PathBuf;

use reparam_formats::checkpoint::Dtype;
use reparam_formats::shown;
use thiserror::Error;

/// Says why adapters could not be merged into their base.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The merged model says something else than the adapter.
    #[error(
        "the merged model diverges from the adapter by {kl:.3e} nats per token, more than {bound:e}"
    )]
    TooFar {
        /// The mean divergence.
        kl: f64,
        /// The largest that is accepted.
        bound: f64,
    },
    /// Something is where the merged model is to go.
    #[error("{} is there already, and would be lost", path.display())]
    OutputTaken {
        /// The directory, or a file that is none of the format.
        path: PathBuf,
    },
    /// Two adapters have tokens of their own, which no tokenizer has together.
    #[error("both {} and {} have vectors of tokens of their own", first.display(), second.display())]
    SeveralTokens {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// There is nothing to make a LoRA of.
    #[error("no linear layer differs from the base, so there is nothing to make a LoRA of")]
    NoChange,
    /// A factor is no number.
    #[error("the change of an adapter cannot be multiplied by {factor}")]
    Factor {
        /// The factor.
        factor: f64,
    },
    /// A merged weight is not finite.
    #[error("'{name}' is not finite once the adapter is merged", name = shown(name))]
    NotFinite {
        /// The tensor.
        name: String,
    },
    /// The type that was asked for cannot hold a number.
    #[error("'{name}' has the number {value:e}, which {dtype} cannot hold", name = shown(name))]
    Beyond {
        /// The tensor.
        name: String,
        /// The number.
        value: f64,
        /// The type.
        dtype: Dtype,
    },
    /// The adapter has a tensor whole in another shape than the base.
    #[error("the adapter has '{name}' in the shape {adapter:?}, its base in {base:?}", name = shown(name))]
    Shape {
        /// The tensor.
        name: String,
        /// The shape in the base.
        base: Vec<usize>,
        /// The shape in the adapter.
        adapter: Vec<usize>,
    },
    /// The adapter has a module whole that its base does not have, such as a new head.
    #[error("the adapter has '{name}', and its base has no such tensor", name = shown(name))]
    NotInBase {
        /// The tensor.
        name: String,
    },
    /// The tensors of a base are not all rows of an adapted parameter, or have some twice.
    #[error("the base does not have each row of the experts' '{name}' once", name = shown(name))]
    Incomplete {
        /// The parameter.
        name: String,
    },
    /// Several adapters, or one by half, are nothing that a merged model can be compared with.
    #[error("the merged model is compared with one adapter whose change is merged as it is")]
    ComparesOneAdapter,
}

impl MergeError {
    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::TooFar { .. } => "write it with --dtype f32, or accept more with --max-kl",
            Self::OutputTaken { .. } => {
                "choose another directory with --output, or remove this one"
            }
            Self::Beyond { .. } => "use --dtype bf16 or --dtype f32",
            Self::NotInBase { .. } => {
                "use base and adapter together (--model BASE --adapter ADAPTER): a model with a new head is one of another class"
            }
            Self::Incomplete { .. } => "a file of the base is missing or damaged: fetch it again",
            Self::ComparesOneAdapter => "leave out --data, or merge one adapter without --weight",
            Self::SeveralTokens { .. } => {
                "merge one of them, and train the other one anew on the result"
            }
            Self::NoChange => "give the base that it was trained on with --model",
            Self::NotFinite { .. } => "the adapter diverged in training, or the file is damaged",
            Self::Factor { .. } | Self::Shape { .. } => return None,
        };
        Some(text.to_owned())
    }
}
