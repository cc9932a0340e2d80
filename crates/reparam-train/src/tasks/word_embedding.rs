//! The task `word-embedding`: vectors of words, by skip-gram or CBOW with negative sampling.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, ElementConversion, Tensor};
use reparam::ForwardContext;
use reparam::methods::AdapterMeta;
use reparam::schema::{
    Fallback, Range, SettingKind, SettingSpec, Settings, count, number, optional, size,
};
use reparam_data::preprocess::{Preprocessor, TextReport};
use reparam_data::vocabulary::TokenizerKind;
use reparam_data::word_pairs::{
    Agreement, Objective as Predicts, WordBatch, WordCorpus, WordPairOptions, WordPairs,
    WordSimilarity,
};
use reparam_data::{
    BatchPlan, ContentHash, FileDigest, Format, Phase, ReadReport, Size, SpecialIds, TextTokenizer,
    hold_out, read_watched,
};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::{JsonObject, ModelJson};
use reparam_formats::hub::HubOptions;
use reparam_formats::safetensors::TensorToWrite;
use reparam_formats::word_vectors::{Layout, WordVectors};
use reparam_models::{Precision, WordExamples, WordVectorModel};
use serde_json::{Map, Value, json};

use super::pretrained::{Adapter, Learned, Loaded, Saved, prepare};
use super::texts::{TextCard, preprocessor};
use crate::adapter::AdapterBase;
use crate::cards::{self, CARD_FILE};
use crate::config::{
    EvalData, NewModelConfig, RowsConfig, RowsKeys, TEXT_SETTING, TokenizerConfig, text_options,
};
use crate::learner::Objective;
use crate::model_files::{CONFIG, ModelFiles, VECTORS};
use crate::new_model::tokenizer_files;
use crate::open::{data_files, model_directory};
use crate::task::{EvalRequest, Prepared, Task, refuse_options_of_texts};
use crate::{Metrics, Result, Stop, TrainError};

/// Positions of a text that an evaluation looks at together.
const AT_ONCE: usize = 4096;

/// How many batches are looked at for the next example.
const MOST_EMPTY: u64 = 1000;

/// The key of `config.json` for the numbers of a vector.
const WIDTH: &str = "vector_size";

/// The settings of `[data]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorKeys;

impl RowsKeys for VectorKeys {
    type Format = Format;
    const RUNS_IN_BF16: bool = false;
    const EVAL_MAX: SettingSpec = count(
        "eval_max",
        2000,
        "maximum lines to hold out, whatever eval_fraction says",
    );
    const OWN: &'static [SettingSpec] = &[
        TEXT_SETTING,
        optional(
            "similarity",
            SettingKind::Text,
            "none",
            "a file of word pairs and scores, such as WordSim353, whose rank correlation with the vectors is measured",
        ),
        size("window", 5, "maximum words on each side of a word"),
        SettingSpec::new(
            "negatives",
            SettingKind::Count {
                least: 1,
                most: 1000,
            },
            Fallback::Count(5),
            "words that are drawn for each true one",
        ),
        number(
            "subsample",
            Range::Unit,
            1e-3,
            "share of all words above which a word is passed over at times; 0 keeps all",
        ),
    ];
}

const ARCHITECTURES: [(&str, Predicts); 2] =
    [("cbow", Predicts::Cbow), ("skip_gram", Predicts::SkipGram)];

/// Texts that word vectors are learned from.
#[derive(Debug)]
pub struct WordEmbedding {
    pairs: WordPairs,
    eval: Option<WordPairs>,
    similarity: Option<WordSimilarity>,
    /// The words by id; those without a vector of their own, such as `<unk>`, are `None`.
    words: Vec<Option<String>>,
    plan: BatchPlan,
    card: TextCard,
    config: Map<String, Value>,
    result: Saved,
}

impl Objective for WordEmbedding {
    type Model = WordVectorModel;

    fn weight(&self, pass: u64) -> f64 {
        self.examples(pass).targets.len() as f64
    }

    fn epochs(&self, pass: u64) -> Option<f64> {
        Some(self.plan.epochs_before(pass))
    }

    fn loss(
        &self,
        model: &WordVectorModel,
        pass: u64,
        total: f64,
        _: &ForwardContext,
    ) -> Result<Tensor<1>> {
        let batch = self.examples(pass);
        Ok(model.loss(examples(&batch), (1.0 / total) as f32))
    }
}

