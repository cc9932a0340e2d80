//! What is found in a model and its tokenizer.

use reparam_data::TextTokenizer;
use reparam_formats::checkpoint::{Checkpoint, StoredTensor};
use reparam_formats::peft::{TargetModules, target_matches};
use reparam_models::Architecture;
use serde::Serialize;

use super::Finding;
use super::data::first_names;
use crate::Result;
use crate::warnings::beyond_positions;

/// How many numbers of a tensor are looked at together.
const PIECE: usize = 1 << 16;

/// An embedding is called large from this many rows a token on: padded sizes are a few percent above.
const LARGE: f64 = 1.1;

/// Linear layers of a kind, or that a pattern names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerCount {
    /// The last part of their names, such as `q_proj`, or a pattern of `target_modules`.
    pub name: String,
    /// Those that the method is attached to.
    pub adapted: usize,
    /// All of them.
    pub of: usize,
}

/// Counts layers by kind in the order of the model, and those that each pattern of a list names.
pub(crate) fn layers(
    linears: &[String],
    adapted: &[String],
    targets: &TargetModules,
) -> Result<(Vec<LayerCount>, Vec<LayerCount>)> {
    let mut kinds: Vec<LayerCount> = Vec::new();
    for path in linears {
        let name = path.rsplit('.').next().unwrap_or(path);
        let at = match kinds.iter().position(|kind| kind.name == name) {
            Some(at) => at,
            None => {
                kinds.push(LayerCount {
                    name: name.to_owned(),
                    adapted: 0,
                    of: 0,
                });
                kinds.len() - 1
            }
        };
        kinds[at].of += 1;
        kinds[at].adapted += usize::from(adapted.contains(path));
    }
    let TargetModules::Names(names) = targets else {
        return Ok((kinds, Vec::new()));
    };
    let mut patterns = Vec::new();
    for name in names {
        let alone = TargetModules::Names(vec![name.clone()]);
        let mut count = LayerCount {
            name: name.clone(),
            adapted: 0,
            of: 0,
        };
        for path in linears {
            if target_matches(&alone, path)? {
                count.of += 1;
                count.adapted += usize::from(adapted.contains(path));
            }
        }
        patterns.push(count);
    }
    Ok((kinds, patterns))
}

/// Finds what a tokenizer and a model have that does not go together.
pub(crate) fn of_tokenizer(tokenizer: &TextTokenizer, architecture: &Architecture) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (rows, most) = (architecture.vocab_size, tokenizer.max_id() as usize + 1);
    if most > rows {
        let beyond = |id: &&u32| **id as usize >= rows;
        let ordinary = tokenizer.ordinary_ids();
        let ordinary = ordinary.iter().filter(beyond).count();
        let message = format!(
            "the tokenizer has token ids up to {}, and the embedding {rows} rows: a text with one beyond is refused",
            most - 1
        );
        findings.push(match ordinary {
            // Special tokens that users add for padding, which nothing here needs.
            0 => Finding::note("vocabulary", message),
            n => Finding::warning(
                "vocabulary",
                format!("{message}; {n} of them stand for text"),
                "check that tokenizer.json and the weights are of one model",
            ),
        });
    } else if rows as f64 > LARGE * most as f64 {
        findings.push(Finding::note(
            "vocabulary",
            format!("the embedding has {rows} rows, and the tokenizer {most} tokens: the others are never read"),
        ));
    }
    let special = tokenizer.special_tokens();
    if let (Some(pad), Some(eos)) = (special.pad, special.eos)
        && pad == eos
    {
        let name = tokenizer.token(eos).unwrap_or_default();
        findings.push(Finding::note(
            "pad_is_eos",
            format!("`{name}` both ends and pads: harmless here, where batches have no padding and ends are learned"),
        ));
    }
    findings
}

/// Finds that sequences are longer than those that a model was made for, if they are.
pub(crate) fn beyond(architecture: &Architecture, sequence_length: usize) -> Option<Finding> {
    let message = beyond_positions(architecture, sequence_length)?;
    let most = architecture.max_positions;
    Some(Finding::warning(
        "sequence_length",
        message,
        format!("set train.sequence_length to {most} or less"),
    ))
}

