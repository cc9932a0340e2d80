//! The task `masked-lm`: guessing what stood where tokens are masked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use reparam::ForwardContext;
use reparam::methods::AdapterMeta;
use reparam::schema::{Range, SettingSpec, count, flag, number};
use reparam_data::masking::{Masked, Masking, document_pieces};
use reparam_data::rows::RowBatch;
use reparam_data::{
    BatchPlan, ContentHash, DocumentSource, EncodedPiece, EncodedRow, Format, OnError, Phase,
    ReadOptions, ReadReport, Size, TextTokenizer, hold_out, read_watched,
};
use reparam_formats::hub::HubOptions;
use reparam_models::{MaskedLm, NewModel, Precision, RowTokens};
use serde_json::{Map, Value, json};

use super::pretrained::{
    Adapter, Beginning, Learned, Loaded, Saved, check_recompute, findings, is_of_class, prepare,
    token_bytes,
};
use super::texts::{TextCard, texts_of};
use crate::adapter::attach;
use crate::bootstrap::with_intervals;
use crate::cards::{self, CARD_FILE};
use crate::config::{EvalData, RowsConfig, RowsKeys, TEXT_SETTING, text_options};
use crate::evaluate::{Loss, at_once};
use crate::learner::Objective;
use crate::new_model::Recipe;
use crate::open::{OpenedModel, data_files};
use crate::preflight::Footprint;
use crate::seen::{Look, Seen, SeenRow, Survey, Surveyed, Token};
use crate::session::{load_adapter, misfit};
use crate::task::{
    BOOTSTRAP, BaseOrigin, DEFAULT_LENGTH, EvalRequest, ModelRequest, Prepared, Task,
};
use crate::{Metrics, Result, Stop, TrainError};

/// What the masks of an evaluation are drawn from.
const EVAL_SEED: u64 = 0;

/// The share of tokens that are guessed in an evaluation.
const EVAL_PROBABILITY: f64 = 0.15;

/// The settings of `[data]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskedKeys;

impl RowsKeys for MaskedKeys {
    type Format = Format;
    const EVAL_MAX: SettingSpec = count(
        "eval_max",
        1000,
        "maximum texts to hold out, or pieces where there are few texts, whatever eval_fraction says",
    );
    const OWN: &'static [SettingSpec] = &[
        number(
            "mask_probability",
            Range::BelowOne,
            EVAL_PROBABILITY,
            "share of tokens to guess, or of words with whole_words",
        ),
        flag("whole_words", false, "mask all tokens of a word together"),
        TEXT_SETTING,
    ];
}

/// A masked language model's texts.
#[derive(Debug)]
pub struct MaskedLanguageModel {
    train: Pieces,
    eval: Option<Pieces>,
    /// Which pieces a micro-batch has.
    plan: BatchPlan,
    masking: Masking,
    /// The most tokens of a piece.
    length: usize,
    seed: u64,
    card: TextCard,
    /// `config.json` of the base.
    config: Map<String, Value>,
    result: Saved,
}

/// Pieces of texts.
#[derive(Debug, Default)]
struct Pieces {
    encoded: Vec<EncodedPiece>,
    /// Where the text of each stands.
    sources: Vec<DocumentSource>,
}

/// A text in pieces, and where it stands.
type TextPieces = (DocumentSource, Vec<EncodedPiece>);

impl Pieces {
    fn of(texts: impl IntoIterator<Item = TextPieces>) -> Self {
        let mut pieces = Self::default();
        for (source, encoded) in texts {
            let sources = std::iter::repeat_n(source, encoded.len());
            pieces.sources.extend(sources);
            pieces.encoded.extend(encoded);
        }
        pieces
    }

    fn n_tokens(&self) -> usize {
        let lengths = self.encoded.iter().map(|piece| piece.row.ids.len());
        lengths.sum()
    }

    /// The pieces, with where each stands.
    fn placed(&self) -> impl Iterator<Item = (&EncodedPiece, &DocumentSource)> {
        self.encoded.iter().zip(&self.sources)
    }
}

/// What pieces say.
fn content<'a>(pieces: impl IntoIterator<Item = &'a EncodedPiece>) -> ContentHash {
    let ids = pieces.into_iter().flat_map(|piece| &piece.row.ids);
    let bytes: Vec<u8> = ids.flat_map(|id| id.to_le_bytes()).collect();
    ContentHash::of([&bytes[..]])
}

