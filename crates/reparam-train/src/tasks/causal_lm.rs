//! The task `causal-lm`: predicting the next token of texts.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Tensor;
use reparam::ForwardContext;
use reparam::methods::{AdapterMeta, AttachedModule, TrainableRows};
use reparam_data::chat::Turns;
use reparam_data::preprocess::Preprocessor;
use reparam_data::{
    BatchPlan, ChatOptions, DataError, Dataset, DatasetOptions, FileDigest, FileShare, Format,
    Piece, ReadOptions, ReadReport, Size, Split, TextTokenizer, Weights,
};
use reparam_formats::chat_templates::{ChatTemplates, TEMPLATE_FILE, TemplateText};
use reparam_formats::file;
use reparam_formats::hub::HubOptions;
use reparam_models::{CausalLm, NewModel, Sampling};
use serde_json::{Map, Value, json};

use super::pretrained::{
    Adapter, Beginning, Learned, Loaded, Saved, check_recompute, findings, is_of_class, prepare,
    token_bytes,
};
use super::texts::{TextCard, texts_of};
use super::{next_token, seen_texts};
use crate::cards::{self, CARD_FILE};
use crate::config::{self, CacheChoice, EvalData, RunConfig, SampleConfig};
use crate::evaluate::{evaluate, evaluate_resampled, token_batch};
use crate::explain::{ExplainRequest, Explanation};
use crate::generate::{FinishReason, generate};
use crate::learner::{Carried, Objective};
use crate::model_files::{CHAT, GENERATION, ModelFiles, TOKENIZER};
use crate::new_model::Recipe;
use crate::open::{OpenedModel, data_files, files_of_paths};
use crate::preflight::{self, Finding, Footprint};
use crate::seen::{Look, Seen};
use crate::session::adapter_directory;
use crate::streams::{carried_of, states_of};
use crate::task::{
    BOOTSTRAP, BaseOrigin, CHAT_TEMPLATE, DEFAULT_LENGTH, EvalRequest, ModelRequest, Prepared, Task,
};
use crate::{Metrics, Result, Session, Stop, TrainError, chat, settings, streams};

/// The key of `config.json` that says whether the output head is the embedding.
const TIED: &str = "tie_word_embeddings";

/// A language model's texts.
#[derive(Debug)]
pub struct CausalLanguageModel {
    train: Dataset,
    eval: Option<Dataset>,
    /// Which blocks a micro-batch has.
    plan: BatchPlan,
    tokenizer: TextTokenizer,
    end_of_text: Vec<u32>,
    /// The most tokens of a piece.
    length: usize,
    /// The text to generate before and after.
    sample: Option<SampleConfig>,
    /// What is done to it first.
    texts: TrainedTexts,
    card: TextCard,
    /// The chat template of the result, where it is not the base's own.
    template: Option<TemplateText>,
    /// The files of the tokenizer, where it is not the base's own.
    tokenizer_files: Vec<(&'static str, String)>,
    /// The base's `config.json`.
    config: Map<String, Value>,
    result: Saved,
}

/// How the texts were that a model or its adapter was trained on, as far as it is said there.
#[derive(Debug, Default)]
pub struct TrainedTexts {
    /// The format of the examples.
    pub format: Option<Format>,
    steps: Option<Preprocessor>,
}

impl TrainedTexts {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// A base that is not found, and a card that cannot be read.
    pub fn of(request: &ModelRequest, session: &Session, hub: &HubOptions) -> Result<Self> {
        let (request, _) = request.found(hub)?;
        let card = TextCard::of(&request, session.files.json(), CausalLanguageModel::NAME)?;
        Ok(match card {
            None => Self::default(),
            Some((card, _)) => Self {
                format: card.format.or(card.examples),
                steps: card.steps()?,
            },
        })
    }

    /// Does to a prompt what was done to the texts.
    #[must_use]
    pub fn prepared<'a>(&self, prompt: &'a str) -> Cow<'a, str> {
        match &self.steps {
            Some(steps) => steps.apply(prompt),
            None => Cow::Borrowed(prompt),
        }
    }
}

impl Objective for CausalLanguageModel {
    type Model = CausalLm;

    fn weight(&self, pass: u64) -> f64 {
        let blocks = self.plan.batch(pass).into_iter();
        let labelled = blocks.map(|block| self.train.blocks[block].n_labelled());
        labelled.sum::<usize>() as f64
    }

    fn epochs(&self, pass: u64) -> Option<f64> {
        Some(self.plan.epochs_before(pass))
    }

