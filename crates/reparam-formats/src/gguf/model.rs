//! Whole models.

use std::ops::Range;
use std::path::Path;

use super::write::{Take, TensorEntry, write};
use super::{GgufDtype, GgufError, GgufTokenizer, GgufValue, WrittenTensor};
use crate::weights::Weights;

/// How many numbers are read at a time where they are written as they stand.
const PIECE: usize = 1 << 18;

/// What llama.cpp has to know of a model besides its tokenizer: made by a model family, written here.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufModel {
    /// `general.architecture`.
    pub architecture: String,
    /// The keys of that architecture, without its name before them, such as `block_count`.
    pub settings: Vec<(&'static str, GgufValue)>,
    /// The tensors.
    pub weights: Vec<GgufWeight>,
    /// What differs from what the checkpoint computes, for the user to know.
    pub notes: Vec<String>,
}

/// A tensor of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufWeight {
    /// What llama.cpp calls it, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Where its numbers are from.
    pub source: Source,
}

/// Where the numbers of a tensor are from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A tensor of the checkpoint.
    Stored {
        /// Its name there.
        name: String,
        /// How it is laid out.
        layout: Layout,
        /// Whether it stays in f32 whatever is asked for.
        keeps_f32: bool,
    },
    /// The weights of experts, one after the other: `[experts, rows, d_in]`. A checkpoint has them in one of two ways.
    Experts {
        /// A tensor of each expert, `[rows, d_in]`.
        each: Vec<String>,
        /// One of all of them, `[experts, all rows, d_in]`.
        joined: String,
        /// The rows of each expert there.
        rows: Range<usize>,
    },
    /// Numbers that the configuration gives.
    Given(Vec<f32>),
}

/// A part of a tensor of the checkpoint.
pub(super) struct Part<'a> {
    name: &'a str,
    first: usize,
    len: usize,
}

/// What the weights of experts are made of, in order, and their shape.
pub(super) type ExpertParts<'a> = (Vec<Part<'a>>, Vec<usize>);

/// Finds what the weights of experts are made of; in its place, a shape that they cannot be made of.
pub(super) fn expert_parts<'a, W: Weights>(
    (each, joined, rows): (&'a [String], &'a str, &Range<usize>),
    weights: &mut W,
) -> Result<Result<ExpertParts<'a>, Vec<usize>>, W::Error> {
    let n = each.len();
    let part = |name, first: usize, d_in: usize| Part {
        name,
        first: first * d_in,
        len: rows.len() * d_in,
    };
    // A checkpoint that has no tensor of all has one of each.
    if let Ok(shape) = weights.shape(joined) {
        let [experts, all, d_in] = shape[..] else {
            return Ok(Err(shape));
        };
        if experts != n || rows.end > all {
            return Ok(Err(shape));
        }
        let parts = (0..n).map(|expert| part(joined, expert * all + rows.start, d_in));
        return Ok(Ok((parts.collect(), vec![n, rows.len(), d_in])));
    }
    let mut width = None;
    for name in each {
        let shape = weights.shape(name)?;
        let d_in = *width.get_or_insert(shape.last().copied().unwrap_or(0));
        if shape != [rows.len(), d_in] {
            return Ok(Err(shape));
        }
    }
    let d_in = width.unwrap_or(0);
    let parts = each.iter().map(|name| part(name, 0, d_in));
    Ok(Ok((parts.collect(), vec![n, rows.len(), d_in])))
}

/// How the numbers of a tensor of the checkpoint are laid out in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As they are.
    AsStored,
    /// The checkpoint has `[d_in, d_out]`, the file `[d_out, d_in]`.
    Transposed,
    /// Rows, or the elements of a bias, are those of heads whose rotated pairs are half a head apart; in the file each pair
    /// stands together.
    Pairs {
        /// The number of heads.
        heads: usize,
    },
    /// The norm multiplies by `1 + w`; the file has that sum.
    PlusOne,
    /// The checkpoint has the logarithm of what the file has the negative of.
    MinusExp,
    /// The second of three dimensions of the checkpoint has one element; the file does not have it.
    Squeezed,
}