/// Pieces that are masked, one after the other.
struct MaskedBatch {
    rows: RowBatch,
    /// The places of what is to be guessed.
    places: Vec<usize>,
    stood: Vec<u32>,
}

impl MaskedBatch {
    fn new<'a>(pieces: impl Iterator<Item = (&'a EncodedPiece, Masked)>) -> Self {
        let (mut places, mut stood, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for (piece, masked) in pieces {
            places.extend(masked.places.iter().map(|place| start + place));
            stood.extend(masked.stood);
            start += masked.ids.len();
            rows.push(EncodedRow {
                ids: masked.ids,
                ..piece.row.clone()
            });
        }
        Self {
            rows: RowBatch::concat(&rows),
            places,
            stood,
        }
    }

    fn tokens(&self) -> RowTokens<'_> {
        RowTokens {
            input_ids: &self.rows.input_ids,
            token_type_ids: &self.rows.token_type_ids,
            position_ids: &self.rows.position_ids,
            bounds: &self.rows.bounds,
        }
    }
}

impl MaskedLanguageModel {
    fn masked(&self, pass: u64) -> impl Iterator<Item = (&EncodedPiece, Masked)> {
        let pieces = self.plan.batch(pass).into_iter();
        pieces.map(move |number| {
            let piece = &self.train.encoded[number];
            let key = [self.seed, pass, number as u64];
            (piece, self.masking.mask(piece, key))
        })
    }
}

impl Objective for MaskedLanguageModel {
    type Model = MaskedLm;

    fn weight(&self, pass: u64) -> f64 {
        let masked = self.masked(pass).map(|(_, masked)| masked.places.len());
        masked.sum::<usize>() as f64
    }

    fn epochs(&self, pass: u64) -> Option<f64> {
        Some(self.plan.epochs_before(pass))
    }

    fn tokens(&self, pass: u64) -> usize {
        let pieces = self.plan.batch(pass).into_iter();
        let length = |piece: usize| self.train.encoded[piece].row.ids.len();
        pieces.map(length).sum()
    }

    fn loss(
        &self,
        model: &MaskedLm,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>> {
        let batch = MaskedBatch::new(self.masked(pass));
        let scale = (1.0 / total) as f32;
        let guessed = (&batch.places[..], &batch.stood[..]);
        Ok(model.loss(batch.tokens(), guessed, scale, context))
    }
}

impl Task for MaskedLanguageModel {
    const NAME: &'static str = "masked-lm";
    const SUMMARY: &'static str = "guesses masked tokens";
    const UNIT: &'static str = "tokens";
    /// PEFT has none for it.
    const TASK_TYPE: Option<&'static str> = None;
    const OPTIONS: &'static [&'static str] = &[BOOTSTRAP];

    type Config = RowsConfig<MaskedKeys>;

    fn recognizes(config: &Value) -> bool {
        is_of_class(config, &["ForMaskedLM"])
    }

