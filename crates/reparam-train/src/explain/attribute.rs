//! The methods, over whatever gives a score.

use burn::tensor::{Tensor, TensorData};
use reparam_data::SpecialTokens;

use super::{Attribution, Baseline};
use crate::evaluate::at_once;
use crate::{Result, Stop, TrainError};

/// The tokens of an input, and which of them the score is read at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) ids: Vec<u32>,
    pub(crate) types: Vec<u32>,
    /// The token whose output is scored; `None` where the model pools.
    pub(crate) place: Option<usize>,
}

/// A score as a function of the vectors of tokens, on a device with autodiff.
pub(crate) trait Subject {
    /// The vectors of tokens, `[N, d]`; `None` where there is no table of them.
    fn vectors(&self, ids: &[u32]) -> Option<Tensor<2>>;

    /// The score of each of some inputs, `[R]`, whose tokens have these vectors, one after the other.
    fn scores(&self, vectors: Tensor<2>, inputs: &[&Input]) -> Tensor<1>;

    /// How much each token of an input looks at each in every layer, `[heads, N, N]`; `None` if that cannot be had.
    fn attention(&self, input: &Input) -> Option<Vec<Tensor<3>>>;

    /// How much the hidden state of each token counts for the output, all together one.
    fn readout(&self, input: &Input) -> Vec<f64>;
}

/// How an input is explained.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: Attribution,
    pub(crate) steps: usize,
    pub(crate) baseline: Option<Baseline>,
    pub(crate) special: &'a SpecialTokens,
    /// Of each token the number of its word; those of the template have none.
    pub(crate) words: &'a [Option<usize>],
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) attributions: Vec<f64>,
    pub(crate) score: f64,
    pub(crate) baseline: Option<&'static str>,
    pub(crate) baseline_score: Option<f64>,
    pub(crate) completeness_error: Option<f64>,
    pub(crate) steps: Option<usize>,
}

/// Says how much each token of an input counts for its score.
pub(crate) fn attribute(
    subject: &dyn Subject,
    input: &Input,
    asked: Asked<'_>,
    stop: Stop<'_>,
) -> Result<Found> {
    let vectors = |ids: &[u32]| subject.vectors(ids).ok_or(TrainError::NoTokenVectors);
    let x = vectors(&input.ids)?;
    let score = values(subject.scores(x.clone(), &[input]))[0];
    let found = Found {
        attributions: Vec::new(),
        score,
        baseline: None,
        baseline_score: None,
        completeness_error: None,
        steps: None,
    };
    match asked.method {
        Attribution::IntegratedGradients => {
            let (name, token) = baseline(asked.baseline, asked.special)?;
            let base = base_vectors(subject, &x, &input.ids, (token, asked.words))?;
            let baseline_score = values(subject.scores(base.clone(), &[input]))[0];
            let path = Path {
                subject,
                input,
                x,
                base,
            };
            let attributions = path.integrated(asked.steps, stop)?;
            let sum: f64 = attributions.iter().sum();
            Ok(Found {
                baseline: Some(name),
                baseline_score: Some(baseline_score),
                completeness_error: Some((sum - (score - baseline_score)).abs()),
                steps: Some(asked.steps),
                attributions,
                ..found
            })
        }
        Attribution::GradientTimesInput => {
            let base = x.zeros_like();
            let path = Path {
                subject,
                input,
                x,
                base,
            };
            Ok(Found {
                attributions: path.products(&path.gradients(&[1.0])),
                ..found
            })
        }
        Attribution::Rollout => Ok(Found {
            attributions: rollout(subject, input)?,
            ..found
        }),
        Attribution::Occlusion => {
            let (attributions, name) = occlusion(subject, input, score, asked, stop)?;
            Ok(Found {
                attributions,
                baseline: Some(name),
                ..found
            })
        }
    }
}

fn values(scores: Tensor<1>) -> Vec<f64> {
    scores.into_data().iter::<f64>().collect()
}

