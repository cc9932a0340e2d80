//! Models that begin with nothing: a configuration, a tokenizer, and weights that are drawn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use reparam_data::tokenizer::tokenizer_json;
use reparam_data::vocabulary::train_tokenizer;
use reparam_data::{SpecialIds, TextTokenizer};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::{JsonObject, ModelJson};
use reparam_formats::file;
use reparam_formats::safetensors::TensorToWrite;
use reparam_formats::tokenizer_files::{ADDED_TOKENS_FILE, OLDER_TOKENIZER_FILES};
use reparam_formats::word_vectors::WordVectors;
use reparam_models::{Architecture, NewModel};
use serde_json::{Map, Value, json};

use crate::config::{Catalog, NewModelConfig, TokenizerConfig};
use crate::memory::check_fits;
use crate::model_files::{CONFIG, ModelFiles, TOKENIZER};
use crate::open::OpenedModel;
use crate::preflight::Finding;
use crate::session::load_tokenizer;
use crate::{Result, TrainError};

/// The key that `architecture` says.
const MODEL_TYPE: &str = "model_type";

/// The key that says what targets begin with.
const START: &str = "decoder_start_token_id";

/// What a new model is made with beside its configuration.
pub(crate) struct Recipe<'a> {
    pub(crate) catalog: &'a Catalog,
    /// Which tensors it has.
    pub(crate) of: NewModel,
    /// What they are drawn from.
    pub(crate) seed: u64,
    /// Another dropout than the configuration says.
    pub(crate) dropout: Option<f64>,
}

impl OpenedModel {
    /// Makes a model. `texts` gives what its tokenizer is trained on, if it is trained.
    ///
    /// The same configuration, texts and seed make the same bytes. The drawn weights stay in memory as long as the model's files.
    pub(crate) fn new(
        config: &NewModelConfig,
        recipe: &Recipe<'_>,
        texts: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<Self> {
        let name = PathBuf::from(format!("new {} model", config.architecture));
        let families = &recipe.catalog.families;
        // What is wrong with the sizes is said before a tokenizer is trained; any size of the vocabulary will do for that.
        let draft = configuration(config, &name, recipe.of, None)?;
        check_read(config, &JsonObject::new(&name, Map::new()))?;
        let draft = families.describe(&draft)?;
        check_fits(&[("model.config", bytes_of(&draft, recipe.of)?)])?;
        let files = tokenizer_files(&config.tokenizer, texts)?;
        let tokenizer = |name: &str| files.get(name).map(Vec::as_slice);
        let tokenizer = TextTokenizer::from_bytes(&name, &SpecialIds::default(), tokenizer)?;
        let writes = matches!(recipe.of, NewModel::Causal | NewModel::Seq2Seq);
        if writes && tokenizer.eos_id().is_none() {
            return Err(TrainError::NoSentenceMarks);
        }
        let json = configuration(config, &name, recipe.of, Some(&tokenizer))?;
        let mut architecture = families.describe(&json)?;
        check_read(config, &json.json)?;
        if tokenizer.vocab_size() > architecture.vocab_size {
            return Err(TrainError::SmallVocabulary {
                tokens: tokenizer.vocab_size(),
                rows: architecture.vocab_size,
            });
        }
        if let Some(dropout) = recipe.dropout {
            architecture.set_dropout(dropout)?;
        }
        check_fits(&[("model.config", bytes_of(&architecture, recipe.of)?)])?;
        let planned = architecture.new_tensors(recipe.of)?;
        let mut drawn: Vec<Vec<f32>> = planned
            .iter()
            .map(|tensor| tensor.values(recipe.seed))
            .collect();
        let mut notes = Vec::new();
        if let Some(path) = &config.word_vectors {
            let (_, table) = architecture.head_names();
            let place = planned.iter().position(|tensor| tensor.name() == table);
            let width = architecture.table_width();
            if let Some(rows) = place.and_then(|place| drawn.get_mut(place)) {
                notes.push(put_vectors(path, &tokenizer, rows, width)?);
            }
        }
        let tensors = planned.iter().zip(&drawn);
        let tensors: Vec<TensorToWrite<'_>> = tensors
            .map(|(tensor, values)| TensorToWrite::f32(tensor.name(), tensor.shape(), values))
            .collect();
        let weights = Checkpoint::in_memory(&name, &tensors)?;
        let files = ModelFiles::new(name, json, weights, files);
        let tokenizer = load_tokenizer(&files, &architecture.special)?;
        let tokenizer = tokenizer.with_embedding_rows(architecture.vocab_size);
        Ok(Self {
            files,
            architecture,
            tokenizer,
            notes,
        })
    }
}

/// Puts the vectors of words in the rows of their tokens, and says how many there are.
fn put_vectors(
    path: &Path,
    tokenizer: &TextTokenizer,
    rows: &mut [f32],
    width: usize,
) -> Result<Finding> {
    let vectors = WordVectors::read(path, None)?;
    if vectors.dim() != width {
        return Err(TrainError::VectorWidth {
            path: path.to_owned(),
            found: vectors.dim(),
            expected: width,
        });
    }
    let ids = tokenizer.ordinary_ids();
    let mut found = 0;
    for id in &ids {
        let word = tokenizer.token(*id);
        let row = rows.chunks_exact_mut(width).nth(*id as usize);
        if let (Some(row), Some(vector)) = (row, word.and_then(|word| vectors.vector(&word))) {
            row.copy_from_slice(vector);
            found += 1;
        }
    }
    match found {
        0 => Err(TrainError::NoCommonWords { missing: ids.len() }),
        _ => Ok(Finding::warning(
            "model",
            format!(
                "{found} of {} tokens have a vector in {}; the others are drawn",
                ids.len(),
                path.display()
            ),
            "if more should, take vectors of the language and the spelling (upper case, accents) of the tokenizer's words",
        )),
    }
}

/// The files of the tokenizer.
pub(crate) fn tokenizer_files(
    config: &TokenizerConfig,
    texts: impl FnOnce() -> Result<Vec<String>>,
) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    match config {
        TokenizerConfig::Trained(options) => {
            let trained = train_tokenizer(&texts()?, options)?;
            let [tokenizer, settings] = [TOKENIZER[0], TOKENIZER[1]];
            Ok(BTreeMap::from([
                (tokenizer, trained.tokenizer),
                (settings, trained.config),
            ]))
        }
        TokenizerConfig::Directory { path } => {
            let mut files = BTreeMap::new();
            let older = OLDER_TOKENIZER_FILES.into_iter().chain([ADDED_TOKENS_FILE]);
            for name in TOKENIZER.into_iter().chain(older) {
                let path = path.join(name);
                if file::is_there(&path)? {
                    files.insert(name, file::read(&path)?);
                }
            }
            if !files.contains_key(TOKENIZER[0]) {
                let bytes = |name: &str| files.get(name).map(Vec::as_slice);
                let made = older_tokenizer(path, bytes)?;
                files.insert(TOKENIZER[0], made);
            }
            // What it was made of, the result does not need.
            files.retain(|name, _| TOKENIZER.contains(name));
            Ok(files)
        }
    }
}