    fn tokens(&self, pass: u64) -> usize {
        let blocks = self.plan.batch(pass).into_iter();
        blocks
            .map(|block| self.train.blocks[block].n_tokens())
            .sum()
    }

    fn loss(
        &self,
        model: &CausalLm,
        pass: u64,
        total: f64,
        context: &ForwardContext,
    ) -> Result<Tensor<1>> {
        let batch = self.train.batch(&self.plan.batch(pass))?;
        let scale = (1.0 / total) as f32;
        Ok(model.loss(token_batch(&batch), &batch.labels, scale, context))
    }

    fn loss_from(
        &self,
        model: &CausalLm,
        pass: u64,
        total: f64,
        (before, context): (&Carried, &ForwardContext),
    ) -> Result<(Tensor<1>, Carried)> {
        if self.train.streams().is_none() {
            return Ok((self.loss(model, pass, total, context)?, Carried::new()));
        }
        let blocks = self.plan.batch(pass);
        let number = pass % self.plan.accumulation();
        let mut pieces = blocks
            .iter()
            .map(|block| &self.train.blocks[*block].pieces()[0]);
        let states = match pieces.any(Piece::continues) {
            true => states_of(before, number, blocks.len(), model.architecture())?,
            false => Vec::new(),
        };
        let scale = (1.0 / total) as f32;
        let (loss, left) = streams::loss(model, &self.train, &blocks, (states, scale), context)?;
        Ok((loss, carried_of(left, number)))
    }
}