    fn prepare(
        config: &RowsConfig<MaskedKeys>,
        hub: &HubOptions,
        watch: Stop<'_>,
    ) -> Result<Prepared<Self>> {
        let (data, train_config) = (&config.data, &config.train);
        let recipe = Recipe::of(config, NewModel::Masked);
        let settings = &data.own;
        let own = settings
            .has(TEXT_SETTING.key)
            .then(|| text_options(settings));
        let own = own.transpose()?;
        let mut reading = ReadOptions {
            text: own.clone().unwrap_or_default(),
            ..data.reading()
        };
        let files = data_files(&data.train, hub, watch)?;
        let opened = Beginning::find(config, &config.model.hub(hub))?
            .open(&recipe, || texts_of(&files, &reading, watch))?;
        let adapted = config.model.adapter.as_deref();
        reading.text = TextCard::inherited(own, adapted, opened.files.json(), Self::NAME)?;
        let probability = settings.number("mask_probability")?;
        let masking = masking(&opened, probability, settings.flag("whole_words")?)?;
        let length = length(&opened, train_config.sequence_length);
        let read = |paths: &[PathBuf], reading: &ReadOptions| {
            pieces(paths, reading, (&opened, length), watch)
        };
        let (documents, mut report) = read(&files, &reading)?;
        let (train, eval) = match &data.eval {
            EvalData::Files(paths) => {
                let (eval, of_eval) =
                    read(&data_files(paths, hub, watch)?, &reading.clone().measured())?;
                report.files.extend(of_eval.files);
                report.skipped.append(of_eval.skipped);
                report.left_out.extend(of_eval.left_out);
                (Pieces::of(documents), Some(Pieces::of(eval)))
            }
            EvalData::Fraction(0.0) => (Pieces::of(documents), None),
            EvalData::Fraction(fraction) => {
                let size = Size {
                    fraction: *fraction,
                    max: data.eval_max.unwrap_or(u64::MAX),
                };
                let (train, eval) = held_out(documents, size, train_config.seed)?;
                (train, Some(eval))
            }
        };
        let mut facts = json!({
            "train_tokens": train.n_tokens(),
            "pieces": train.encoded.len(),
            "eval_tokens": eval.as_ref().map_or(0, Pieces::n_tokens),
            "sequence_length": length,
            "mask_probability": masking.probability,
            "skipped": report.skipped.count,
            "skipped_rows": report.skipped.first,
            "left_out": report.left_out,
        });
        if let Some(text) = &report.text {
            facts["text"] = json!(text);
        }
        let learned = Learned {
            count: train.encoded.len(),
            tokens: train.n_tokens(),
            shuffle: data.shuffle,
            facts,
            files: report.files,
        };
        let card = TextCard::new(Self::NAME, &reading, &report.formats);
        // In f32, unless something else is asked for.
        let precision = train_config.precision.resolve(false);
        let mut model = load(&opened, precision)?;
        check_recompute(train_config.recompute, model.architecture(), precision)?;
        model.body.recompute = train_config.recompute;
        let config_json = opened.files.json().json.map().clone();
        let loaded = Loaded {
            new_rows: Vec::new(),
            token_bytes: token_bytes(model.architecture(), precision),
            model,
            from: Arc::new(opened.files),
            files: BaseOrigin::FILES.to_vec(),
            tokenizer: opened.tokenizer.digest().clone(),
            precision,
            footprint: Some(Footprint::of(
                &opened.architecture,
                (precision, train_config.recompute),
            )),
            findings: findings(&opened.notes, &opened.tokenizer, &opened.architecture),
            adapter: Adapter::load(config)?,
        };
        let adapt = |model: MaskedLm, _: &[_], _: &mut AdapterMeta| model;
        prepare(config, loaded, learned, adapt, |plan, result| Self {
            train,
            eval,
            plan,
            masking,
            length,
            seed: train_config.seed,
            card,
            config: config_json,
            result,
        })
    }

    fn evaluate(&self, model: &MaskedLm, stop: Stop<'_>) -> Result<Option<Metrics>> {
        // As `eval` does it, so that runs with other settings compare.
        let masking = Masking {
            probability: EVAL_PROBABILITY,
            whole_words: false,
            ..self.masking.clone()
        };
        let eval = self.eval.as_ref();
        eval.map(|eval| measure(model, &eval.encoded, &masking, stop))
            .transpose()
    }

    /// Pieces with the masks of one pass; every other pass draws others.
    fn seen(&self, look: &Look<'_>) -> Result<Option<Seen>> {
        let mut survey = Survey::new(&[]);
        let mut examples = Vec::new();
        for (number, (piece, source)) in self.train.placed().enumerate() {
            let masked = self.masking.mask(piece, [self.seed, 0, number as u64]);
            let row = Surveyed {
                tokens: piece.row.ids.len(),
                labelled: masked.places.len(),
                truncated: piece.row.truncated,
                content: Some(content([piece])),
                path: Some(&source.path),
            };
            survey.add(row, || source.to_string());
            let Some(tokenizer) = look.tokenizer.filter(|_| number < look.rows) else {
                continue;
            };
            let mut tokens: Vec<Token> = masked.ids.iter().copied().map(Token::given).collect();
            for (place, stood) in masked.places.iter().zip(&masked.stood) {
                tokens[*place].learned = true;
                tokens[*place].label = Some(tokenizer.token(*stood).unwrap_or_default());
            }
            examples.push(SeenRow::decode(tokenizer, &tokens)?.at(source.to_string()));
        }
        for (piece, source) in self.eval.iter().flat_map(Pieces::placed) {
            survey.held_out(content([piece]), || source.to_string());
        }
        let mut seen = survey.finish("pieces", self.length, true);
        seen.examples = examples;
        Ok(Some(seen))
    }

