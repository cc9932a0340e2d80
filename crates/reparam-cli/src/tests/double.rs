//! An engine that computes nothing and reports what it was asked.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use reparam_data::Format;
use reparam_train::bench::{BenchReport, BenchRequest, OperationReport};
use reparam_train::config::{Precision, RegressionConfig, TaskConfig};
use reparam_train::event::{
    Event, Failure, FailureKind, Finished, Observer, RegressionReport, RegressionStart, Start,
    Step, StopReason,
};
use reparam_train::regression::Prediction;
use reparam_train::study::{Study, StudyRequest, StudyRun};
use serde_json::json;

use crate::engine::*;

/// What the double does with a run.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Behaviour {
    #[default]
    Finishes,
    IsInterrupted,
    Diverges,
    Panics,
}

/// An engine that computes nothing and reports what it was asked.
pub(super) struct Double {
    pub(super) behaviour: Behaviour,
    pub(super) settings: EngineSettings,
}

impl Double {
    fn error() -> EngineError {
        EngineError::new(
            FailureKind::Data,
            io::Error::other("no such model"),
            ["check the path".to_owned()],
        )
    }
}

/// Tells of a regression that learns something.
fn regress(config: &RegressionConfig, observer: &mut dyn Observer) -> TrainOutcome {
    let evaluation = |step, test_mse, test_r2| Event::RegressionEvaluation {
        step,
        test_mse,
        test_r2,
    };
    let events = [
        Event::RegressionStart(RegressionStart {
            model: "linear".into(),
            method: config.method.kind.clone(),
            trainable_parameters: 3,
            features: vec!["a".into(), "b".into()],
            target: "y".into(),
            train_rows: 1600,
            test_rows: 1,
            dropped_rows: 2,
            max_steps: 2,
            batch_size: 1600,
            learning_rate: config.optimizer.learning_rate,
            lambda: Some(0.25),
            seed: config.train.seed,
            output: config.output.dir.clone(),
        }),
        evaluation(0, 4000.0, Some(-0.5)),
        Event::Step(Step {
            step: 1,
            loss: 1.5,
            learning_rate: 0.1,
            grad_norm: 2.0,
            tokens: 1600,
            tokens_per_s: 1e6,
            peak_rss_bytes: 1 << 24,
            variances: None,
        }),
        evaluation(1, 0.000_25, None),
        Event::Stopped {
            step: 1,
            reason: StopReason::GradNorm {
                grad_norm: 1.5e-4,
                bound: 1e-3,
            },
        },
        Event::RegressionReport(RegressionReport {
            train_mse: 2.5,
            test_mse: 0.000_000_25,
            test_r2: None,
            least_squares_test_mse: Some(0.125),
            least_squares_test_r2: Some(0.75),
            distance_to_least_squares: Some(2e-3),
            is_least_squares: Some(false),
            coefficients: Some(vec![1.0, -1.0]),
            intercept: Some(0.5),
        }),
        Event::Saved {
            step: 1,
            path: "runs/a/model".into(),
        },
        Event::Finished(Finished {
            steps: 1,
            seconds: 0.25,
            loss_before: Some(4000.0),
            loss_after: Some(0.000_25),
            adapter: None,
            model: Some("runs/a/model".into()),
        }),
    ];
    events.iter().for_each(|event| observer.on_event(event));
    TrainOutcome::Finished
}

impl Engine for Double {
    fn train(
        &self,
        request: TrainRequest,
        observer: &mut dyn Observer,
    ) -> Result<TrainOutcome, EngineError> {
        let config = match request.config {
            TaskConfig::CausalLm(config) => config,
            TaskConfig::Regression(config) => return Ok(regress(&config, observer)),
        };
        observer.on_event(&Event::Start(Start {
            method: config.method.kind.clone(),
            model: config.model.path,
            trainable_parameters: 1000,
            total_parameters: 8000,
            model_parameters: 7000,
            targets: vec!["q_proj".into(), "v_proj".into()],
            scaling: Some(2.0),
            train_tokens: 12_345,
            labelled_tokens: 12_000,
            cut_examples: 3,
            blocks: 24,
            eval_tokens: 600,
            max_steps: 40,
            batch_size: 4,
            sequence_length: 512,
            gradient_accumulation: 2,
            precision: "f32".into(),
            lambda: Some(0.5),
            threads: self.settings.threads.map_or(2, |n| n.get() as u64),
            seed: config.train.seed,
            output: config.output.dir,
        }));
        let evaluation = |step, loss: f64| Event::Evaluation {
            step,
            loss,
            perplexity: loss.exp(),
            tokens: 600,
        };
        observer.on_event(&evaluation(0, 2.0));
        observer.on_event(&Event::Sample {
            step: 0,
            prompt: "Once".into(),
            text: " upon".into(),
        });
        for step in 1..=40 {
            if request.stop.load(Ordering::Relaxed)
                || (self.behaviour == Behaviour::IsInterrupted && step == 3)
            {
                let step = step - 1;
                observer.on_event(&Event::Interrupted { step });
                return Ok(TrainOutcome::Interrupted { step });
            }
            match self.behaviour {
                Behaviour::Panics => panic!("index out of bounds"),
                Behaviour::Diverges => {
                    let error = "the loss is NaN at step 1";
                    let hint = "lower the learning rate".to_owned();
                    observer.on_event(&Event::Failed {
                        error: Failure {
                            message: error.into(),
                            kind: FailureKind::Diverged,
                            hints: vec![hint.clone()],
                        },
                    });
                    return Err(EngineError::new(FailureKind::Diverged, error, [hint]));
                }
                Behaviour::Finishes | Behaviour::IsInterrupted => {}
            }
            observer.on_event(&Event::Step(Step {
                step,
                loss: 2.0 - step as f64 / 100.0,
                learning_rate: 2e-4,
                grad_norm: 0.5,
                tokens: 4000,
                tokens_per_s: 1234.0,
                peak_rss_bytes: 3 << 29,
                variances: None,
            }));
        }
        observer.on_event(&Event::Saved {
            step: 40,
            path: "runs/a/adapter".into(),
        });
        observer.on_event(&evaluation(40, 1.5));
        observer.on_event(&Event::Finished(Finished {
            steps: 40,
            seconds: 75.0,
            loss_before: Some(2.0),
            loss_after: Some(1.5),
            adapter: Some("runs/a/adapter".into()),
            model: None,
        }));
        Ok(TrainOutcome::Finished)
    }