impl Task for CausalLanguageModel {
    const NAME: &'static str = "causal-lm";
    const SUMMARY: &'static str = "predicts the next token";
    const UNIT: &'static str = "tokens";
    const TASK_TYPE: Option<&'static str> = Some("CAUSAL_LM");
    const OPTIONS: &'static [&'static str] = &[BOOTSTRAP, CHAT_TEMPLATE];

    type Config = RunConfig;

    fn recognizes(config: &Value) -> bool {
        is_of_class(config, &["ForCausalLM", "LMHeadModel"])
    }

    fn prepare(config: &RunConfig, hub: &HubOptions, watch: Stop<'_>) -> Result<Prepared<Self>> {
        let hub = config.model.hub(hub);
        let request = ModelRequest::new(config.model.name())
            .with_precision(config.train.precision)
            .with_catalog(config.catalog.clone());
        let warnings = request.warnings.clone();
        let adapter = Adapter::load(config)?.map(Adapter::with_tokens);
        let adapter = adapter.transpose()?;
        let runs_in_bf16 = match (&adapter, &config.method) {
            (Some(adapter), _) => adapter.runs_in_bf16(&config.catalog)?,
            (None, Some(method)) => config::runs_in_bf16(&config.catalog, method),
            (None, None) => false,
        };
        let recipe = Recipe::of(config, NewModel::Causal);
        let template = chosen_template(config)?;
        let with_chat = |templates: ChatTemplates| ReadOptions {
            chat: Some(ChatOptions {
                templates,
                turns: config.data.train_on_turns,
            }),
            ..config.data.reading()
        };
        let files = files_of_paths(&config.data.train, &hub, watch)?;
        let weights = weights_of(config, &files);
        let files = files.concat();
        let opened = Beginning::find(config, &hub)?.open(&recipe, || {
            let templates = ChatTemplates::default();
            let templates = match template.clone() {
                Some(template) => templates.with(template),
                None => templates,
            };
            texts_of(&files, &with_chat(templates), watch)
        })?;
        let has_tokens = adapter
            .as_ref()
            .is_some_and(|adapter| adapter.tokens.is_some());
        let (mut opened, new_rows) = with_tokens(opened, adapter.as_ref(), config)?;
        let mut notes = std::mem::take(&mut opened.notes);
        let (mut session, precision) = Session::of(opened, &request, runs_in_bf16)?;
        let architecture = session.model.architecture();
        check_recompute(config.train.recompute, architecture, precision)?;
        if config.data.carry_state && !architecture.has_state() {
            return Err(TrainError::Stateless {
                model_type: architecture.model_type.clone(),
            });
        }
        let length = config.train.sequence_length;
        session.model.check_length(length)?;
        session.model.body.recompute = config.train.recompute;
        let (own, adapted) = (config.data.text.clone(), config.model.adapter.as_deref());
        let reading = ReadOptions {
            text: TextCard::inherited(own, adapted, session.files.json(), Self::NAME)?,
            ..with_chat(session.templates_with(template.clone())?)
        };
        let Split {
            train,
            eval,
            held_out,
        } = load_data((config, &files, weights), &session, &reading, &hub, watch)?;
        let conversations = train.read.turns.conversations;
        check_chat(config, conversations)?;
        let mut config_json = session.files.json().json.map().clone();
        // What the checkpoint was found to be, where the file says otherwise.
        if !session.model.architecture().head.tied && config_json.contains_key(TIED) {
            config_json.insert(TIED.to_owned(), false.into());
        }
        let mut read = train.read.clone();
        if let (EvalData::Files(_), Some(eval)) = (&config.data.eval, &eval) {
            read.files.extend(eval.read.files.iter().cloned());
            read.skipped.append(eval.read.skipped.clone());
            read.left_out.extend(eval.read.left_out.iter().cloned());
        }
        if let Some(template) = template.as_ref().filter(|template| template.from.is_file()) {
            let digest = FileDigest::of(&template.from, template.text.as_bytes());
            read.files.push(digest);
        }
        let data = Learned {
            count: train.blocks.len(),
            tokens: train.blocks.iter().map(|block| block.n_tokens()).sum(),
            shuffle: config.data.shuffle,
            facts: data_facts(
                &train,
                eval.as_ref(),
                &held_out,
                &read,
                config.train.sequence_length,
            ),
            files: read.files,
        };
        let architecture = session.model.architecture();
        let token_bytes = token_bytes(architecture, precision);
        let footprint = Footprint::of(architecture, (precision, config.train.recompute));
        notes.extend(warnings.take().into_iter().map(|message| {
            let hint = "check that config.json and the weights are of one model";
            Finding::warning("model", message, hint)
        }));
        let mut findings = findings(&notes, &session.tokenizer, architecture);
        findings.extend(preflight::beyond(architecture, length));
        // An adapter has the tokenizer beside it where that is not the base's.
        let tokenizer_files = match new_rows.is_empty() && !has_tokens {
            true => Vec::new(),
            false => tokenizer_files(&session.files)?,
        };
        let base = Loaded {
            token_bytes,
            model: session.model,
            from: session.files,
            files: match conversations {
                0 => [&BaseOrigin::FILES[..], &[GENERATION]].concat(),
                _ => [&BaseOrigin::FILES[..], &[GENERATION], &CHAT].concat(),
            },
            tokenizer: session.tokenizer.digest().clone(),
            precision,
            footprint: Some(footprint),
            findings,
            adapter,
            new_rows,
        };
        let adapt = |model: CausalLm, modules: &[AttachedModule], meta: &mut AdapterMeta| {
            meta.fan_in_fan_out = model.stores_transposed(modules);
            model
        };
        let card = TextCard::new(Self::NAME, &reading, &train.read.formats);
        let texts = TrainedTexts {
            steps: card.steps()?,
            ..TrainedTexts::default()
        };
        prepare(config, base, data, adapt, |plan, result| Self {
            train,
            eval,
            plan,
            tokenizer: session.tokenizer,
            end_of_text: session.end_of_text,
            length: config.train.sequence_length,
            sample: config.train.sample.clone(),
            texts,
            card,
            template: template.filter(|_| conversations > 0),
            tokenizer_files,
            config: config_json,
            result,
        })
    }

    fn evaluate(&self, model: &CausalLm, stop: Stop<'_>) -> Result<Option<Metrics>> {
        let eval = self.eval.as_ref();
        eval.map(|eval| evaluate(model, eval, stop)).transpose()
    }

    fn save(&self, model: &CausalLm, directory: &Path) -> Result<()> {
        let whole = || {
            let config = cards::in_config(self.config.clone(), &self.card);
            (model.valid().to_tensors(), config)
        };
        let card = cards::text(&self.card);
        let mut files = vec![(CARD_FILE, card.as_str())];
        if let Some(template) = &self.template {
            files.push((TEMPLATE_FILE, &template.text));
        }
        let tokenizer = self.tokenizer_files.iter();
        files.extend(tokenizer.map(|(name, text)| (*name, text.as_str())));
        self.result.save(model, directory, &files, whole)
    }

    fn seen(&self, look: &Look<'_>) -> Result<Option<Seen>> {
        let data = (&self.train, self.eval.as_ref());
        seen_texts::seen(
            data,
            (&self.tokenizer, &self.end_of_text),
            self.length,
            look,
        )
        .map(Some)
    }

    fn sample(&self, model: &CausalLm, stop: Stop<'_>) -> Result<Option<(String, String)>> {
        let Some(SampleConfig { prompt, tokens }) = &self.sample else {
            return Ok(None);
        };
        let prepared = self.texts.prepared(prompt);
        let request = (&*prepared, *tokens, Sampling::greedy());
        let (tokenizer, end) = (&self.tokenizer, &self.end_of_text);
        let mut go_on = |_: &str| ControlFlow::Continue(());
        let generated = generate(model, tokenizer, end, request, stop, &mut go_on)?;
        if generated.finish_reason == FinishReason::Stopped {
            return Err(TrainError::Interrupted);
        }
        Ok(Some((prompt.clone(), generated.text)))
    }

    fn eval(request: &EvalRequest, hub: &HubOptions, stop: Stop<'_>) -> Result<Metrics> {
        let session = Session::open_request(&request.model, hub)?;
        let card = TextCard::of(&request.model, session.files.json(), Self::NAME)?;
        let chosen = request.data.chat_template.as_deref();
        let templates = session.chat_templates(chosen)?;
        let (read, remembered) = TextCard::reading(card, &request.data, Some(templates))?;
        let data = data_files(std::slice::from_ref(&request.data.path), hub, stop)?;
        let cache = CacheChoice::Auto.directory(hub);
        let most = session.model.architecture().max_tokens();
        let usual = DEFAULT_LENGTH.min(most.unwrap_or(usize::MAX));
        let sequence_length = request.sequence_length.unwrap_or(usual);
        session.model.check_length(sequence_length)?;
        let asked = (sequence_length, request.bootstrap);
        let metrics = evaluate_resampled(&session, (&data, cache), &read, asked, stop);
        let options = "--format, --fields or --template";
        metrics.map_err(|error| error.of_remembered(remembered.as_deref().zip(Some(options))))
    }

    fn explain_text(
        request: &ExplainRequest,
        hub: &HubOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Explanation>> {
        next_token::explain(Self::NAME, request, hub, stop)
    }
}

