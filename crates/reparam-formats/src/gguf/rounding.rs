//! What a file makes of the weights that are written into it.

use std::collections::BTreeMap;

use super::model::entry;
use super::{GgufDtype, GgufError, GgufModel, Layout, Source};
use crate::checkpoint::Dtype;
use crate::weights::Weights;

/// A tensor of a file, and what rounding its numbers cost.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenTensor {
    /// What llama.cpp calls it.
    pub name: String,
    /// Its type.
    pub dtype: GgufDtype,
    /// The largest difference between a number and what is read back.
    pub max_error: f64,
    /// The mean of these differences.
    pub mean_error: f64,
    /// The root of the sum of their squares, over that of the numbers; 0 if all are 0.
    pub relative_error: f64,
}

/// Sums over the numbers of a tensor.
#[derive(Debug, Default)]
pub(super) struct Errors {
    count: usize,
    most: f64,
    sum: f64,
    squares: f64,
    of_numbers: f64,
}

impl Errors {
    pub(super) fn add(&mut self, values: &[f64], dtype: GgufDtype) {
        for (value, read) in values.iter().zip(dtype.rounded(values)) {
            let error = (value - read).abs();
            self.most = self.most.max(error);
            self.sum += error;
            self.squares += error * error;
            self.of_numbers += value * value;
        }
        self.count += values.len();
    }

    pub(super) fn of(&self, name: &str, dtype: GgufDtype) -> WrittenTensor {
        WrittenTensor {
            name: name.to_owned(),
            dtype,
            max_error: self.most,
            mean_error: self.sum / self.count.max(1) as f64,
            relative_error: match self.of_numbers {
                0.0 => 0.0,
                of_numbers => (self.squares / of_numbers).sqrt(),
            },
        }
    }
}

/// Weights as a file of a model gives them back, in the layout of the checkpoint.
///
/// What the file has in f32 is as it was, but for the rounding to f32.
#[derive(Debug)]
pub struct RoundedWeights<'a, W> {
    weights: &'a mut W,
    /// The types of those that are rounded, and whether the file has them the other way around.
    rounded: BTreeMap<String, (GgufDtype, bool)>,
    /// The last one that was read.
    held: Option<(String, Vec<f64>)>,
}

impl<'a, W> RoundedWeights<'a, W>
where
    W: Weights,
    W::Error: From<GgufError>,
{
    /// Returns the weights of a model whose matrices are written in a type.
    ///
    /// # Errors
    ///
    /// Those that [`write_model`](super::write_model) has before the first number.
    pub fn new(model: &GgufModel, weights: &'a mut W, dtype: GgufDtype) -> Result<Self, W::Error> {
        let mut rounded = BTreeMap::new();
        for weight in &model.weights {
            let (names, turned) = match &weight.source {
                Source::Given(_) => continue,
                Source::Stored { name, layout, .. } => {
                    (vec![name.clone()], *layout == Layout::Transposed)
                }
                Source::Experts { each, joined, .. } => {
                    (each.iter().chain([joined]).cloned().collect(), false)
                }
            };
            let dtype = entry(weight, weights, dtype)?.dtype;
            if dtype != GgufDtype::F32 {
                rounded.extend(names.into_iter().map(|name| (name, (dtype, turned))));
            }
        }
        Ok(Self {
            weights,
            rounded,
            held: None,
        })
    }

    /// Reads a weight as a whole, rounded.
    fn whole(&mut self, name: &str, dtype: GgufDtype, turned: bool) -> Result<Vec<f64>, W::Error> {
        let shape = self.weights.shape(name)?;
        let mut values = vec![0.0; shape.iter().product()];
        self.weights.read(name, 0, &mut values)?;
        let [rows, columns] = match (turned, &shape[..]) {
            (true, [rows, columns]) => [*rows, *columns],
            // Blocks are parts of rows, whichever order these have.
            _ => return Ok(dtype.rounded(&values)),
        };
        let rounded = dtype.rounded(&turn(&values, rows, columns));
        Ok(turn(&rounded, columns, rows))
    }
}

/// Returns the transpose of a matrix of so many rows and columns.
fn turn(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    places.map(|place| values[place]).collect()
}

impl<W> Weights for RoundedWeights<'_, W>
where
    W: Weights,
    W::Error: From<GgufError>,
{
    type Error = W::Error;

    fn shape(&mut self, name: &str) -> Result<Vec<usize>, W::Error> {
        self.weights.shape(name)
    }

    fn dtype(&mut self, name: &str) -> Result<Dtype, W::Error> {
        self.weights.dtype(name)
    }

    fn read(&mut self, name: &str, first: usize, to: &mut [f64]) -> Result<(), W::Error> {
        let Some((dtype, turned)) = self.rounded.get(name).copied() else {
            return self.weights.read(name, first, to);
        };
        if self.held.as_ref().is_none_or(|(held, _)| held != name) {
            // What is no longer read goes before another takes its place.
            self.held = None;
            self.held = Some((name.to_owned(), self.whole(name, dtype, turned)?));
        }
        let held = self.held.as_ref().map(|(_, values)| values.as_slice());
        if let Some(part) = held.and_then(|values| values.get(first..first + to.len())) {
            to.copy_from_slice(part);
        }
        Ok(())
    }
}
