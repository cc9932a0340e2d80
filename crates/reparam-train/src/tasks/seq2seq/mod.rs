//! The task `seq2seq`: writing a target for a source, such as a translation or a summary.

mod measure;
mod pairs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use reparam::ForwardContext;
use reparam::methods::AdapterMeta;
use reparam::schema::{Fallback, Range, SettingKind, SettingSpec, number};
use reparam_data::rows::{RowFormat, Rows};
use reparam_data::{BatchPlan, OnError, Phase, Size, TextTokenizer};
use reparam_formats::config::JsonObject;
use reparam_formats::hub::HubOptions;
use reparam_models::{DecodingConfig, NewModel, Precision, Sampling, Seq2SeqLm};
use serde_json::{Map, Value, json};

use self::measure::{Written, loss, write};
use self::pairs::{Lengths, Pair, Pairs, SequenceCard, texts};
use super::pretrained::{
    Adapter, Beginning, Learned, Loaded, Saved, check_recompute, findings, is_of_class, prepare,
    token_bytes,
};
use crate::adapter::attach;
use crate::cards::{self, CARD_FILE};
use crate::config::{EvalData, RowsConfig, RowsKeys};
use crate::learner::Objective;
use crate::model_files::GENERATION;
use crate::new_model::Recipe;
use crate::numbers::csv_cell;
use crate::open::{OpenedModel, data_files};
use crate::preflight::Footprint;
use crate::seen::{Look, Seen, SeenRow, Survey, Surveyed, Token};
use crate::session::{load_adapter, misfit};
use crate::task::{
    BaseOrigin, DECODING, Decoding, EvalRequest, GENERATE, ModelRequest, PredictRequest,
    Predictions, Prepared, TARGETS, Task,
};
use crate::{Metrics, Result, Stop, TrainError};

/// The settings of `[data]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairKeys;

/// The most tokens of a target, EOS included, where nothing else is asked for.
const TARGET_LENGTH: usize = 128;

impl RowsKeys for PairKeys {
    type Format = RowFormat;
    const OWN: &'static [SettingSpec] = &[
        SettingSpec::new(
            "max_target_length",
            SettingKind::Count {
                least: 2,
                most: u64::MAX,
            },
            Fallback::Count(TARGET_LENGTH as u64),
            "maximum tokens of a target, its end included; longer ones are cut",
        ),
        number(
            "label_smoothing",
            Range::BelowOne,
            0.0,
            "share of the probability that is spread over all tokens, in training alone",
        ),
    ];
}

/// Sources with their targets.
#[derive(Debug)]
pub struct SequenceToSequence {
    train: Vec<Pair>,
    eval: Option<Vec<Pair>>,
    /// Which pairs a micro-batch has.
    plan: BatchPlan,
    label_smoothing: f32,
    lengths: Lengths,
    card: SequenceCard,
    /// The base's `config.json`.
    config: Map<String, Value>,
    result: Saved,
}

impl Objective for SequenceToSequence {
    type Model = Seq2SeqLm;

    fn weight(&self, pass: u64) -> f64 {
        let pairs = self.plan.batch(pass).into_iter();
        let labels = pairs.map(|pair| self.train[pair].labels.len());
        labels.sum::<usize>() as f64
    }

    fn epochs(&self, pass: u64) -> Option<f64> {
        Some(self.plan.epochs_before(pass))
    }

    fn tokens(&self, pass: u64) -> usize {
        let pairs = self.plan.batch(pass).into_iter();
        pairs.map(|pair| self.train[pair].n_tokens()).sum()
    }

    fn loss(
        &self,
        model: &Seq2SeqLm,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>> {
        let pairs = self.plan.batch(pass).into_iter();
        let pairs: Vec<&Pair> = pairs.map(|pair| &self.train[pair]).collect();
        let scale = (1.0 / total) as f32;
        Ok(loss(model, &pairs, (scale, self.label_smoothing), context))
    }
}

impl Task for SequenceToSequence {
    const NAME: &'static str = "seq2seq";
    const SUMMARY: &'static str = "writes a target for a source, such as a translation";
    const UNIT: &'static str = "tokens";
    const TASK_TYPE: Option<&'static str> = Some("SEQ_2_SEQ_LM");
    const OPTIONS: &'static [&'static str] = &[GENERATE, DECODING, TARGETS];

    type Config = RowsConfig<PairKeys>;

    fn recognizes(config: &Value) -> bool {
        is_of_class(
            config,
            &["ForConditionalGeneration", "MTModel", "MarianMTModel"],
        )
    }

