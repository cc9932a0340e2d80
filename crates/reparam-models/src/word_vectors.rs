//! Word vectors that are learned from the words around each word.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use reparam::parameters::{self, ParameterList};
use reparam_formats::checkpoint::Checkpoint;
use reparam_ops::embedding;

use crate::ModelError;
use crate::Precision;
use crate::layers::Embedding;
use crate::loader::Loader;
use crate::named::{Named, unnamed_module};

/// The two tables of word2vec: a word's vector, and the vector of its being predicted.
#[derive(Debug, Clone)]
pub struct WordVectorModel {
    /// `[words, d]`: the vectors that are the result.
    pub input: Named<Embedding>,
    /// `[words, d]`
    pub output: Named<Embedding>,
}

unnamed_module!(WordVectorModel, modules: [input, output], data: []);

/// Words that predict others, an example behind the other.
#[derive(Debug, Clone, Copy)]
pub struct WordExamples<'a> {
    /// The words that predict, of all examples.
    pub inputs: &'a [u32],
    /// Where those of each example begin, and where the last one's end.
    pub bounds: &'a [usize],
    /// The word that is predicted, one an example.
    pub targets: &'a [u32],
    /// Words that are not, as many for each example.
    pub negatives: &'a [u32],
}

impl WordVectorModel {
    /// Returns the tensors of a new model with their shapes and numbers, as word2vec begins: vectors uniform in `+-1/(2 d)`,
    /// zeros in the other table. The numbers follow from `seed` alone.
    pub fn new_tensors(words: usize, width: usize, seed: u64) -> [(&'static str, Vec<f32>); 2] {
        let bound = 0.5 / width as f64;
        let name = "input.weight";
        let input = reparam::methods::uniform(words * width, bound, seed, name);
        [(name, input), ("output.weight", vec![0.0; words * width])]
    }

    /// Loads a model of `words` vectors of `width` numbers, frozen.
    ///
    /// # Errors
    ///
    /// Fails when the checkpoint does not hold exactly the two tables, or a number that is not finite.
    pub fn load(
        checkpoint: &Checkpoint,
        (words, width): (usize, usize),
        device: &Device,
    ) -> Result<Self, ModelError> {
        let loader = Loader::new(checkpoint, device, Precision::F32, "input");
        loader.load(
            &[],
            |_| false,
            |loader| {
                Ok(Self {
                    input: loader.embedding("input", words, width),
                    output: loader.embedding("output", words, width),
                })
            },
        )
    }

    /// Returns the tables as they are stored.
    pub fn to_tensors(&self) -> ParameterList {
        parameters::effective(self)
    }

    /// Returns the scaled sum of the losses of examples, `[1]`, with negative sampling:
    ///
    /// ```text
    /// loss = scale * sum_e ( -log s(u_t . h) - sum_n log s(-u_n . h) ),   h = mean of v over the inputs of e
    /// ```
    ///
    /// with the sigmoid `s`, vectors `v` of the input table and `u` of the output table.
    ///
    /// # References
    ///
    /// T. Mikolov et al. (arXiv 1310.4546), equation 4; of several inputs the mean, as in the authors' program.
    ///
    /// # Panics
    ///
    /// Panics unless there is an example, every one has an input, and there are as many negatives for each.
    pub fn loss(&self, examples: WordExamples<'_>, scale: f32) -> Tensor<1> {
        let table = |table: &Embedding| table.weight.dense().expect("the tables are loaded in f32");
        let (v, u) = (table(&self.input), table(&self.output));
        let n = examples.targets.len();
        let [_, width] = v.dims();
        let drawn = examples.negatives.len() / n;
        let h = means(v, examples);
        let positive = (h.clone() * embedding(u.clone(), examples.targets)).sum_dim(1);
        let mut loss = activation::log_sigmoid(positive).sum();
        if drawn > 0 {
            let others = embedding(u, examples.negatives).reshape([n, drawn, width]);
            let scores = (others * h.reshape([n, 1, width])).sum_dim(2);
            loss = loss + activation::log_sigmoid(-scores).sum();
        }
        loss * (-scale)
    }
}

/// The mean vector of the inputs of each example, `[examples, d]`.
fn means(table: Tensor<2>, examples: WordExamples<'_>) -> Tensor<2> {
    let n = examples.targets.len();
    let lengths = || examples.bounds.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = lengths().max().unwrap_or(0);
    if longest == 1 {
        return embedding(table, examples.inputs);
    }
    let [_, width] = table.dims();
    let device = table.device();
    // The row of each example's inputs, with row 0 of the gathered vectors where there are fewer, and a factor that is zero there.
    let mut places: Vec<i64> = Vec::with_capacity(n * longest);
    let mut factors: Vec<f32> = Vec::with_capacity(n * longest);
    for pair in examples.bounds.windows(2) {
        let len = pair[1] - pair[0];
        for place in 0..longest {
            let is_there = place < len;
            places.push(if is_there {
                (pair[0] + place) as i64
            } else {
                0
            });
            factors.push(if is_there { 1.0 / len as f32 } else { 0.0 });
        }
    }
    let rows = embedding(table, examples.inputs);
    let dtype = rows.dtype();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [n * longest]), &device);
    let factors = TensorData::new(factors, [n * longest, 1]).convert_dtype(dtype);
    let factors = Tensor::<2>::from_data(factors, (&device, dtype));
    let weighted = rows.select(0, places) * factors;
    weighted
        .reshape([n, longest, width])
        .sum_dim(1)
        .reshape([n, width])
}
