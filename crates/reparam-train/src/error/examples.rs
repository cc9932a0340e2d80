//! Why a model cannot tell rows apart by examples.

use reparam_data::DocumentSource;
use reparam_formats::{nearest, shown};
use thiserror::Error;

/// Why a model without a head cannot tell rows apart by examples.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExamplesError {
    /// The model has learned its labels.
    #[error("the model has a head for its labels, so {option} has no effect")]
    HasHead {
        /// The option.
        option: &'static str,
    },
    /// A model that works with examples in another way does not look at an option.
    #[error("{option} has no effect with {model}")]
    NoEffect {
        /// The option.
        option: &'static str,
        /// What the model is.
        model: &'static str,
    },
    /// A model that can do neither.
    #[error("a model that writes targets for sources cannot tell rows apart by examples")]
    WritesTargets,
    /// Examples are asked for, and there is no file of them.
    #[error("there is no file of examples")]
    NoFile,
    /// A language model is not told how many examples stand before a row.
    #[error("a language model is not told how many examples stand before each row")]
    NoNumber,
    /// Nothing says what the labels are.
    #[error("nothing says what the labels are")]
    NoLabels,
    /// One label alone has a word.
    #[error("--label-words has one label, `{label}`", label = shown(label))]
    OneWord {
        /// The label.
        label: String,
    },
    /// Rows of examples have any number of labels.
    #[error("examples have one label each, and those of the file have `labels`")]
    SeveralLabels,
    /// There are fewer examples than are asked for.
    #[error(
        "{wanted} examples{} are asked for, and the file has {found}{}",
        if label.is_some() { " of each label" } else { "" },
        label.as_ref().map_or_else(String::new, |label| format!(" of `{}`", shown(label)))
    )]
    TooFew {
        /// How many are asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
        /// The label, where they are of one.
        label: Option<String>,
    },
    /// There are fewer examples beside a row than are asked for.
    #[error("{place}: {wanted} examples are asked for, and the file has {found} beside this row")]
    TooFewBeside {
        /// The row.
        place: DocumentSource,
        /// How many are asked for.
        wanted: usize,
        /// How many there are that say something else.
        found: usize,
    },
    /// The template cannot make a prompt.
    #[error("the template `{template}` {problem}", template = shown(template))]
    Template {
        /// The template.
        template: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A row has a second text, or lacks one, other than the template or the model.
    #[error("{place}: {problem}")]
    Pair {
        /// The row.
        place: DocumentSource,
        /// What is wrong.
        problem: &'static str,
    },
    /// A word is given for a label that the examples do not have.
    #[error("--label-words has `{label}`, which is no label of the examples", label = shown(label))]
    WordOfNoLabel {
        /// The name.
        label: String,
        /// The labels of the examples.
        labels: Vec<String>,
    },
    /// Two labels are said alike.
    #[error("two labels are said with the same word, `{word}`", word = shown(word))]
    SameWord {
        /// The word.
        word: String,
    },
    /// What is said for a label adds no token to the prompt.
    #[error("`{word}` adds no token to the prompt", word = shown(word))]
    NoTokens {
        /// The word.
        word: String,
    },
    /// What is said for a label is longer than the model reads.
    #[error("`{word}` has {tokens} tokens, and the model reads {most} at once", word = shown(word))]
    LongWord {
        /// The word.
        word: String,
        /// Its tokens.
        tokens: usize,
        /// The most.
        most: usize,
    },
    /// An empty prompt has to begin with a token that the tokenizer does not have.
    #[error(
        "{place}: the prompt is empty, and the tokenizer has no token that begins or ends a text"
    )]
    EmptyPrompt {
        /// The row.
        place: DocumentSource,
    },
}

impl ExamplesError {
    /// Says what to do about it.
    pub(super) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::HasHead { option } => format!(
                "leave {option} out, or give a language model or an embedding model without a head"
            ),
            Self::NoEffect { option, .. } => format!("leave {option} out"),
            Self::WritesTargets => {
                "use a language model, or an encoder whose vectors are compared".to_owned()
            }
            Self::NoFile => "name one with --examples FILE".to_owned(),
            Self::NoNumber => "add --shots N; --shots 0 shows it the labels alone".to_owned(),
            Self::NoLabels => {
                "name a file with --examples FILE, or write --label-words LABEL=WORD,LABEL=WORD"
                    .to_owned()
            }
            Self::SeveralLabels => "give rows with `label`".to_owned(),
            Self::OneWord { .. } => "give a second LABEL=WORD".to_owned(),
            Self::TooFew { wanted: 0, .. } => "leave --shots out, or give at least 1".to_owned(),
            Self::TooFew { found, .. } | Self::TooFewBeside { found, .. } => {
                format!("give more examples, or at most --shots {found}")
            }
            Self::Template { .. } => "write something like \"{text}\\nLabel: {label}\"".to_owned(),
            Self::Pair { .. } => {
                "name the columns with --fields; a template may have {text_pair} beside {text}"
                    .to_owned()
            }
            Self::WordOfNoLabel { label, labels } => {
                let names = labels.iter().map(String::as_str);
                match nearest(label, names) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("their labels are {}", labels.join(", ")),
                }
            }
            Self::SameWord { .. } | Self::NoTokens { .. } | Self::LongWord { .. } => {
                "choose other words with --label-words LABEL=WORD,LABEL=WORD".to_owned()
            }
            Self::EmptyPrompt { .. } => "give a template with words of its own".to_owned(),
        })
    }

    /// Whether it is the request that is wrong, not the data.
    pub(super) fn is_of_request(&self) -> bool {
        matches!(
            self,
            Self::HasHead { .. }
                | Self::NoEffect { .. }
                | Self::WritesTargets
                | Self::NoFile
                | Self::NoNumber
                | Self::NoLabels
                | Self::OneWord { .. }
                | Self::Template { .. }
                | Self::WordOfNoLabel { .. }
                | Self::SameWord { .. }
        )
    }
}