    fn prepare(config: &Self::Config, hub: &HubOptions, watch: Stop<'_>) -> Result<Prepared<Self>> {
        let (data, train_config) = (&config.data, &config.train);
        let beginning = Beginning::find(config, &config.model.hub(hub))?;
        let options = data.options();
        let (rows, mut skipped) = Pairs::read(
            &data_files(&data.train, hub, watch)?,
            &options,
            data.on_error,
        )?;
        let recipe = Recipe::of(config, NewModel::Seq2Seq);
        let opened = beginning.open(&recipe, || Ok(texts(&rows)))?;
        let lengths = Lengths {
            source: train_config.sequence_length,
            target: data.own.size("max_target_length")?,
        };
        let lengths = lengths.within(&opened.architecture);
        let first = decoding(&opened, false)?.forced_bos;
        let encode = |rows: Rows<_>| {
            Pairs::encode(
                rows,
                &opened.tokenizer,
                (lengths, first),
                data.on_error,
                watch,
            )
        };
        let mut left_out = rows.left_out.clone();
        let mut all = encode(rows)?;
        skipped.append(all.skipped);
        let (train, eval, held_out) = match &data.eval {
            EvalData::Files(paths) => {
                let (rows, unread) =
                    Pairs::read(&data_files(paths, hub, watch)?, &options, data.on_error)?;
                left_out.extend(rows.left_out.iter().cloned());
                let eval = encode(rows)?;
                skipped.append(unread);
                skipped.append(eval.skipped);
                all.files.extend(eval.files);
                (all.pairs, Some(eval.pairs), Vec::new())
            }
            EvalData::Fraction(0.0) => (all.pairs, None, Vec::new()),
            EvalData::Fraction(fraction) => {
                let size = Size {
                    fraction: *fraction,
                    max: data.eval_max.unwrap_or(u64::MAX),
                };
                let (train, eval, held_out) =
                    pairs::hold_out(all.pairs, &all.files, size, train_config.seed)?;
                (train, Some(eval), held_out)
            }
        };
        let truncated = train.iter().filter(|pair| pair.truncated).count();
        let tokens = |pairs: &[Pair]| -> usize { pairs.iter().map(Pair::n_tokens).sum() };
        let labels = |pairs: &[Pair]| -> usize { pairs.iter().map(|pair| pair.labels.len()).sum() };
        let learned = Learned {
            count: train.len(),
            tokens: tokens(&train),
            shuffle: data.shuffle,
            facts: json!({
                "train_rows": train.len(),
                "labelled_tokens": labels(&train),
                "eval_rows": eval.as_ref().map_or(0, Vec::len),
                "eval_tokens": eval.as_deref().map_or(0, labels),
                "sequence_length": lengths.source,
                "max_target_length": lengths.target,
                "truncated": truncated,
                "skipped": skipped.count,
                "skipped_rows": skipped.first,
                "left_out": left_out,
                "held_out": held_out,
            }),
            files: all.files,
        };
        // In f32, unless something else is asked for.
        let precision = train_config.precision.resolve(false);
        let mut model = load(&opened, precision)?;
        check_recompute(train_config.recompute, model.architecture(), precision)?;
        for stack in [&mut model.encoder, &mut model.decoder] {
            stack.recompute = train_config.recompute;
        }
        let card = SequenceCard::new(Self::NAME, lengths, &options);
        let config_json = opened.files.json().json.map().clone();
        let loaded = Loaded {
            new_rows: Vec::new(),
            token_bytes: token_bytes(model.architecture(), precision),
            model,
            files: [&BaseOrigin::FILES[..], &[GENERATION]].concat(),
            tokenizer: opened.tokenizer.digest().clone(),
            from: Arc::new(opened.files),
            precision,
            footprint: Some(Footprint::of(
                &opened.architecture,
                (precision, train_config.recompute),
            )),
            findings: findings(&opened.notes, &opened.tokenizer, &opened.architecture),
            adapter: Adapter::load(config)?,
        };
        let adapt = |model: Seq2SeqLm, _: &[_], _: &mut AdapterMeta| model;
        let label_smoothing = data.own.number("label_smoothing")? as f32;
        prepare(config, loaded, learned, adapt, |plan, result| Self {
            train,
            eval,
            plan,
            label_smoothing,
            lengths,
            card,
            config: config_json,
            result,
        })
    }