/// What is known of the weights of a base.
pub(crate) struct ModelLook<'a> {
    /// The weights as they are stored.
    pub(crate) weights: &'a Checkpoint,
    /// The paths of the linear layers.
    pub(crate) linears: &'a [String],
    /// Two weights that are one.
    pub(crate) tied: Option<(String, String)>,
    /// The path of the output head, if it has one of its own.
    pub(crate) head: Option<String>,
    /// The names of what is trained.
    pub(crate) trained: &'a [String],
}

/// Finds what is the matter with the weights of a base. Numbers that are not finite are an error when they are loaded.
///
/// # Errors
///
/// Weights that cannot be read.
///
/// # Cost
///
/// A few numbers of each matrix are read, and all of one that has nothing but zeros.
pub(crate) fn of_weights(look: &ModelLook<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut zero = Vec::new();
    for (name, tensor) in look.weights.tensors() {
        if tensor.shape.len() == 2 && is_of_layer(name, look) && is_zero(&tensor)? {
            zero.push(name);
        }
    }
    let is_trained = |name: &&str| look.trained.iter().any(|trained| is_one(trained, name));
    let (trained, frozen): (Vec<&str>, Vec<&str>) = zero.into_iter().partition(is_trained);
    let of_outputs = |name: &&str| {
        let tied = look.tied.iter().flat_map(|(head, table)| [head, table]);
        let head = look.head.iter().map(|path| format!("{path}.weight"));
        let mut names = tied.cloned().chain(head);
        names.any(|output| is_one(&output, name))
    };
    if let Some(head) = frozen.iter().find(|name| of_outputs(name)) {
        findings.push(Finding::error(
            "zero_head",
            format!(
                "all numbers of the output head `{head}` are zero and it is not trained: every token is as likely as another, \
                 and no gradient reaches what is trained"
            ),
            "take the whole checkpoint: this one was written without its head, or under another name",
        ));
    } else if !frozen.is_empty() {
        findings.push(Finding::warning(
            "zero_weights",
            format!(
                "all numbers are zero in {} of the base: {}; no gradient goes through {}",
                weights(frozen.len()),
                first_names(&frozen),
                if frozen.len() == 1 { "it" } else { "them" }
            ),
            "check the checkpoint: such weights were never trained, or lost when it was written",
        ));
    }
    if !trained.is_empty() {
        findings.push(Finding::note(
            "zero_weights",
            format!(
                "all numbers are zero in {} that {} trained: {}",
                weights(trained.len()),
                if trained.len() == 1 { "is" } else { "are" },
                first_names(&trained)
            ),
        ));
    }
    if let Some((head, table)) = &look.tied {
        findings.push(Finding::note(
            "tied_weights",
            format!("`{head}` is `{table}`: one tensor, trained or frozen as one"),
        ));
    }
    Ok(findings)
}

fn weights(n: usize) -> String {
    match n {
        1 => "a weight".to_owned(),
        n => format!("{n} weights"),
    }
}

/// Whether a stored tensor is the weight of a linear layer or one of two that are tied. Other tables may well be zero.
fn is_of_layer(name: &str, look: &ModelLook<'_>) -> bool {
    let Some(path) = name.strip_suffix(".weight") else {
        return false;
    };
    let tied = look.tied.iter().flat_map(|(head, table)| [head, table]);
    look.linears.iter().any(|linear| is_one(linear, path))
        || tied.into_iter().any(|tied| is_one(tied, name))
}

/// Whether two names are one, of which one may have the name of the body in front.
fn is_one(a: &str, b: &str) -> bool {
    let (long, short) = if a.len() < b.len() { (b, a) } else { (a, b) };
    let front = long.strip_suffix(short);
    front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

fn is_zero(tensor: &StoredTensor<'_>) -> Result<bool> {
    let n = tensor.n_elements();
    let mut numbers = vec![0.0; PIECE.min(n)];
    let mut at = 0;
    while at < n {
        let piece = &mut numbers[..PIECE.min(n - at)];
        tensor.read_f32(at, piece)?;
        if piece.iter().any(|number| *number != 0.0) {
            return Ok(false);
        }
        at += piece.len();
    }
    Ok(n > 0)
}