impl WordEmbedding {
    fn examples(&self, pass: u64) -> WordBatch {
        let of = |pass: u64| {
            let epoch = self.plan.epochs_before(pass) as u64;
            self.pairs.batch(epoch, self.plan.batch(pass))
        };
        // Of a small batch all words may be passed over; a step needs an example.
        let mut passes = pass..pass + MOST_EMPTY;
        let first = passes.find_map(|pass| {
            let batch = of(pass);
            (!batch.targets.is_empty()).then_some(batch)
        });
        first.unwrap_or_else(|| of(pass))
    }

    fn vectors(&self, model: &WordVectorModel) -> Result<WordVectors> {
        let table = model.input.weight.dense();
        vectors(&self.words, table.expect("word vectors are in f32"))
    }
}

fn examples(batch: &WordBatch) -> WordExamples<'_> {
    WordExamples {
        inputs: &batch.inputs,
        bounds: &batch.bounds,
        targets: &batch.targets,
        negatives: &batch.negatives,
    }
}

/// The vectors of the words that have one.
fn vectors(words: &[Option<String>], table: Tensor<2>) -> Result<WordVectors> {
    let [_, width] = table.dims();
    let values: Vec<f32> = table.into_data().iter::<f32>().collect();
    let rows = words.iter().zip(values.chunks_exact(width));
    let known = rows.filter_map(|(word, row)| Some((word.clone()?, row)));
    let (words, rows): (Vec<String>, Vec<&[f32]>) = known.unzip();
    Ok(WordVectors::new(words, width, rows.concat())?)
}

/// The word of each id of a tokenizer of whole words.
fn words(tokenizer: &TextTokenizer) -> Vec<Option<String>> {
    let ordinary = tokenizer.ordinary_ids();
    let ids = 0..=tokenizer.max_id();
    ids.map(|id| match ordinary.binary_search(&id) {
        Ok(_) => tokenizer.token(id),
        Err(_) => None,
    })
    .collect()
}

/// Lines of texts, which are the sentences that windows stay in.
struct Lines {
    lines: Vec<String>,
    report: ReadReport,
}

impl Lines {
    fn read(
        paths: &[PathBuf],
        config: &RowsConfig<VectorKeys>,
        steps: Option<&Preprocessor>,
        of_texts: &mut TextReport,
        watch: Stop<'_>,
    ) -> Result<Self> {
        let source = read_watched(paths, &config.data.reading(), watch)?;
        let texts = source.documents.iter();
        let lines = texts.flat_map(|document| document.text.lines());
        let lines = lines.filter(|line| !line.trim().is_empty());
        let lines = lines.filter_map(|line| match steps {
            None => Some(line.to_owned()),
            Some(steps) => {
                let line = steps.apply_row(line, of_texts)?;
                Some(line.into_owned())
            }
        });
        Ok(Self {
            lines: lines.collect(),
            report: source.report,
        })
    }
}

/// Lines as ids; words that are not in the vocabulary are left out.
fn corpus<'a>(
    tokenizer: &TextTokenizer,
    lines: impl Iterator<Item = &'a String>,
) -> Result<WordCorpus> {
    let unknown = tokenizer.special_tokens().unk;
    let mut corpus = WordCorpus::default();
    for line in lines {
        let ids = tokenizer.encode(line, false)?;
        corpus.push(ids.into_iter().filter(|id| Some(*id) != unknown));
    }
    Ok(corpus)
}

/// What the model is: its objective, the numbers of a vector, and the kind of its tokenizer.
fn checked(config: &RowsConfig<VectorKeys>) -> Result<(&NewModelConfig, Predicts, usize)> {
    const NAMES: &[&str] = &[ARCHITECTURES[0].0, ARCHITECTURES[1].0];
    let new = config.model.new.as_ref();
    let objective = new.and_then(|new| {
        let mut known = ARCHITECTURES.iter();
        let (_, objective) = known.find(|(name, _)| *name == new.architecture)?;
        Some(*objective)
    });
    let (Some(new), Some(objective)) = (new, objective) else {
        return Err(TrainError::NeedsArchitecture {
            task: WordEmbedding::NAME,
            found: config.model.name().to_owned(),
            known: NAMES,
        });
    };
    let is_of_words = match &new.tokenizer {
        TokenizerConfig::Trained(options) => options.kind == TokenizerKind::WordLevel,
        TokenizerConfig::Directory { .. } => true,
    };
    if !is_of_words {
        return Err(TrainError::NeedsWords);
    }
    if new.word_vectors.is_some() {
        let what = "begun with word vectors";
        return Err(TrainError::not_for_task(WordEmbedding::NAME, what));
    }
    if config.model.dropout.is_some() {
        return Err(TrainError::not_for_task(
            WordEmbedding::NAME,
            "given a dropout",
        ));
    }
    let mut keys = new.config.iter();
    if let Some((key, _)) = keys.find(|(key, _)| key != WIDTH) {
        return Err(TrainError::UnreadKey {
            key: key.clone(),
            architecture: new.architecture.clone(),
            known: vec![WIDTH.to_owned()],
        });
    }
    let map = Map::from_iter(new.config.iter().map(|(k, v)| (k.clone(), json!(v))));
    let json = JsonObject::new("model.config".as_ref(), map);
    Ok((new, objective, json.size(WIDTH)?.unwrap_or(100)))
}