/// The baseline that is asked for, or the first that there is: its name, and its token.
fn baseline(
    asked: Option<Baseline>,
    special: &SpecialTokens,
) -> Result<(&'static str, Option<u32>)> {
    let of = |baseline: Baseline| match baseline {
        Baseline::Mask => special.mask.map(|token| ("mask", Some(token))),
        Baseline::Pad => special.pad.map(|token| ("pad", Some(token))),
        Baseline::Unk => special.unk.map(|token| ("unk", Some(token))),
        Baseline::Zero => Some(("zero", None)),
    };
    match asked {
        Some(baseline) => of(baseline).ok_or_else(|| TrainError::NoSuchBaseline {
            baseline: Baseline::ALL[baseline as usize].0,
        }),
        None => {
            let mut all = Baseline::ALL.into_iter();
            Ok(all
                .find_map(|(_, baseline)| of(baseline))
                .unwrap_or(("zero", None)))
        }
    }
}

/// The vectors of the baseline: those of the template stay, since every input has them.
fn base_vectors(
    subject: &dyn Subject,
    x: &Tensor<2>,
    ids: &[u32],
    (token, words): (Option<u32>, &[Option<usize>]),
) -> Result<Tensor<2>> {
    let [n, width] = x.dims();
    let is_of_word: Vec<f32> = words
        .iter()
        .map(|word| f32::from(u8::from(word.is_some())))
        .collect();
    let place = (&x.device(), x.dtype());
    let replaced = Tensor::<2>::from_data(TensorData::new(is_of_word, [n, 1]), place);
    let replaced = replaced.expand([n, width]);
    let base = match token {
        None => x.zeros_like(),
        Some(token) => {
            let ids = vec![token; ids.len()];
            subject.vectors(&ids).ok_or(TrainError::NoTokenVectors)?
        }
    };
    Ok(x.clone() + (base - x.clone()) * replaced)
}

/// The straight way from a baseline to an input.
struct Path<'a> {
    subject: &'a dyn Subject,
    input: &'a Input,
    x: Tensor<2>,
    base: Tensor<2>,
}

impl Path<'_> {
    /// `(x - x') * mean_k df(x' + (k - 1/2)/m (x - x'))/dx`, summed over each vector: the middles of `m` equal steps.
    fn integrated(&self, steps: usize, stop: Stop<'_>) -> Result<Vec<f64>> {
        let n = self.input.ids.len();
        let mut sum = vec![0.0; self.x.dims()[0] * self.x.dims()[1]];
        let mut first = 0;
        while first < steps {
            stop.check()?;
            let count = at_once((first..steps).map(|_| n));
            let points = (first..first + count).map(|k| (k as f64 + 0.5) / steps as f64);
            let gradients = self.gradients(&points.collect::<Vec<_>>());
            sum.iter_mut().zip(gradients).for_each(|(sum, g)| *sum += g);
            first += count;
        }
        sum.iter_mut().for_each(|sum| *sum /= steps as f64);
        Ok(self.products(&sum))
    }

    /// The sum over some points of the gradient of the score by the vectors.
    fn gradients(&self, points: &[f64]) -> Vec<f64> {
        let way = self.x.clone() - self.base.clone();
        let at = points
            .iter()
            .map(|point| self.base.clone() + way.clone() * *point);
        let at = Tensor::cat(at.collect(), 0).detach().require_grad();
        let inputs = vec![self.input; points.len()];
        let gradients = self.subject.scores(at.clone(), &inputs).sum().backward();
        let gradient = at.grad(&gradients);
        let gradient = gradient.unwrap_or_else(|| unreachable!("the score depends on the vectors"));
        let size = self.x.dims().iter().product();
        let mut sum = vec![0.0; size];
        for (index, value) in gradient.into_data().iter::<f64>().enumerate() {
            sum[index % size] += value;
        }
        sum
    }

    /// The way times a gradient, summed over each vector.
    fn products(&self, gradient: &[f64]) -> Vec<f64> {
        let way = (self.x.clone() - self.base.clone()).into_data();
        let products: Vec<f64> = way
            .iter::<f64>()
            .zip(gradient)
            .map(|(w, g)| w * g)
            .collect();
        let width = self.x.dims()[1];
        products
            .chunks_exact(width)
            .map(|row| row.iter().sum())
            .collect()
    }
}

