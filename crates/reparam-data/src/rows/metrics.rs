//! How well logits meet the classes of rows.

use super::labels::LabelKind;

#[cfg(test)]
mod tests;

/// The probabilities of classes that exclude one another, `exp(z_i) / sum_j exp(z_j)`.
#[must_use]
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let log_sum = log_sum_exp(logits);
    logits
        .iter()
        .map(|logit| (f64::from(*logit) - log_sum).exp())
        .collect()
}

/// The probability of a class by itself, `1 / (1 + exp(-z))`.
#[must_use]
pub fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

/// The logarithm of the probability of a class, `z_class - log sum_j exp(z_j)`.
///
/// # Panics
///
/// Panics if there is no such class.
#[must_use]
pub fn log_softmax(logits: &[f32], class: usize) -> f64 {
    f64::from(logits[class]) - log_sum_exp(logits)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits
        .iter()
        .map(|logit| (f64::from(*logit) - max).exp())
        .sum::<f64>()
        .ln()
}

/// What [`ClassScorer`] measures. F1 and Matthews' coefficient are those of scikit-learn over all classes of the model, with
/// 0 where a quotient does not exist.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMetrics {
    /// The mean cross-entropy of a row in nats; of several labels the mean binary cross-entropy of a row and class.
    pub loss: f64,
    /// The share of rows whose prediction is right; of several labels, right in every class.
    pub accuracy: f64,
    /// The mean of the classes' F1.
    pub f1_macro: f64,
    /// F1 of all decisions counted together.
    pub f1_micro: f64,
    /// Matthews' correlation coefficient of classes that exclude one another.
    pub matthews: Option<f64>,
    /// Rows.
    pub examples: usize,
}

/// What a row adds to [`ClassScorer`].
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScore {
    /// Its loss.
    pub loss: f64,
    /// The classes that it is of, ascending.
    pub classes: Vec<usize>,
    /// Those that are predicted, ascending.
    pub predicted: Vec<usize>,
}

/// Counts predictions row by row. The prediction is the class with the largest logit, the first of equals; of several labels,
/// every class with a probability of at least its threshold, which is 0.5 unless others are given.
#[derive(Debug, Clone)]
pub struct ClassScorer {
    kind: LabelKind,
    /// The least logit of each class with which it is predicted, of several labels.
    least: Vec<f64>,
    loss: f64,
    right: usize,
    examples: usize,
    /// Rows that are of a class and predicted to be, by class.
    hits: Vec<usize>,
    /// Rows that are of a class.
    actual: Vec<usize>,
    /// Rows that are predicted to be.
    predicted: Vec<usize>,
}

impl ClassScorer {
    /// Starts with no rows.
    #[must_use]
    pub fn new(n_classes: usize, kind: LabelKind) -> Self {
        Self {
            kind,
            least: vec![0.0; n_classes],
            loss: 0.0,
            right: 0,
            examples: 0,
            hits: vec![0; n_classes],
            actual: vec![0; n_classes],
            predicted: vec![0; n_classes],
        }
    }

    /// Sets the probability from which each class is predicted, of several labels.
    ///
    /// # Panics
    ///
    /// If there are not as many as classes.
    #[must_use]
    pub fn with_thresholds(mut self, thresholds: &[f64]) -> Self {
        assert_eq!(thresholds.len(), self.least.len(), "one threshold a class");
        // In logits, so that 0.5 is exactly 0.
        self.least = thresholds.iter().map(|t| (t / (1.0 - t)).ln()).collect();
        self
    }

    /// Adds a row with its logits, one a class, and the classes that it is of.
    ///
    /// # Panics
    ///
    /// If there are not as many logits as classes, if a class is outside, or without exactly one class with [`LabelKind::One`].
    pub fn add(&mut self, logits: &[f32], classes: &[usize]) {
        let score = self.score(logits, classes);
        self.count(&score);
    }