impl Task for WordEmbedding {
    const NAME: &'static str = "word-embedding";
    const SUMMARY: &'static str = "learns vectors of words from the words around them";
    const UNIT: &'static str = "examples";

    type Config = RowsConfig<VectorKeys>;

    fn check(config: &Self::Config) -> Result<()> {
        checked(config).map(|_| ())
    }

    fn prepare(config: &Self::Config, hub: &HubOptions, watch: Stop<'_>) -> Result<Prepared<Self>> {
        let (new, objective, width) = checked(config)?;
        let (data, seed) = (&config.data, config.train.seed);
        let settings = &data.own;
        let similarity = settings.optional("similarity", Settings::word)?;
        let similarity = similarity.map(Path::new);
        let of_similarity = similarity.map(|path| -> Result<_> {
            Ok(FileDigest::of(path, &reparam_formats::file::read(path)?))
        });
        let of_similarity = of_similarity.transpose()?;
        let similarity = similarity.map(WordSimilarity::read).transpose()?;
        let steps = preprocessor(&text_options(settings)?)?;
        let mut of_texts = TextReport::new(3);
        let read = |paths: &[PathBuf], report: &mut TextReport| {
            Lines::read(paths, config, steps.as_ref(), report, watch)
        };
        let all = read(&data_files(&data.train, hub, watch)?, &mut of_texts)?;
        let files = tokenizer_files(&new.tokenizer, || Ok(all.lines.clone()))?;
        let name = PathBuf::from(format!("new {} model", new.architecture));
        let file = |name: &str| files.get(name).map(Vec::as_slice);
        let tokenizer = TextTokenizer::from_bytes(&name, &SpecialIds::default(), file)?;
        let n_words = tokenizer.max_id() as usize + 1;
        let options = WordPairOptions {
            objective,
            window: settings.size("window")?,
            negatives: settings.size("negatives")?,
            subsample: settings.number("subsample")?,
            seed,
        };
        let mut report = all.report;
        let (train, eval) = match &data.eval {
            EvalData::Fraction(0.0) => (corpus(&tokenizer, all.lines.iter())?, None),
            EvalData::Fraction(fraction) => {
                let contents: Vec<_> = all
                    .lines
                    .iter()
                    .map(|line| ContentHash::of([line.as_bytes()]))
                    .collect();
                let size = Size {
                    fraction: *fraction,
                    max: data.eval_max.unwrap_or(u64::MAX),
                };
                let held_out = hold_out(&contents, size, seed)?;
                let part = |wanted: bool| {
                    let lines = all.lines.iter().zip(&held_out);
                    let lines = lines.filter(move |(_, is_held_out)| **is_held_out == wanted);
                    corpus(&tokenizer, lines.map(|(line, _)| line))
                };
                (part(false)?, Some(part(true)?))
            }
            EvalData::Files(paths) => {
                let eval = read(&data_files(paths, hub, watch)?, &mut TextReport::default())?;
                report.files.extend(eval.report.files);
                report.skipped.append(eval.report.skipped);
                report.left_out.extend(eval.report.left_out);
                let eval = corpus(&tokenizer, eval.lines.iter())?;
                (corpus(&tokenizer, all.lines.iter())?, Some(eval))
            }
        };
        let of_eval = WordPairOptions {
            subsample: 0.0,
            seed: 0,
            ..options.clone()
        };
        let eval = eval.map(|eval| WordPairs::new(eval, n_words, &of_eval));
        let eval = eval.transpose()?;
        let pairs = WordPairs::new(train, n_words, &options)?;
        let config_json = Map::from_iter([
            ("model_type".to_owned(), json!(new.architecture)),
            ("vocab_size".to_owned(), json!(n_words)),
            (WIDTH.to_owned(), json!(width)),
        ]);
        let drawn = WordVectorModel::new_tensors(n_words, width, seed);
        let shape = [n_words, width];
        let tensors = drawn.each_ref();
        let tensors = tensors.map(|(name, values)| TensorToWrite::f32(name, &shape, values));
        let weights = Checkpoint::in_memory(&name, &tensors)?;
        let model = WordVectorModel::load(&weights, (n_words, width), &Device::flex())?;
        let text = Value::Object(config_json.clone()).to_string();
        let json = ModelJson::parse(&name.join(CONFIG), &text)?;
        let mut facts = json!({
            "train_words": pairs.positions(),
            "eval_words": eval.as_ref().map_or(0, WordPairs::positions),
            "vocabulary": n_words,
            "skipped": report.skipped.count,
            "skipped_rows": report.skipped.first,
            "left_out": report.left_out,
        });
        if steps.is_some() {
            facts["text"] = json!(of_texts);
        }
        let learned = Learned {
            count: pairs.positions(),
            tokens: pairs.positions(),
            shuffle: data.shuffle,
            facts,
            files: report.files.into_iter().chain(of_similarity).collect(),
        };
        let loaded = Loaded {
            new_rows: Vec::new(),
            token_bytes: (4 * width * (1 + options.negatives)) as u128,
            model,
            from: Arc::new(ModelFiles::new(name, json, weights, files)),
            files: Vec::new(),
            tokenizer: tokenizer.digest().clone(),
            precision: Precision::F32,
            footprint: None,
            findings: Vec::new(),
            adapter: Adapter::load(config)?,
        };
        let card = TextCard::new(Self::NAME, &data.reading(), &report.formats);
        let adapt = |model: WordVectorModel, _: &[_], _: &mut AdapterMeta| model;
        prepare(config, loaded, learned, adapt, |plan, result| Self {
            pairs,
            eval,
            similarity,
            words: words(&tokenizer),
            plan,
            card,
            config: config_json,
            result,
        })
    }