impl Layout {
    /// Returns the row that comes to a place, of `rows` rows.
    pub(super) fn row(self, place: usize, rows: usize) -> usize {
        let Self::Pairs { heads } = self else {
            return place;
        };
        let head_dim = rows / heads.max(1);
        let (head, within) = (place / head_dim, place % head_dim);
        let half = head_dim / 2;
        head * head_dim + (within % 2) * half + within / 2
    }
}

/// How a model is written.
#[derive(Debug, Clone, Copy)]
pub struct ModelOptions<'a> {
    /// The type of matrices; vectors stay in f32.
    pub dtype: GgufDtype,
    /// The model's name, for people.
    pub name: Option<&'a str>,
}

/// Writes a model with its tokenizer to a file, replacing an older one in one step; returns its tensors with what rounding cost.
///
/// A matrix whose rows are no whole blocks of the type is written in f16, as llama.cpp's own converter does.
///
/// # Errors
///
/// [`GgufError::BeyondRange`], [`GgufError::Shape`], those of the weights, and those of the file system.
///
/// # Cost
///
/// Tensors that are laid out as they are stored are read and written a part at a time, others one at a time.
pub fn write_model<W>(
    path: &Path,
    model: &GgufModel,
    tokenizer: &GgufTokenizer,
    weights: &mut W,
    options: ModelOptions<'_>,
) -> Result<Vec<WrittenTensor>, W::Error>
where
    W: Weights,
    W::Error: From<GgufError>,
{
    let mut metadata = vec![
        text("general.architecture", &model.architecture),
        text("general.type", "model"),
    ];
    metadata.extend(options.name.map(|name| text("general.name", name)));
    metadata.push(count("general.file_type", options.dtype.file_type()));
    // The version of the layout of quantized blocks.
    metadata.push(count("general.quantization_version", 2));
    for (key, value) in &model.settings {
        metadata.push((format!("{}.{key}", model.architecture), value.clone()));
    }
    metadata.extend(tokenizer.metadata());
    let mut entries = Vec::with_capacity(model.weights.len());
    for weight in &model.weights {
        entries.push(entry(weight, weights, options.dtype)?);
    }
    let mut sources = model.weights.iter();
    write(path, &metadata, &entries, |entry, take| {
        match sources.next().map(|weight| &weight.source) {
            None => Ok(()),
            Some(Source::Given(values)) => {
                let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
                take(&values)
            }
            Some(Source::Stored { name, layout, .. }) => {
                stored(entry, name, *layout, weights, take)
            }
            Some(Source::Experts { each, joined, rows }) => {
                let row = entry.shape.last().copied().unwrap_or(1);
                let parts = expert_parts((each, joined, rows), weights)?;
                let parts = parts.map_or_else(|_| Vec::new(), |(parts, _)| parts);
                parts
                    .into_iter()
                    .try_for_each(|part| in_rows(part, row, weights, take))
            }
        }
    })
}

pub(super) fn text(key: &str, value: &str) -> (String, GgufValue) {
    (key.to_owned(), GgufValue::Text(value.to_owned()))
}

fn count(key: &str, value: u32) -> (String, GgufValue) {
    (key.to_owned(), GgufValue::U32(value))
}