    fn save(&self, model: &MaskedLm, directory: &Path) -> Result<()> {
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
        let ModelRequest { model, catalog, .. } = &request.model;
        let opened = OpenedModel::open(model, hub, catalog, None)?;
        let masking = masking(&opened, EVAL_PROBABILITY, false)?;
        let precision = request.model.precision.resolve(false);
        let mut model = load(&opened, precision)?;
        if let Some(directory) = &request.model.adapter {
            let adapter = load_adapter(directory)?;
            model = attach(model, adapter, &opened.files, &catalog.methods)?
                .0
                .no_grad();
        }
        let card = TextCard::of(&request.model, opened.files.json(), Self::NAME)?;
        let (read, remembered) = TextCard::reading(card, &request.data, None)?;
        let length = length(&opened, request.sequence_length.unwrap_or(DEFAULT_LENGTH));
        let paths = data_files(std::slice::from_ref(&request.data.path), hub, stop)?;
        let pieces = pieces(&paths, &read, (&opened, length), stop).map_err(|error| {
            let options = "--format, --fields or --template";
            error.of_remembered(remembered.as_deref().zip(Some(options)))
        });
        let (pieces, report) = pieces?;
        let lengths: Vec<usize> = pieces.iter().map(|(_, pieces)| pieces.len()).collect();
        let losses = losses(&model, &Pieces::of(pieces).encoded, &masking, stop)?;
        let mut metrics = metrics(&losses)?;
        if let Some(asked) = request.bootstrap {
            let mut rest = &losses[..];
            let documents = lengths.into_iter().map(|n| {
                let (own, others) = rest.split_at(n);
                rest = others;
                own.iter()
                    .fold(Loss::default(), |sum, loss| sum.plus(*loss))
            });
            let documents: Vec<Loss> = documents.filter(|loss| loss.tokens > 0).collect();
            metrics = with_intervals(metrics, documents.len(), asked, stop, |drawn| {
                let drawn: Vec<Loss> = drawn.iter().map(|document| documents[*document]).collect();
                self::metrics(&drawn)
            })?;
        }
        if !metrics.primary().is_finite() {
            return Err(TrainError::LossNotFinite);
        }
        Ok(match request.data.on_error {
            OnError::Stop => metrics,
            OnError::Skip => metrics.with("skipped", report.skipped.count),
        })
    }
}

/// Returns how tokens are masked, if the tokenizer has a token for it that the model knows.
fn masking(opened: &OpenedModel, probability: f64, whole_words: bool) -> Result<Masking> {
    let tokenizer: &TextTokenizer = &opened.tokenizer;
    let rows = opened.architecture.vocab_size;
    let mut vocabulary = tokenizer.ordinary_ids();
    vocabulary.retain(|id| (*id as usize) < rows);
    let mask = tokenizer.special_tokens().mask;
    let mask = mask.filter(|id| (*id as usize) < rows);
    Ok(Masking {
        probability,
        whole_words,
        mask: mask.ok_or_else(|| TrainError::NoMaskToken {
            directory: opened.files.directory().to_owned(),
        })?,
        vocabulary,
    })
}

/// The most tokens of a piece: as asked, or what the model has positions for.
fn length(opened: &OpenedModel, wanted: usize) -> usize {
    wanted.min(opened.architecture.max_tokens().unwrap_or(usize::MAX))
}

fn load(opened: &OpenedModel, precision: Precision) -> Result<MaskedLm> {
    let place = (&Device::flex(), precision);
    let architecture = opened.architecture.clone();
    MaskedLm::load(opened.files.weights(), architecture, place)
        .map_err(|error| misfit(error, opened.files.json()))
}

/// Reads files, and makes pieces of each text.
fn pieces(
    paths: &[PathBuf],
    read: &ReadOptions,
    (opened, length): (&OpenedModel, usize),
    watch: Stop<'_>,
) -> Result<(Vec<TextPieces>, ReadReport)> {
    let source = read_watched(paths, read, watch)?;
    let pieces = document_pieces(&source.documents, &opened.tokenizer, length, watch)?;
    if pieces.iter().all(Vec::is_empty) {
        return Err(TrainError::NothingToMask);
    }
    let sources = source.documents.into_iter().map(|text| text.source);
    Ok((sources.zip(pieces).collect(), source.report))
}