    /// Returns what a row adds: see [`add`](Self::add).
    ///
    /// # Panics
    ///
    /// As there.
    #[must_use]
    pub fn score(&self, logits: &[f32], classes: &[usize]) -> ClassScore {
        assert_eq!(logits.len(), self.actual.len(), "one logit a class");
        ClassScore {
            loss: match (self.kind, classes) {
                (LabelKind::One, [class]) => log_sum_exp(logits) - f64::from(logits[*class]),
                (LabelKind::One, _) => panic!("expected one class, found {}", classes.len()),
                (LabelKind::Several, _) => binary_cross_entropy(logits, classes),
            },
            classes: classes.to_vec(),
            predicted: self.prediction(logits),
        }
    }

    /// Adds a row by what [`score`](Self::score) says of it.
    pub fn count(&mut self, score: &ClassScore) {
        let ClassScore {
            loss,
            classes,
            predicted,
        } = score;
        self.loss += loss;
        self.examples += 1;
        self.right += usize::from(predicted == classes);
        for class in predicted {
            self.predicted[*class] += 1;
            self.hits[*class] += usize::from(classes.contains(class));
        }
        for class in classes {
            self.actual[*class] += 1;
        }
    }

    /// The classes predicted from logits, ascending.
    #[must_use]
    pub fn prediction(&self, logits: &[f32]) -> Vec<usize> {
        let classes = 0..logits.len();
        match self.kind {
            LabelKind::One => {
                let best = classes.reduce(|best, class| {
                    if logits[class] > logits[best] {
                        class
                    } else {
                        best
                    }
                });
                best.into_iter().collect()
            }
            LabelKind::Several => classes
                .filter(|class| f64::from(logits[*class]) >= self.least[*class])
                .collect(),
        }
    }

    /// Returns the measures, or `None` without rows.
    #[must_use]
    pub fn finish(&self) -> Option<ClassMetrics> {
        if self.examples == 0 {
            return None;
        }
        let rows = self.examples as f64;
        let by_class = self.hits.iter().zip(&self.actual).zip(&self.predicted);
        let f1_of_classes: f64 = by_class
            .map(|((hits, actual), predicted)| f1(*hits, *actual, *predicted))
            .sum();
        let sum = |counts: &[usize]| counts.iter().sum::<usize>();
        Some(ClassMetrics {
            loss: self.loss / rows,
            accuracy: self.right as f64 / rows,
            f1_macro: f1_of_classes / self.actual.len() as f64,
            f1_micro: f1(sum(&self.hits), sum(&self.actual), sum(&self.predicted)),
            matthews: (self.kind == LabelKind::One).then(|| self.matthews()),
            examples: self.examples,
        })
    }

    /// With `a_k` rows of class k and `p_k` rows predicted so, of n rows:
    /// `(n sum_k hits_k - sum_k a_k p_k) / sqrt((n^2 - sum_k p_k^2) (n^2 - sum_k a_k^2))`.
    fn matthews(&self) -> f64 {
        // Sums of squares of counts overflow 64 bits sooner than they lose anything that matters in `f64`.
        let product = |a: &[usize], b: &[usize]| -> f64 {
            a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum()
        };
        let rows = self.examples as f64;
        let hits = self.hits.iter().sum::<usize>() as f64;
        let covariance = rows * hits - product(&self.actual, &self.predicted);
        let of_predicted = rows * rows - product(&self.predicted, &self.predicted);
        let of_actual = rows * rows - product(&self.actual, &self.actual);
        let product = of_predicted * of_actual;
        if product == 0.0 {
            0.0
        } else {
            covariance / product.sqrt()
        }
    }
}

/// `2 hits / (actual + predicted)`, 0 where there are neither.
fn f1(hits: usize, actual: usize, predicted: usize) -> f64 {
    match actual + predicted {
        0 => 0.0,
        both => 2.0 * hits as f64 / both as f64,
    }
}

/// The mean over classes of `log(1 + exp(z)) - y z`.
fn binary_cross_entropy(logits: &[f32], classes: &[usize]) -> f64 {
    let loss = |(class, logit): (usize, &f32)| {
        let logit = f64::from(*logit);
        // Written so that nothing overflows: log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)).
        let soft_plus = logit.max(0.0) + (-logit.abs()).exp().ln_1p();
        soft_plus - if classes.contains(&class) { logit } else { 0.0 }
    };
    logits.iter().enumerate().map(loss).sum::<f64>() / logits.len() as f64
}