    fn evaluate(&self, model: &Seq2SeqLm, stop: Stop<'_>) -> Result<Option<Metrics>> {
        let eval = self.eval.as_ref();
        eval.map(|pairs| measure::measure(model, pairs, stop))
            .transpose()
    }

    /// Each source with its target behind it.
    fn seen(&self, look: &Look<'_>) -> Result<Option<Seen>> {
        let mut survey = Survey::default();
        for pair in &self.train {
            let row = Surveyed {
                tokens: pair.n_tokens(),
                labelled: pair.labels.len(),
                truncated: pair.truncated,
                content: Some(pair.content),
                path: Some(&pair.place.path),
            };
            survey.add(row, || pair.place.to_string());
        }
        for pair in self.eval.iter().flatten() {
            survey.held_out(pair.content, || pair.place.to_string());
        }
        let Lengths { source, target } = self.lengths;
        let mut seen = survey.finish("rows", source.saturating_add(target), true);
        if let Some(tokenizer) = look.tokenizer {
            for pair in self.train.iter().take(look.rows) {
                let target = pair.labels.iter().map(|id| Token {
                    learned: true,
                    ..Token::given(*id)
                });
                let source = pair.source.ids.iter().copied().map(Token::given);
                let tokens: Vec<Token> = source.chain(target).collect();
                let row = SeenRow::decode(tokenizer, &tokens)?;
                seen.examples.push(row.at(pair.place.to_string()));
            }
        }
        Ok(Some(seen))
    }

    fn save(&self, model: &Seq2SeqLm, directory: &Path) -> Result<()> {
        let whole = || {
            let mut config = self.config.clone();
            config.insert("architectures".to_owned(), json!([model.class()]));
            let config = cards::in_config(config, &self.card);
            (model.valid().to_tensors(), config)
        };
        let card = cards::text(&self.card);
        self.result
            .save(model, directory, &[(CARD_FILE, &card)], whole)
    }

    fn eval(request: &EvalRequest, hub: &HubOptions, stop: Stop<'_>) -> Result<Metrics> {
        request.data.refuse_template(Self::NAME)?;
        let draws = request.generate.is_some_and(draws);
        let asked = Asked::open((&request.model, draws), request.sequence_length, hub)?;
        let options = asked.card.options(&request.data)?;
        let on_error = request.data.on_error;
        let paths = data_files(&request.data.paths(), hub, stop)?;
        let read = Pairs::read(&paths, &options, on_error);
        let (rows, mut skipped) =
            read.map_err(|error| asked.remembered(error, request.data.is_as_in_run()))?;
        let (lengths, first) = (asked.lengths, asked.decoding.forced_bos);
        let tokenizer = &asked.tokenizer;
        let pairs = Pairs::encode(rows, tokenizer, (lengths, first), on_error, stop)?;
        skipped.append(pairs.skipped);
        let metrics = measure::measure(&asked.model, &pairs.pairs, stop)?;
        if !metrics.primary().is_finite() {
            return Err(TrainError::LossNotFinite);
        }
        let metrics = match on_error {
            OnError::Stop => metrics,
            OnError::Skip => metrics.with("skipped", skipped.count),
        };
        let Some(decoding) = request.generate else {
            return Ok(metrics);
        };
        let decoding = asked.decoding(decoding)?;
        let mut written = Written::new(&pairs.pairs);
        for (done, pair) in pairs.pairs.iter().enumerate() {
            stop.at(Phase::Evaluating, done as u64, pairs.pairs.len() as u64);
            let text = write(&asked.model, tokenizer, (&pair.source.ids, &decoding), stop)?;
            written.add(&text, pair);
        }
        Ok(written.add_to(metrics))
    }