/// Gives a model the tokens that a run adds, or those of the adapter that it trains on from; returns with it the rows that are
/// to be trained of the new ones.
fn with_tokens(
    opened: OpenedModel,
    adapter: Option<&Adapter>,
    config: &RunConfig,
) -> Result<(OpenedModel, Vec<TrainableRows>)> {
    let place = (&config.catalog, config.model.dropout);
    let tokens = config.data.new_tokens();
    if let Some(adapter) = adapter {
        if !tokens.is_empty() {
            return Err(TrainError::TokensOverAdapter);
        }
        let tokens = adapter.tokens.as_ref();
        let own = tokens.map(|tokens| (tokens, &adapter.tensors));
        let opened = opened.with_adapter_tokens(own, place)?;
        return Ok((opened, Vec::new()));
    }
    if tokens.is_empty() {
        return Ok((opened, Vec::new()));
    }
    let (opened, ids) = opened.with_new_tokens(&tokens, place)?;
    let (head, is_tied) = (&opened.architecture.head, opened.is_tied()?);
    let methods = &config.catalog.methods;
    let spec = config
        .method
        .as_ref()
        .and_then(|method| methods.get(&method.kind));
    let is_adapter = config.model.new.is_none() && spec.is_some_and(|spec| spec.peft.is_some());
    if !is_tied && head.bias && is_adapter && !ids.is_empty() {
        return Err(TrainError::HeadBias {
            head: head.path.clone(),
        });
    }
    let (of_head, table) = opened.architecture.head_names();
    let tables = match is_tied {
        true => vec![table],
        false => vec![table, of_head],
    };
    let rows = tables.into_iter().filter(|_| !ids.is_empty());
    let rows = rows.map(|weight| TrainableRows {
        module: weight.trim_end_matches(".weight").to_owned(),
        indices: ids.clone(),
        values: None,
    });
    let rows = rows.collect();
    Ok((opened, rows))
}

/// The files of a model's tokenizer.
fn tokenizer_files(files: &ModelFiles) -> Result<Vec<(&'static str, String)>> {
    let there = TOKENIZER.into_iter();
    let there = there.filter_map(|name| Some((name, files.bytes(name)?)));
    let read = there.map(|(name, bytes)| {
        let path = files.directory().join(name);
        Ok((name, file::text_of(&path, bytes.to_vec())?))
    });
    read.collect()
}