/// Decides shape and type of a tensor in the file.
pub(super) fn entry<W>(
    weight: &GgufWeight,
    weights: &mut W,
    dtype: GgufDtype,
) -> Result<TensorEntry, W::Error>
where
    W: Weights,
    W::Error: From<GgufError>,
{
    let (mut shape, keeps_f32, layout) = match &weight.source {
        Source::Given(values) => (vec![values.len()], true, Layout::AsStored),
        Source::Stored {
            name,
            layout,
            keeps_f32,
        } => (weights.shape(name)?, *keeps_f32, *layout),
        Source::Experts { each, joined, rows } => {
            match expert_parts((each, joined, rows), weights)? {
                Ok((_, shape)) => (shape, false, Layout::AsStored),
                Err(found) => {
                    return Err(GgufError::Shape {
                        tensor: weight.name.clone(),
                        expected: format!("{} experts with {} rows each", each.len(), rows.len()),
                        found,
                    }
                    .into());
                }
            }
        }
    };
    let misfit = |expected: String| GgufError::Shape {
        tensor: weight.name.clone(),
        expected,
        found: shape.clone(),
    };
    match layout {
        Layout::Transposed if shape.len() != 2 => return Err(misfit("a matrix".to_owned()).into()),
        Layout::Transposed => shape.reverse(),
        Layout::Pairs { heads } => {
            let rows = shape.first().copied().unwrap_or(0);
            if heads == 0 || !rows.is_multiple_of(2 * heads) {
                return Err(misfit(format!("{heads} heads of an even width")).into());
            }
        }
        Layout::Squeezed => match shape[..] {
            [rows, 1, columns] => shape = vec![rows, columns],
            _ => return Err(misfit("[channels, 1, width]".to_owned()).into()),
        },
        Layout::AsStored | Layout::PlusOne | Layout::MinusExp => {}
    }
    let row = shape.last().copied().unwrap_or(1);
    let dtype = match keeps_f32 || shape.len() < 2 {
        true => GgufDtype::F32,
        false if row.is_multiple_of(dtype.block()) => dtype,
        false => GgufDtype::F16,
    };
    Ok(TensorEntry {
        name: weight.name.clone(),
        shape,
        dtype,
    })
}

/// Hands on the numbers of a tensor of the checkpoint.
fn stored<W: Weights>(
    entry: &TensorEntry,
    name: &str,
    layout: Layout,
    weights: &mut W,
    take: &mut Take<'_, W::Error>,
) -> Result<(), W::Error> {
    let n: usize = entry.shape.iter().product();
    let width = match entry.shape.len() {
        0 | 1 => 1,
        _ => entry.shape.last().copied().unwrap_or(1),
    };
    match layout {
        Layout::AsStored | Layout::Squeezed => {
            let part = Part {
                name,
                first: 0,
                len: n,
            };
            let row = entry.shape.last().copied().unwrap_or(1);
            in_rows(part, row, weights, take)
        }
        Layout::PlusOne | Layout::MinusExp => {
            let mut values = vec![0.0; n];
            weights.read(name, 0, &mut values)?;
            for value in &mut values {
                *value = match layout {
                    Layout::MinusExp => -value.exp(),
                    _ => *value + 1.0,
                };
            }
            take(&values)
        }
        Layout::Pairs { .. } => {
            let mut values = vec![0.0; n];
            weights.read(name, 0, &mut values)?;
            let rows = n / width.max(1);
            let mut moved = Vec::with_capacity(n);
            for place in 0..rows {
                let row = layout.row(place, rows);
                moved.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
            take(&moved)
        }
        Layout::Transposed => {
            let mut values = vec![0.0; n];
            weights.read(name, 0, &mut values)?;
            let [d_out, d_in] = [n / width.max(1), width];
            let moved: Vec<f64> = (0..n)
                .map(|at| values[(at % d_in) * d_out + at / d_in])
                .collect();
            take(&moved)
        }
    }
}

/// Hands on numbers as they are, in whole rows, so that blocks are whole, too.
fn in_rows<W: Weights>(
    part: Part<'_>,
    row: usize,
    weights: &mut W,
    take: &mut Take<'_, W::Error>,
) -> Result<(), W::Error> {
    let Part { name, first, len } = part;
    let row = row.max(1);
    let at_once = row.saturating_mul((PIECE / row).max(1)).min(len);
    let mut values = vec![0.0; at_once];
    for start in (0..len).step_by(at_once.max(1)) {
        let values = &mut values[..at_once.min(len - start)];
        weights.read(name, first + start, values)?;
        take(values)?;
    }
    Ok(())
}