    fn study(
        &self,
        request: StudyRequest,
        stop: &AtomicBool,
        on_run: &mut dyn FnMut(&StudyRun),
    ) -> Result<Option<Study>, EngineError> {
        if self.behaviour == Behaviour::IsInterrupted || stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let run = |label: &str, failed: Option<&str>| StudyRun {
            label: label.into(),
            directory: "studies/a/run-01".into(),
            failed: failed.map(str::to_owned),
            diverged: failed.is_some(),
            reason: None,
            steps: 1000,
            held_out_before: Some(2.0),
            held_out_after: failed.is_none().then_some(0.5),
            first_loss: 2.0,
            last_loss: 0.25,
            longest_step: 0.125,
            grad_variance: 4.0,
            update_variance: 0.04,
        };
        assert_eq!(request.vary.len(), 1);
        let runs = vec![run("lambda=0.1", None), run("lambda=30", Some("it grew"))];
        runs.iter().for_each(on_run);
        Ok(Some(Study {
            runs,
            page: "studies/a/study.html".into(),
        }))
    }

    fn predict(&self, request: PredictRequest) -> Result<Prediction, EngineError> {
        if request.model == Path::new("absent") {
            return Err(Self::error());
        }
        Ok(Prediction {
            target: "price, in euro".into(),
            rows: vec![0, 2],
            predictions: vec![1.5, -2.0],
            dropped: if request.drop_rows {
                vec![3]
            } else {
                Vec::new()
            },
            mse: Some(0.25),
            r2: Some(0.5),
        })
    }

    fn eval(&self, request: EvalRequest) -> Result<EvalReport, EngineError> {
        if request.model == "absent" {
            return Err(Self::error());
        }
        let expected = EvalRequest {
            model: "base".into(),
            adapter: Some("runs/a/adapter".into()),
            data: "test.txt".into(),
            format: Some(Format::Text),
            sequence_length: 64,
            precision: Precision::F32,
        };
        assert_eq!(request, expected);
        Ok(EvalReport {
            loss: 1.25,
            perplexity: 1.25_f64.exp(),
            tokens: 1234,
        })
    }

    fn generate(
        &self,
        request: GenerateRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GenerateReport, EngineError> {
        let mut report = GenerateReport {
            text: String::new(),
            tokens: Vec::new(),
            prompt_tokens: request.prompt.len(),
            finish_reason: FinishReason::EndOfText,
            tokens_per_s: 10.0,
        };
        let word = match request.sampling {
            Sampling::Greedy => " day",
            Sampling::Random { .. } => " night",
        };
        for id in 0..request.max_new_tokens {
            report.text.push_str(word);
            report.tokens.push(id as u32);
            if on_text(word).is_break() {
                report.finish_reason = FinishReason::Stopped;
                return Ok(report);
            }
            // A prompt that is a question is answered in one word.
            if request.prompt.ends_with('?') {
                return Ok(report);
            }
        }
        report.finish_reason = FinishReason::MaxNewTokens;
        Ok(report)
    }

    fn inspect(&self, request: InspectRequest) -> Result<InspectReport, EngineError> {
        if request.path == Path::new("absent") {
            return Err(Self::error());
        }
        let tensor = |name: &str, shape: &[u64]| TensorInfo {
            name: name.into(),
            dtype: "F32".into(),
            shape: shape.to_vec(),
            bytes: 4 * shape.iter().product::<u64>(),
        };
        Ok(InspectReport {
            kind: "adapter".into(),
            properties: vec![
                ("rank".into(), json!(16)),
                ("target_modules".into(), json!(["q_proj"])),
                ("base".into(), json!("base")),
            ],
            tensors: vec![
                tensor("q.lora_A.weight", &[16, 64]),
                tensor("q.lora_B.weight", &[2048, 16]),
            ],
        })
    }

    fn bench(&self, request: BenchRequest) -> Result<BenchReport, EngineError> {
        Ok(BenchReport {
            program: "reparam",
            version: "0",
            precision: "bf16",
            isa: "portable",
            threads: 2,
            cpu: "a double".into(),
            batch_size: request.batch_size,
            sequence_length: request.sequence_length,
            rank: request.rank,
            recompute: request.recompute,
            load_seconds: 0.25,
            step_seconds: vec![0.5; request.steps],
            step_seconds_median: 0.5,
            tokens_per_s: 2.0 * (request.batch_size * request.sequence_length) as f64,
            losses: vec![1.5; request.warmup + request.steps],
            peak_rss_bytes: 64 << 20,
            minor_page_faults: vec![3; request.steps],
            operations: vec![OperationReport {
                name: "linear",
                seconds: 0.25,
                gflop: 100.0,
                share: 0.5,
            }],
            limit_gflops: 800.0,
            linear_gflops: 400.0,
            linear_share_of_limit: 0.5,
        })
    }

    fn capabilities(&self) -> Vec<(String, String)> {
        let isa = self.settings.isa.clone();
        vec![("isa".into(), isa.unwrap_or_else(|| "portable".into()))]
    }
}