    fn evaluate(&self, model: &WordVectorModel, stop: Stop<'_>) -> Result<Option<Metrics>> {
        let loss = self.eval.as_ref();
        let loss = loss
            .map(|pairs| mean_loss(model, pairs, stop))
            .transpose()?;
        if let Some(list) = &self.similarity {
            let agreement = list.evaluate(&self.vectors(model)?);
            let metrics = metrics(&agreement)?;
            return Ok(Some(match loss {
                Some(loss) => metrics.with("loss", loss),
                None => metrics,
            }));
        }
        Ok(loss.map(|loss| Metrics::lower_is_better("loss", loss)))
    }

    fn save(&self, model: &WordVectorModel, directory: &Path) -> Result<()> {
        let whole = || {
            let config = cards::in_config(self.config.clone(), &self.card);
            (model.valid().to_tensors(), config)
        };
        let card = cards::text(&self.card);
        self.result
            .save(model, directory, &[(CARD_FILE, &card)], whole)?;
        let path = directory.join(VECTORS);
        Ok(self.vectors(&model.valid())?.write(&path, Layout::Glove)?)
    }

    fn eval(request: &EvalRequest, hub: &HubOptions, _: Stop<'_>) -> Result<Metrics> {
        let (model, data) = (&request.model, &request.data);
        refuse_options_of_texts(Self::NAME, model, data, request.sequence_length)?;
        let directory = model_directory(&request.model.model, hub)?;
        let vectors = WordVectors::read(&directory.join(VECTORS), Some(Layout::Glove))?;
        let list = WordSimilarity::read(&request.data.path)?;
        metrics(&list.evaluate(&vectors))
    }
}

fn metrics(agreement: &Agreement) -> Result<Metrics> {
    let spearman = agreement.spearman.ok_or(TrainError::NoCommonWords {
        missing: agreement.missing,
    })?;
    Ok(Metrics::higher_is_better("spearman", spearman)
        .with("pairs", agreement.pairs)
        .with("missing", agreement.missing))
}

/// The mean loss of the examples of a corpus, the same in every run.
fn mean_loss(model: &WordVectorModel, pairs: &WordPairs, stop: Stop<'_>) -> Result<f64> {
    let (mut loss, mut count) = (0.0, 0);
    let total = pairs.positions();
    for first in (0..total).step_by(AT_ONCE) {
        stop.check()?;
        stop.at(Phase::Evaluating, first as u64, total as u64);
        let batch = pairs.batch(0, first..(first + AT_ONCE).min(total));
        if batch.targets.is_empty() {
            continue;
        }
        count += batch.targets.len();
        let sum = model.loss(examples(&batch), 1.0);
        loss += sum.into_scalar::<f64>().elem::<f64>();
    }
    stop.at(Phase::Evaluating, total as u64, total as u64);
    Ok(loss / count.max(1) as f64)
}

impl AdapterBase for WordVectorModel {}