/// Holds whole texts out by what they say; of fewer than two texts for each that would be, pieces.
fn held_out(documents: Vec<TextPieces>, size: Size, seed: u64) -> Result<(Pieces, Pieces)> {
    let is_fine = documents.len() as f64 * size.fraction >= 2.0;
    let parts: Vec<TextPieces> = match is_fine {
        true => documents,
        false => {
            let Pieces { encoded, sources } = Pieces::of(documents);
            let encoded = encoded.into_iter().map(|piece| vec![piece]);
            sources.into_iter().zip(encoded).collect()
        }
    };
    let contents: Vec<ContentHash> = parts.iter().map(|(_, pieces)| content(pieces)).collect();
    let chosen = hold_out(&contents, size, seed)?;
    let (mut train, mut eval) = (Vec::new(), Vec::new());
    for ((text, content), is_held_out) in parts.into_iter().zip(contents).zip(chosen) {
        match is_held_out {
            true => eval.push((content, text)),
            false => train.push(text),
        }
    }
    // In an order that does not depend on that of the files.
    eval.sort_by_key(|(content, _)| *content);
    let eval = eval.into_iter().map(|(_, text)| text);
    Ok((Pieces::of(train), Pieces::of(eval)))
}

/// Measures a model on pieces with masks of their own.
fn measure(
    model: &MaskedLm,
    pieces: &[EncodedPiece],
    masking: &Masking,
    stop: Stop<'_>,
) -> Result<Metrics> {
    metrics(&losses(model, pieces, masking, stop)?)
}

/// The loss of each piece.
fn losses(
    model: &MaskedLm,
    pieces: &[EncodedPiece],
    masking: &Masking,
    stop: Stop<'_>,
) -> Result<Vec<Loss>> {
    let total = pieces.len();
    let mut losses = Vec::with_capacity(total);
    while losses.len() < total {
        stop.check()?;
        let first = losses.len();
        stop.at(Phase::Evaluating, first as u64, total as u64);
        let some = at_once(pieces[first..].iter().map(|piece| piece.row.ids.len()));
        let masked = (first..first + some).map(|number| {
            let piece = &pieces[number];
            let masked = masking.mask(piece, [EVAL_SEED, u64::MAX, number as u64]);
            (piece, masked)
        });
        let masked: Vec<_> = masked.collect();
        let counts: Vec<usize> = masked.iter().map(|(_, m)| m.places.len()).collect();
        let batch = MaskedBatch::new(masked.into_iter());
        // No piece is without a token to guess, but for one of special tokens alone.
        let mut chosen = match batch.places.is_empty() {
            true => Vec::new(),
            false => {
                let context = ForwardContext::inference();
                let logits = model.logits_at(batch.tokens(), &batch.places, &context);
                log_probabilities(logits, &batch.stood)
            }
        }
        .into_iter();
        losses.extend(counts.into_iter().map(|count| Loss {
            sum: -chosen.by_ref().take(count).sum::<f64>(),
            tokens: count as u64,
        }));
    }
    stop.at(Phase::Evaluating, total as u64, total as u64);
    Ok(losses)
}

/// `loss`, `perplexity`, `tokens` and the `seed` of the masks.
fn metrics(losses: &[Loss]) -> Result<Metrics> {
    let sum = losses
        .iter()
        .fold(Loss::default(), |sum, loss| sum.plus(*loss));
    match sum.tokens {
        0 => Err(TrainError::NothingToMask),
        _ => Ok(sum.metrics().with("seed", EVAL_SEED)),
    }
}

/// The logarithm of the probability of what stood at each place.
fn log_probabilities(logits: Tensor<2>, stood: &[u32]) -> Vec<f64> {
    let [_, width] = logits.dims();
    let all = activation::log_softmax(logits, 1).into_data();
    let all: Vec<f32> = all.iter::<f32>().collect();
    let rows = all.chunks_exact(width).zip(stood);
    rows.map(|(row, token)| f64::from(row[*token as usize]))
        .collect()
}
