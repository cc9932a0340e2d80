//! How much each class weighs in the training loss.

use burn::tensor::Tensor;
use reparam::schema::{Range, SettingKind, SettingSpec, SettingValue, optional};
use reparam_data::rows::LabelKind;
use reparam_models::{ClassTargets, class_loss};

use super::Rules;
use crate::{Result, TrainError};

const BALANCED: &str = "balanced";

/// `class_weights` in `[data]`.
pub(in crate::tasks) const CLASS_WEIGHTS: SettingSpec = optional(
    "class_weights",
    SettingKind::WordOrNumberByName(&[BALANCED], Range::Factor),
    "none",
    "how much each label weighs in the training loss: balanced gives n / (k * count) to a label that count of n \
     examples have, of k labels; or a table of label = weight, with 1 for the others",
);

/// Returns the weight of each class, or nothing if all weigh the same; `classes` are those of what is learned.
pub(in crate::tasks) fn class_weights(
    rules: &Rules,
    classes: impl Iterator<Item = usize>,
) -> Result<Vec<f32>> {
    let Ok(asked) = rules.settings.value(CLASS_WEIGHTS.key) else {
        return Ok(Vec::new());
    };
    let names = rules.labels.names();
    if rules.labels.kind() == LabelKind::Several {
        return Err(TrainError::WrongLabels {
            option: "data.class_weights",
            several: false,
        });
    }
    let SettingValue::NumberByName(given) = asked else {
        return Ok(balanced(names.len(), classes));
    };
    let mut weights = vec![1.0; names.len()];
    for (label, weight) in given {
        let class = names.iter().position(|name| name == label);
        let class = class.ok_or_else(|| TrainError::WeightOfNoLabel {
            label: label.clone(),
            labels: names.to_vec(),
        })?;
        weights[class] = *weight as f32;
    }
    Ok(weights)
}

/// As scikit-learn's `compute_class_weight`, over the classes that occur: one that does not is never weighed.
fn balanced(n_classes: usize, classes: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut counts = vec![0_u64; n_classes];
    classes.for_each(|class| counts[class] += 1);
    let n = counts.iter().sum::<u64>() as f64;
    let k = counts.iter().filter(|count| **count > 0).count() as f64;
    let weight = |count: u64| match count {
        0 => 1.0,
        count => (n / (k * count as f64)) as f32,
    };
    counts.into_iter().map(weight).collect()
}

/// Returns the scaled sum of the weighted losses of rows or tokens of one class each, `[1]`.
pub(in crate::tasks) fn one_class_loss(
    logits: Tensor<2>,
    classes: &[usize],
    rules: &Rules,
    scale: f32,
) -> Tensor<1> {
    if rules.class_weights.is_empty() {
        return class_loss(logits, ClassTargets::One(classes), scale);
    }
    let weights = classes.iter().map(|class| rules.class_weight(*class));
    let weights: Vec<f32> = weights.collect();
    class_loss(logits, ClassTargets::Weighted(classes, &weights), scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `compute_class_weight("balanced", classes=[0, 1, 3], y=[0, 0, 0, 1, 3, 3])` of scikit-learn.
    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        let weights = balanced(4, [0, 0, 0, 1, 3, 3].into_iter());
        let expected = [2.0 / 3.0, 2.0, 1.0, 1.0];
        for (weight, expected) in weights.iter().zip(expected) {
            assert!((f64::from(*weight) - expected).abs() < 1e-7, "{weights:?}");
        }
        // The mean weight of what is learned is one, so that losses keep their size.
        let of = |class: usize| f64::from(weights[class]);
        let sum: f64 = [0, 0, 0, 1, 3, 3].into_iter().map(of).sum();
        assert!((sum - 6.0).abs() < 1e-6, "{sum}");
    }
}