/// The chat template that a run chooses, or that of the adapter that it trains on from.
fn chosen_template(config: &RunConfig) -> Result<Option<TemplateText>> {
    match (&config.data.chat_template, &config.model.adapter) {
        (Some(name), _) => chat::chosen_template(name).map(Some),
        (None, Some(adapter)) => chat::template_of_adapter(&adapter_directory(Path::new(adapter))),
        (None, None) => Ok(None),
    }
}

/// Refuses settings of conversations where there are none.
fn check_chat(config: &RunConfig, conversations: usize) -> Result<()> {
    let data = &config.data;
    let keys = [
        ("chat_template", data.chat_template.is_some()),
        ("train_on_turns", data.train_on_turns != Turns::default()),
    ];
    match keys.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) if conversations == 0 => Err(DataError::NoTurns { key }.into()),
        _ => Ok(()),
    }
}

/// What the run says of its data, of which `read` was read for training and evaluation.
fn data_facts(
    train: &Dataset,
    eval: Option<&Dataset>,
    held_out: &[FileShare],
    read: &ReadReport,
    sequence_length: usize,
) -> Value {
    let report = &train.report;
    let mut facts = json!({
        "train_tokens": report.tokens,
        "labelled_tokens": report.labelled_tokens,
        "cut_examples": report.cut_examples,
        "dropped_examples": report.dropped_examples,
        "truncated_examples": report.truncated_examples,
        "blocks": report.blocks,
        "sequence_length": sequence_length,
        "eval_tokens": eval.map_or(0, |eval| eval.report.labelled_tokens),
        "held_out": held_out,
        "format": formats(&train.read),
        "skipped": read.skipped.count,
        "skipped_rows": read.skipped.first,
        "left_out": read.left_out,
    });
    // What is held out of the same texts is counted with them.
    if let Some(eval) = eval.filter(|eval| !eval.shares_corpus(train)) {
        facts["eval_dropped_examples"] = eval.report.dropped_examples.into();
        facts["eval_truncated_examples"] = eval.report.truncated_examples.into();
    }
    if let Some(streams) = train.streams() {
        facts["streams"] = streams.into();
    }
    let turns = train.read.turns;
    if turns.conversations > 0 {
        facts["conversations"] = turns.conversations.into();
        facts["turns"] = turns.learned.into();
        facts["turns_not_located"] = turns.not_located.into();
    }
    if let Some(text) = &train.read.text {
        facts["text"] = json!(text);
    }
    facts
}

/// The formats of the files, in a word.
fn formats(read: &ReadReport) -> String {
    let names: Vec<&str> = read.formats.iter().map(|format| format.name()).collect();
    names.join(" and ")
}

/// The weights of files: each has that of its path.
fn weights_of(config: &RunConfig, files: &[Vec<PathBuf>]) -> Option<Weights> {
    let weights = config.data.weights.as_ref()?.iter().zip(files);
    let of = weights.flat_map(|(weight, files)| std::iter::repeat_n(*weight, files.len()));
    Some(Weights {
        of: of.collect(),
        seed: config.train.seed,
    })
}

/// Reads the texts to train on, which are in `train`, and to measure on.
fn load_data(
    (config, train, weights): (&RunConfig, &[PathBuf], Option<Weights>),
    session: &Session,
    reading: &ReadOptions,
    hub: &HubOptions,
    watch: Stop<'_>,
) -> Result<Split> {
    let cache = config.data.cache.directory(hub);
    let of_files = (cache, weights);
    let options = settings::dataset(&config.data, &config.train, reading.clone(), of_files);
    let tokenizer = &session.tokenizer;
    Ok(match &config.data.eval {
        EvalData::Files(files) => {
            let files = data_files(files, hub, watch)?;
            // Measured as `eval` and a held-out part are: by the responses.
            let measured = DatasetOptions {
                read: reading.clone().measured(),
                train_on_prompt: false,
                streams: options.streams.map(|_| 1),
                weights: None,
                ..options.clone()
            };
            Split {
                train: Dataset::build(train, tokenizer, &options, watch)?,
                eval: Some(Dataset::build(&files, tokenizer, &measured, watch)?),
                held_out: Vec::new(),
            }
        }
        EvalData::Fraction(fraction) => {
            let size = Size {
                fraction: *fraction,
                max: config.data.eval_max.unwrap_or(u64::MAX),
            };
            let held_out = (size, config.train.seed);
            Dataset::build_split(train, tokenizer, &options, held_out, watch)?
        }
    })
}