/// With `A_l` the mean over heads of the weights of layer `l`, the row of `prod_l (A_l + I) / 2` that the output is read at.
fn rollout(subject: &dyn Subject, input: &Input) -> Result<Vec<f64>> {
    let n = input.ids.len();
    let layers = subject.attention(input).filter(|layers| !layers.is_empty());
    let layers = layers.ok_or(TrainError::NoAttention)?;
    // A row that is multiplied from the last layer to the first, instead of whole matrices.
    let mut row = subject.readout(input);
    for layer in layers.into_iter().rev() {
        let weights: Vec<f64> = layer.mean_dim(0).into_data().iter::<f64>().collect();
        let mut next: Vec<f64> = row.iter().map(|share| share / 2.0).collect();
        for (query, share) in row.iter().enumerate() {
            let looked = &weights[query * n..(query + 1) * n];
            next.iter_mut()
                .zip(looked)
                .for_each(|(to, weight)| *to += share * weight / 2.0);
        }
        row = next;
    }
    Ok(row)
}

/// What the score loses where a word is masked, or left out where there is no mask token; its tokens share it equally.
fn occlusion(
    subject: &dyn Subject,
    input: &Input,
    score: f64,
    asked: Asked<'_>,
    stop: Stop<'_>,
) -> Result<(Vec<f64>, &'static str)> {
    let mask = match asked.baseline {
        None => asked.special.mask,
        // There is no token of zeros.
        Some(Baseline::Zero) => None,
        asked_for => baseline(asked_for, asked.special)?.1,
    };
    let n_words = asked
        .words
        .iter()
        .flatten()
        .max()
        .map_or(0, |last| last + 1);
    let without: Vec<Input> = (0..n_words)
        .map(|word| input.without(|token| asked.words[token] == Some(word), mask))
        .collect();
    let mut losses = Vec::with_capacity(n_words);
    while losses.len() < n_words {
        stop.check()?;
        let rest = &without[losses.len()..];
        let some: Vec<&Input> = rest[..at_once(rest.iter().map(|input| input.ids.len()))]
            .iter()
            .collect();
        // An input of nothing has no score; without its only word, nothing is left of the score.
        let scored: Vec<&Input> = some
            .iter()
            .copied()
            .filter(|input| !input.ids.is_empty())
            .collect();
        let ids: Vec<u32> = scored
            .iter()
            .flat_map(|input| &input.ids)
            .copied()
            .collect();
        let mut scores = match scored.is_empty() {
            true => Vec::new(),
            false => {
                let vectors = subject.vectors(&ids).ok_or(TrainError::NoTokenVectors)?;
                values(subject.scores(vectors, &scored))
            }
        }
        .into_iter();
        losses.extend(some.iter().map(|input| match input.ids.is_empty() {
            true => score,
            false => score - scores.next().unwrap_or(score),
        }));
    }
    let count = |word: usize| asked.words.iter().filter(|of| **of == Some(word)).count();
    let shares: Vec<f64> = (0..n_words)
        .map(|word| losses[word] / count(word) as f64)
        .collect();
    let attributions = asked
        .words
        .iter()
        .map(|word| word.map_or(0.0, |word| shares[word]));
    let name = match (mask, asked.baseline) {
        (None, _) => "drop",
        (Some(_), Some(Baseline::Pad)) => "pad",
        (Some(_), Some(Baseline::Unk)) => "unk",
        (Some(_), _) => "mask",
    };
    Ok((attributions.collect(), name))
}

impl Input {
    /// The same with some tokens masked, or left out where there is no mask token. The token that is scored is never left out.
    fn without(&self, is_hidden: impl Fn(usize) -> bool, mask: Option<u32>) -> Self {
        if let Some(mask) = mask {
            let ids = self.ids.iter().enumerate();
            let ids = ids.map(|(token, id)| if is_hidden(token) { mask } else { *id });
            return Self {
                ids: ids.collect(),
                ..self.clone()
            };
        }
        let kept: Vec<usize> = (0..self.ids.len())
            .filter(|token| !is_hidden(*token) || self.place == Some(*token))
            .collect();
        Self {
            ids: kept.iter().map(|token| self.ids[*token]).collect(),
            types: kept.iter().map(|token| self.types[*token]).collect(),
            place: self
                .place
                .and_then(|place| kept.iter().position(|token| *token == place)),
        }
    }
}