/// Makes the `tokenizer.json` of a directory that has none of its older files; `bytes` gives those that are there.
fn older_tokenizer<'a>(
    directory: &Path,
    bytes: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Vec<u8>> {
    // What the model is may say the class of the tokenizer.
    let config = directory.join(CONFIG);
    let json = match file::is_there(&config)? {
        true => Some(JsonObject::parse(&config, &file::read_text(&config)?)?),
        false => None,
    };
    let model_type = json.as_ref().map(|json| json.str(MODEL_TYPE)).transpose()?;
    match tokenizer_json(directory, model_type.flatten(), bytes)? {
        Some(made) => Ok(made),
        // Says that it is not there.
        None => Ok(file::read(&directory.join(TOKENIZER[0]))?),
    }
}

/// The bytes of the weights, which are drawn, kept, and loaded.
fn bytes_of(architecture: &Architecture, of: NewModel) -> Result<u128> {
    const COPIES: u128 = 3;
    let planned = architecture.new_tensors(of)?;
    let numbers = planned.iter().map(|tensor| {
        let sizes = tensor.shape().iter().map(|size| *size as u128);
        sizes.fold(1, u128::saturating_mul)
    });
    let numbers = numbers.fold(0, u128::saturating_add);
    Ok(numbers.saturating_mul(4 * COPIES))
}

/// The `config.json` of the model: what the run file says, and what its tokenizer decides.
fn configuration(
    config: &NewModelConfig,
    name: &Path,
    of: NewModel,
    tokenizer: Option<&TextTokenizer>,
) -> Result<ModelJson> {
    let mut map = Map::from_iter([
        (MODEL_TYPE.to_owned(), json!(config.architecture)),
        ("dtype".to_owned(), json!("float32")),
        ("vocab_size".to_owned(), json!(1)),
    ]);
    if let Some(tokenizer) = tokenizer {
        let special = tokenizer.special_tokens();
        map.extend([
            ("vocab_size".to_owned(), json!(tokenizer.vocab_size())),
            ("bos_token_id".to_owned(), json!(special.bos)),
            ("eos_token_id".to_owned(), json!(special.eos)),
            ("pad_token_id".to_owned(), json!(special.pad)),
        ]);
    }
    if of == NewModel::Seq2Seq {
        let special = tokenizer.map(TextTokenizer::special_tokens);
        let first = special.and_then(|special| special.bos.or(special.eos).or(special.pad));
        map.insert("is_encoder_decoder".to_owned(), json!(true));
        map.insert(START.to_owned(), json!(first.unwrap_or(0)));
    }
    for (key, value) in &config.config {
        map.insert(key.clone(), json!(value));
    }
    if tokenizer.is_none() && map.contains_key(START) {
        // The one token of a draft.
        map.insert(START.to_owned(), json!(0));
    }
    let text = Value::Object(map).to_string();
    Ok(ModelJson::parse(&name.join(CONFIG), &text)?)
}

/// Refuses keys that the family does not read.
fn check_read(config: &NewModelConfig, json: &JsonObject) -> Result<()> {
    let unread = json.unread();
    let mut given = config.config.iter().map(|(key, _)| key);
    match given.find(|key| *key == MODEL_TYPE || unread.contains(key)) {
        None => Ok(()),
        Some(key) => Err(TrainError::UnreadKey {
            key: key.clone(),
            architecture: config.architecture.clone(),
            known: json.asked(),
        }),
    }
}