    fn predict(
        request: &PredictRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
        to: &mut dyn Predictions,
    ) -> Result<()> {
        if request.drop_rows {
            return Err(TrainError::NoFields {
                task: Self::NAME,
                option: "--drop-rows",
            });
        }
        request.data.refuse_template(Self::NAME)?;
        let of = (&request.model, draws(request.decoding));
        let asked = Asked::open(of, request.sequence_length, hub)?;
        let options = asked.card.options(&request.data)?;
        let read = pairs::sources(&request.data, &options);
        let rows = read.map_err(|error| asked.remembered(error, request.data.is_as_in_run()))?;
        let mut decoding = asked.decoding(request.decoding)?;
        to.header("row,text");
        let (mut failed, mut cut) = (0, 0);
        let total = rows.len();
        for (number, row) in rows.into_iter().enumerate() {
            stop.check()?;
            decoding.stream = number as u64;
            let text = row.map_err(TrainError::from).and_then(|row| {
                let source = asked
                    .tokenizer
                    .encode_source(&row.source, asked.lengths.source)?;
                cut += usize::from(source.truncated);
                write(
                    &asked.model,
                    &asked.tokenizer,
                    (&source.ids, &decoding),
                    stop,
                )
            });
            let (object, line) = match text {
                Ok(text) => {
                    let line = format!("{number},{}", csv_cell(&text));
                    (json!({ "text": text }), line)
                }
                Err(TrainError::Interrupted) => return Err(TrainError::Interrupted),
                Err(error) if request.data.on_error == OnError::Stop => {
                    return Err(error);
                }
                Err(error) => {
                    failed += 1;
                    (
                        json!({ "row": number, "error": error.to_string() }),
                        format!("{number},"),
                    )
                }
            };
            if to.row(object, line).is_break() {
                return Ok(());
            }
        }
        if failed > 0 {
            to.note(format!("{failed} of {total} rows could not be read"));
        }
        if cut > 0 {
            to.note(format!("{cut} rows cut to {} tokens", asked.lengths.source));
        }
        Ok(())
    }
}

fn load(opened: &OpenedModel, precision: Precision) -> Result<Seq2SeqLm> {
    let place = (&Device::flex(), precision);
    let model = Seq2SeqLm::load(opened.files.weights(), opened.architecture.clone(), place);
    model.map_err(|error| misfit(error, opened.files.json()))
}

/// How a model searches for targets: what `generation_config.json` says, else what `config.json` does, as older models have it.
/// Whether and how tokens are drawn is for whoever asks to say; other keys that would draw them otherwise count only then.
fn decoding(opened: &OpenedModel, draws: bool) -> Result<DecodingConfig> {
    let json = opened.files.object(GENERATION)?;
    let json = json.as_ref().unwrap_or(&opened.files.json().json);
    let mut map = json.map().clone();
    let is_set = map.get("do_sample") == Some(&json!(true));
    map.insert("do_sample".to_owned(), json!(draws && is_set));
    if draws {
        map.insert("num_beams".to_owned(), json!(1));
    }
    let json = JsonObject::new(json.path(), map);
    Ok(DecodingConfig::read(&json, &opened.architecture)?)
}

/// Whether tokens are drawn.
fn draws(asked: Decoding) -> bool {
    asked
        .sampling
        .is_some_and(|sampling| sampling.temperature > 0.0)
}

/// A model that is only asked.
struct Asked {
    model: Seq2SeqLm,
    tokenizer: TextTokenizer,
    decoding: DecodingConfig,
    lengths: Lengths,
    card: SequenceCard,
    card_path: PathBuf,
}

impl Asked {
    fn open(
        (request, draws): (&ModelRequest, bool),
        length: Option<usize>,
        hub: &HubOptions,
    ) -> Result<Self> {
        let opened = OpenedModel::open(&request.model, hub, &request.catalog, None)?;
        let decoding = decoding(&opened, draws)?;
        let mut model = load(&opened, request.precision.resolve(false))?;
        if let Some(directory) = &request.adapter {
            let files = load_adapter(directory)?;
            let methods = &request.catalog.methods;
            model = attach(model, files, &opened.files, methods)?.0.no_grad();
        }
        let (card, card_path) = SequenceCard::of(request, opened.files.json())?;
        let lengths = Lengths {
            source: length.unwrap_or(card.source_length()),
            target: card.target_length(),
        };
        Ok(Self {
            lengths: lengths.within(&opened.architecture),
            model,
            tokenizer: opened.tokenizer,
            decoding,
            card,
            card_path,
        })
    }

    /// Greedily and to as many tokens as in training unless it is asked for otherwise; all else as the model says.
    fn decoding(&self, asked: Decoding) -> Result<DecodingConfig> {
        let config = DecodingConfig {
            num_beams: asked.num_beams.unwrap_or(1),
            sampling: asked.sampling.unwrap_or_else(Sampling::greedy),
            num_return_sequences: 1,
            max_new_tokens: asked.max_new_tokens.unwrap_or(self.lengths.target),
            ..self.decoding.clone()
        };
        config.check(self.model.architecture().vocab_size)?;
        Ok(config)
    }

    /// Says of an error of reading where it is said how files are read.
    fn remembered(&self, error: TrainError, is_as_in_run: bool) -> TrainError {
        let says = is_as_in_run && self.card.says_how_to_read();
        error.of_remembered(says.then_some((&self.card_path, "--format or --fields")))
    }
}
