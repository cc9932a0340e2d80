//! What to do about an error.

use reparam_formats::{nearest, shown};

use super::TrainError;
use crate::numbers::{bytes, readable};

impl TrainError {
    /// Says what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Format(error) => error.hint(),
            Self::ModelConfig(error) => error.hint(),
            Self::Peft(error) => error.hint(),
            Self::Gguf(error) => error.hint(),
            Self::Mlx(error) => error.hint(),
            Self::Merge(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::ModelOfAnotherKind { error, advice } => {
                let hints = error.hint().into_iter().chain([advice.clone()]);
                Some(hints.collect::<Vec<_>>().join("; "))
            }
            Self::Phi(error) => error.hint(),
            Self::Update(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::DoesNotFit {
                largest: (setting, part),
                ..
            } => Some(format!(
                "lower {setting}, which takes {} of it",
                bytes(*part)
            )),
            Self::Preflight { findings } => {
                let hints = findings.iter().filter_map(|finding| finding.hint.clone());
                Some(hints.collect::<Vec<_>>().join("; "))
            }
            Self::OutputTaken { .. } => Some(
                "choose another directory with --output; `train` continues a run with --resume and replaces it with --force"
                    .into(),
            ),
            Self::NoMethod => Some("set `method`, or `adapter` of the model".into()),
            Self::OutputInUse { .. } => Some("wait for it, or choose another directory".into()),
            Self::OldRun { .. } => {
                Some("choose another directory with --output, or replace this one with --force".into())
            }
            Self::ResumeDiffers { .. } => Some(
                "resume with what the run was started with, or start a new run with another --output, or with --force in its place"
                    .into(),
            ),
            Self::CheckpointMixed { .. } => Some("remove this checkpoint".into()),
            Self::NoState { .. } => {
                Some("remove the newest checkpoint, whose carried.safetensors is gone or not its own".into())
            }
            Self::Stateless { .. } => {
                Some("remove `carry_state`, which is for recurrent models; others see the tokens of one piece".into())
            }
            Self::Interrupted | Self::NotForTask { .. } | Self::Task(_) => None,
            Self::NoFields { option, .. } => Some(format!("leave {option} out")),
            Self::NeedsArchitecture { known, .. } => Some(format!(
                "set model.architecture to {}",
                known.join(" or ")
            )),
            Self::NeedsWords => Some(
                "set model.tokenizer = { kind = \"word_level\", min_count = 5 }".into(),
            ),
            Self::NoVector { .. } => Some(
                "words are asked for as the texts had them after data.text, in lower case where that says so".into(),
            ),
            Self::NoCommonWords { .. } => Some(
                "take vectors and words of the same language, split and lower-cased in the same way".into(),
            ),
            Self::VectorWidth { found, .. } => Some(format!(
                "set the width of the token vectors to {found} in model.config, such as embedding_size of recurrent nets"
            )),
            Self::WordVectors(error) => error.hint(),
            Self::Examples(error) => error.hint(),
            Self::WordPairs(error) => error.hint(),
            Self::Preprocess(error) => error.hint(),
            Self::Vocabulary(error) => error.hint(),
            Self::NoSentenceMarks => Some(
                "add `sentence_marks = true` to model.tokenizer, or take the tokenizer of a model that has an eos_token"
                    .into(),
            ),
            Self::SmallVocabulary { .. } => Some(
                "leave vocab_size out of model.config, which then is the tokenizer's, or lower vocab_size in model.tokenizer"
                    .into(),
            ),
            Self::UnreadKey { key, known, .. } => {
                let names = known.iter().map(String::as_str);
                Some(match nearest(key, names) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("it reads {}", known.join(", ")),
                })
            }
            Self::NoMaskToken { .. } => Some(
                "use a model that was trained to guess masked tokens, such as a bert or roberta model, or name its \
                 `mask_token` in tokenizer_config.json"
                    .into(),
            ),
            Self::HeadNotSaved { module } => Some(format!(
                "its training drew the layer and did not save it; train again with `{module}` in modules_to_save"
            )),
            Self::LossNeeds { .. } => {
                Some("name the columns with `fields` (or --fields), or choose another `loss`".into())
            }
            Self::OptionOfMethod { option, .. } => Some(format!("leave {option} out")),
            Self::NoSuchBaseline { .. } => Some("use --baseline zero".into()),
            Self::NoAttention => {
                Some("use --method integrated-gradients, gradient-x-input or occlusion".into())
            }
            Self::NoTokenVectors | Self::NothingToExplain { .. } => None,
            Self::NoSuchLabel { label, labels } => Some(meant(label, labels)),
            Self::WrongLabels { option, .. } => Some(format!("leave {option} out")),
            Self::WeightOfNoLabel { label, labels } => Some(meant(label, labels)),
            Self::NothingHeldOut { .. } => {
                Some("give `eval` or a positive `eval_fraction` in [data]".into())
            }
            Self::UnknownMetric { metric, known } => {
                let nearest = nearest(metric, known.iter().map(String::as_str));
                let meant = nearest.map_or_else(String::new, |name| format!("did you mean `{name}`? "));
                Some(format!("{meant}set train.metric to one of {}", known.join(", ")))
            }
            Self::MetricWithoutValue { .. } => Some(
                "choose another train.metric, or hold out rows that it can be measured on".into(),
            ),
            Self::NoCorrelation => Some(
                "give rows with different scores; of a run, name them with `eval`, or hold more out with `eval_fraction`"
                    .into(),
            ),
            Self::NothingToMask => Some("name files with text in them".into()),
            Self::Remembered {
                path,
                options,
                source,
            } => {
                let from = format!(
                    "the data are read as those of the model's run were, which {} says; say otherwise with {options}",
                    path.display()
                );
                Some(match source.hint() {
                    Some(hint) => format!("{hint}; {from}"),
                    None => from,
                })
            }
            Self::Rows(error) => error.hint(),
            Self::Card { .. } => Some("the file may be damaged; make the result again".into()),
            Self::LabelCount { n_classes, .. } => Some(format!(
                "give {n_classes} labels there, in the order of the head's rows"
            )),
            Self::TokenType { .. } => {
                Some("use the tokenizer that belongs to the model, or rows without text_pair".into())
            }
            Self::NoTask { tasks, .. } | Self::UnknownTask { tasks, .. } => {
                Some(format!("choose one with --task: {}", tasks.join(", ")))
            }
            Self::Warmup { .. } => {
                Some("shorten the warm-up, or lengthen the run with train.max_steps".into())
            }
            Self::RecomputeInF32 => {
                Some("remove it, or use precision = \"bf16\" (or --precision bf16), which rounds weights stored in other types".into())
            }
            Self::NothingRecomputed => Some("remove train.recompute, or set model.dropout = 0".into()),
            Self::Int8InTraining => Some("use \"auto\", \"bf16\" or \"f32\"".into()),
            Self::Tabular(error) => error.hint(),
            Self::NetworkTooLarge { .. } => Some("make the layers of model.hidden narrower".into()),
            Self::ScheduleTooLong { .. } => {
                Some("shorten the warm-up or optimizer.decay_ratio".into())
            }
            Self::NothingToVary => Some("give --vary optimizer.lambda=0.1,1 or the like".into()),
            Self::Vary(error) => error.hint(),
            Self::StudyRun { source, .. } => source.hint(),
            Self::Plot(_) | Self::NoThread { .. } => None,
            Self::NotARegression { .. } => {
                Some("give the run directory of a regression, or the model directory in it".into())
            }
            Self::PredictionNotFinite { .. } => Some(
                "check the row's values against the columns that the model was trained on".into(),
            ),
            Self::BatchTooLarge { rows, .. } => Some(format!(
                "set train.batch_size to at most {rows}, or leave it out to take all rows"
            )),
            Self::Grew { stable_rate, .. } => Some(match stable_rate {
                Some(rate) => format!(
                    "lower optimizer.learning_rate or optimizer.lambda: plain descent on this data is stable \
                     while their product is below {}",
                    readable(*rate)
                ),
                None => "lower optimizer.learning_rate, or warm it up".into(),
            }),
            Self::LossNotFinite => {
                Some("the weights or the adapter are damaged, or the adapter diverged".into())
            }
            Self::Output { .. } => {
                Some("choose a writable directory with --output or output.dir".into())
            }
            Self::TiedTokens { .. } => Some(
                "train it with the same tokens for both, which PEFT does with a list of trainable_token_indices".into(),
            ),
            Self::TokensAndHead { .. } => Some(
                "leave the head out of target_modules, or merge it into its base with PEFT (merge_and_unload)".into(),
            ),
            Self::AdapterTokenizer { .. } => Some(
                "open base and adapter together: Session::open_request with ModelRequest::with_adapter".into(),
            ),
            Self::TokensBeyond { .. } => Some(
                "put the tokenizer that it was trained with (tokenizer.json) into the directory of the adapter".into(),
            ),
            Self::TokensOverAdapter => Some(
                "merge the adapter into its base first (reparam merge), and train that with the new tokens".into(),
            ),
            Self::HeadBias { .. } => {
                Some("train the whole model: set `kind` to full in [method]".into())
            }
            Self::NoSuchAdapter { .. } => Some(
                "give the directory that has adapter_config.json, such as runs/a/adapter".into(),
            ),
            Self::NoRank { .. } => Some("leave out --rank".into()),
            Self::RunOfAdapter { directory } => Some(format!(
                "give its base with --model, and {} with --adapter",
                directory.join("adapter").display()
            )),
            Self::AdapterAsModel { adapter, base } => Some(format!(
                "give its base as the model, and it as the adapter: --model {} --adapter {}",
                base.as_deref().unwrap_or("BASE"),
                adapter.display()
            )),
            Self::NoSuchBase { adapter, .. } => Some(format!(
                "say where the base is: --model BASE --adapter {}; a path in adapter_config.json is taken from \
                 the directory that the command runs in",
                adapter.display()
            )),
            Self::SeveralRuns { path, runs } => Some(format!(
                "give one of them: {}",
                runs.iter()
                    .take(10)
                    .map(|run| path.join(run).display().to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
            Self::Diverged { last_saved, .. } | Self::Vanished { last_saved, .. } => {
                let saved = match last_saved {
                    Some(path) => format!("; the last saved adapter is {}", path.display()),
                    None => String::new(),
                };
                Some(format!(
                    "lower the learning rate, warm it up, or clip the gradients{saved}"
                ))
            }
        }
    }
}

/// Says which label was meant, or which there are.
fn meant(label: &str, labels: &[String]) -> String {
    match nearest(label, labels.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{}`?", shown(name)),
        None => {
            let some = labels.iter().take(10).map(|name| shown(name).to_string());
            format!("the labels are {}", some.collect::<Vec<_>>().join(", "))
        }
    }
}
