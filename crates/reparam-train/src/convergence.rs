//! When a run ends before its last step.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::config::StopConfig;
use crate::event::StopReason;
use crate::metrics::is_better;

/// Watches a run for the conditions of [`StopConfig`].
#[derive(Debug, Default)]
pub(crate) struct Convergence {
    config: StopConfig,
    pub(crate) seen: Seen,
}

/// What has been seen of a run so far; a part of its state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The losses of the last two windows of steps.
    losses: VecDeque<f64>,
    /// The best value of the measure that decides.
    best: Option<f64>,
    /// Evaluations in a row without a better one.
    without_progress: u64,
}

impl Convergence {
    /// Starts to watch.
    pub(crate) fn new(config: StopConfig) -> Self {
        Self {
            config,
            seen: Seen::default(),
        }
    }

    /// Is told of a step that moved the parameters: its loss and gradient.
    ///
    /// The loss has converged when its mean over a window of steps differs from the mean over the window
    /// before by less than the given fraction of it.
    pub(crate) fn after_step(&mut self, loss: f64, grad_norm: f64) -> Option<StopReason> {
        if let Some(bound) = self.config.stop_grad_norm
            && grad_norm < bound
        {
            return Some(StopReason::GradNorm { grad_norm, bound });
        }
        let bound = self.config.stop_loss_change?;
        let window = self
            .config
            .stop_window
            .unwrap_or(StopConfig::DEFAULT_WINDOW);
        let most = usize::MAX / 2;
        let window = usize::try_from(window).map_or(most, |window| window.min(most));
        self.seen.losses.push_back(loss);
        if self.seen.losses.len() > 2 * window {
            self.seen.losses.pop_front();
        }
        if self.seen.losses.len() < 2 * window {
            return None;
        }
        let mean = |losses: &mut dyn Iterator<Item = &f64>| losses.sum::<f64>() / window as f64;
        let before = mean(&mut self.seen.losses.iter().take(window));
        let now = mean(&mut self.seen.losses.iter().skip(window));
        // A loss of exactly zero cannot change for the better.
        let change = if before == 0.0 {
            0.0
        } else {
            (now - before).abs() / before.abs()
        };
        (change < bound).then_some(StopReason::LossChange {
            change,
            bound,
            window: window as u64,
        })
    }

    /// Is told of the measure that decides, before the first step and then after evaluations.
    ///
    /// What the run starts from counts as the best so far.
    pub(crate) fn after_evaluation(
        &mut self,
        value: f64,
        lower_is_better: bool,
    ) -> Option<StopReason> {
        let patience = self.config.patience?;
        let seen = &mut self.seen;
        let is_better = |best: f64| is_better(value, best, lower_is_better);
        if seen.best.is_none_or(is_better) {
            seen.best = Some(value);
            seen.without_progress = 0;
            return None;
        }
        seen.without_progress += 1;
        (seen.without_progress >= patience).then_some(StopReason::Patience {
            evaluations: seen.without_progress,
            best: seen.best.unwrap_or(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(config: StopConfig) -> Convergence {
        Convergence::new(config)
    }

    #[test]
    fn nothing_stops_a_run_without_conditions() {
        let mut convergence = watch(StopConfig::default());
        for _ in 0..100 {
            assert_eq!(convergence.after_step(1.0, 0.0), None);
            assert_eq!(convergence.after_evaluation(1.0, true), None);
        }
    }

    #[test]
    fn the_loss_converges_when_two_windows_are_alike() {
        let mut convergence = watch(StopConfig {
            stop_loss_change: Some(0.01),
            stop_window: Some(5),
            ..StopConfig::default()
        });
        // Falls by a tenth each step for long enough, then stays.
        let losses = (0..30).map(|step| 0.9_f64.powi(step.min(20)));
        let stopped = losses
            .enumerate()
            .find_map(|(step, loss)| Some((step, convergence.after_step(loss, 1.0)?)));
        let (step, reason) = stopped.expect("it stays in the end");
        assert!((24..=29).contains(&step), "{step}");
        let StopReason::LossChange { change, window, .. } = reason else {
            panic!("{reason:?}");
        };
        assert!(change < 0.01 && window == 5);
    }

    #[test]
    fn a_window_longer_than_any_run_is_never_full() {
        let config = StopConfig {
            stop_loss_change: Some(0.5),
            stop_window: Some(u64::MAX),
            ..StopConfig::default()
        };
        let mut convergence = watch(config);
        for _ in 0..100 {
            assert_eq!(convergence.after_step(1.0, 1.0), None);
        }
    }

    #[test]
    fn a_noisy_loss_has_not_converged_at_the_first_pair_of_equal_steps() {
        let mut convergence = watch(StopConfig {
            stop_loss_change: Some(1e-3),
            stop_window: Some(4),
            ..StopConfig::default()
        });
        for step in 0..7 {
            assert_eq!(convergence.after_step(1.0, 1.0), None, "{step}");
        }
        assert!(convergence.after_step(1.0, 1.0).is_some());
    }

    #[test]
    fn a_small_gradient_stops() {
        let mut convergence = watch(StopConfig {
            stop_grad_norm: Some(1e-3),
            ..StopConfig::default()
        });
        assert_eq!(convergence.after_step(1.0, 1e-3), None);
        let reason = convergence.after_step(1.0, 1e-4);
        assert!(matches!(reason, Some(StopReason::GradNorm { .. })));
    }

    #[test]
    fn patience_counts_evaluations_in_a_row() {
        let mut convergence = watch(StopConfig {
            patience: Some(2),
            ..StopConfig::default()
        });
        for loss in [1.0, 1.1, 0.9, 0.9] {
            assert_eq!(convergence.after_evaluation(loss, true), None, "{loss}");
        }
        // What the run starts from counts as the best so far.
        let mut worse = Convergence::new(convergence.config);
        for value in [0.5, 0.6] {
            assert_eq!(worse.after_evaluation(value, true), None);
        }
        assert!(worse.after_evaluation(0.55, true).is_some());
        // Of an accuracy more is better.
        let mut accuracy = Convergence::new(convergence.config);
        for value in [0.5, 0.6, 0.55] {
            assert_eq!(accuracy.after_evaluation(value, false), None);
        }
        assert!(accuracy.after_evaluation(0.6, false).is_some());
        assert_eq!(
            convergence.after_evaluation(0.95, true),
            Some(StopReason::Patience {
                evaluations: 2,
                best: 0.9
            })
        );
    }
}
