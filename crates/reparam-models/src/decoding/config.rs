//! How targets are searched for, under the names of transformers' `generation_config.json`.

use reparam_formats::config::JsonObject;

use crate::{Architecture, ModelError, Sampling};

/// When a beam search ends besides at the greatest length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EarlyStopping {
    /// When the best running beam cannot be better at its length than the worst finished one: `false`.
    Heuristic,
    /// When there are as many finished targets as beams: `true`.
    Full,
    /// When no running beam can become better than the worst finished one: `"never"`.
    Never,
}

/// How targets are searched for; what is not set does nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodingConfig {
    /// How many targets are followed at a time; 1 chooses one token each time.
    pub num_beams: usize,
    /// How that token is chosen; several beams are those of the most likely tokens.
    pub sampling: Sampling,
    /// How many of the finished targets are returned, at most `num_beams`.
    pub num_return_sequences: usize,
    /// The greatest number of tokens after the start token.
    pub max_new_tokens: usize,
    /// The least number of tokens before one that ends a target.
    pub min_new_tokens: usize,
    /// The score of a finished target is its log-likelihood divided by its length to this power.
    pub length_penalty: f64,
    /// When a search ends.
    pub early_stopping: EarlyStopping,
    /// So many tokens in a row come once only; 0 lets them repeat.
    pub no_repeat_ngram_size: usize,
    /// What the scores of tokens that are there already are divided by, or multiplied by where they are negative.
    pub repetition_penalty: f64,
    /// Whether scores are normalized after all else was done to them.
    pub renormalize_logits: bool,
    /// The token that a target begins with.
    pub decoder_start: u32,
    /// The tokens that end a target.
    pub eos: Vec<u32>,
    /// The token after the start token.
    pub forced_bos: Option<u32>,
    /// The tokens of which one is the last of a target of the greatest length.
    pub forced_eos: Vec<u32>,
    /// Tokens in a row that never come.
    pub bad_words: Vec<Vec<u32>>,
    /// The stream of random numbers: what is drawn with one seed for several sources is independent if each has its own.
    pub stream: u64,
}

/// What a target has at most where nothing says more: the default of transformers.
const MAX_NEW_TOKENS: usize = 20;

/// The most beams that are accepted.
const MOST_BEAMS: usize = 1024;

/// Keys of `generation_config.json` that change what is generated and are not supported, with the value that changes nothing.
const UNSUPPORTED: [(&str, f64); 8] = [
    ("num_beam_groups", 1.0),
    ("diversity_penalty", 0.0),
    ("penalty_alpha", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("guidance_scale", 1.0),
    ("max_time", 0.0),
    ("prompt_lookup_num_tokens", 0.0),
];

/// The same where tokens are drawn.
const UNSUPPORTED_DRAWN: [(&str, f64); 4] = [
    ("typical_p", 1.0),
    ("min_p", 0.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
];

/// The same for keys that hold no number.
const UNSUPPORTED_LISTS: [&str; 9] = [
    "sequence_bias",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_decoder_ids",
    "force_words_ids",
    "constraints",
    "stop_strings",
    "watermarking_config",
];

impl DecodingConfig {
    /// Returns the most likely token each time, for a model with these special tokens.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotSeq2Seq`].
    pub fn greedy(architecture: &Architecture) -> Result<Self, ModelError> {
        let Some(spec) = &architecture.seq2seq else {
            let model_type = architecture.model_type.clone();
            return Err(ModelError::NotSeq2Seq { model_type });
        };
        Ok(Self {
            num_beams: 1,
            sampling: Sampling::greedy(),
            num_return_sequences: 1,
            max_new_tokens: MAX_NEW_TOKENS,
            min_new_tokens: 0,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            no_repeat_ngram_size: 0,
            repetition_penalty: 1.0,
            renormalize_logits: false,
            decoder_start: spec.decoder_start,
            eos: architecture.special.eos.clone(),
            forced_bos: None,
            forced_eos: Vec::new(),
            bad_words: Vec::new(),
            stream: 0,
        })
    }

    /// Reads `generation_config.json`, or the keys of it in a `config.json`, where models from before that file have them.
    /// Special tokens that it does not name are those of the model.
    ///
    /// `max_length` and `min_length` count the start token, `max_new_tokens` and `min_new_tokens`, which come before them, do not.
    ///
    /// # Errors
    ///
    /// [`ModelError::NotSeq2Seq`]; [`ModelError::Config`] for a value of the wrong type, [`ModelError::UnsupportedSetting`] for a
    /// key that would change what is generated and is not supported, and those of [`check`](Self::check).
    pub fn read(json: &JsonObject, architecture: &Architecture) -> Result<Self, ModelError> {
        refuse_others(json)?;
        let default = Self::greedy(architecture)?;
        let number = |key| json.f64(key);
        let size = |key| json.usize(key);
        let new = |new, all| -> Result<Option<usize>, ModelError> {
            match size(new)? {
                Some(n) => Ok(Some(n)),
                None => Ok(size(all)?.map(|n| n.saturating_sub(1))),
            }
        };
        let config = Self {
            num_beams: size("num_beams")?.unwrap_or(1),
            sampling: sampling(json)?,
            num_return_sequences: size("num_return_sequences")?.unwrap_or(1),
            max_new_tokens: new("max_new_tokens", "max_length")?.unwrap_or(MAX_NEW_TOKENS),
            min_new_tokens: new("min_new_tokens", "min_length")?.unwrap_or(0),
            length_penalty: number("length_penalty")?.unwrap_or(1.0),
            early_stopping: early_stopping(json)?,
            no_repeat_ngram_size: size("no_repeat_ngram_size")?.unwrap_or(0),
            repetition_penalty: number("repetition_penalty")?.unwrap_or(1.0),
            renormalize_logits: json.bool("renormalize_logits")?.unwrap_or(false),
            decoder_start: json
                .token_id("decoder_start_token_id")?
                .unwrap_or(default.decoder_start),
            eos: json.token_ids("eos_token_id")?.unwrap_or(default.eos),
            forced_bos: json.token_id("forced_bos_token_id")?,
            forced_eos: json.token_ids("forced_eos_token_id")?.unwrap_or_default(),
            bad_words: bad_words(json)?,
            stream: 0,
        };
        config.check(architecture.vocab_size)?;
        Ok(config)
    }

    /// Checks that every setting is in its range, and every token in a vocabulary of this size.
    ///
    /// # Errors
    ///
    /// [`ModelError::Sampling`].
    pub fn check(&self, vocab_size: usize) -> Result<(), ModelError> {
        let refuse = |setting, expected, found: &dyn ToString| {
            let found = found.to_string();
            Err(ModelError::Sampling {
                setting,
                expected,
                found,
            })
        };
        if !(1..=MOST_BEAMS).contains(&self.num_beams) {
            return refuse("num_beams", "from 1 to 1024", &self.num_beams);
        }
        self.sampling.check()?;
        if self.num_beams > 1 && self.sampling.temperature > 0.0 {
            let found = self.sampling.temperature;
            return refuse("temperature", "0 where there are several beams", &found);
        }
        if !(1..=self.num_beams).contains(&self.num_return_sequences) {
            let found = self.num_return_sequences;
            return refuse("num_return_sequences", "from 1 to num_beams", &found);
        }
        if self.max_new_tokens == 0 {
            return refuse("max_new_tokens", "at least 1", &0);
        }
        if !self.length_penalty.is_finite() {
            return refuse("length_penalty", "a number", &self.length_penalty);
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            let found = self.repetition_penalty;
            return refuse("repetition_penalty", "more than 0", &found);
        }
        if self.bad_words.iter().any(Vec::is_empty) {
            return refuse("bad_words_ids", "lists of tokens", &"[]");
        }
        let forced = self.forced_bos.iter().chain(&self.forced_eos);
        let bad = self.bad_words.iter().flatten();
        let all = forced
            .chain(&self.eos)
            .chain(bad)
            .chain([&self.decoder_start]);
        match all.max() {
            Some(token) if *token as usize >= vocab_size => {
                refuse("token ids", "below the size of the vocabulary", token)
            }
            _ => Ok(()),
        }
    }
}

/// With the defaults of transformers where tokens are drawn at all.
fn sampling(json: &JsonObject) -> Result<Sampling, ModelError> {
    if json.bool("do_sample")? != Some(true) {
        return Ok(Sampling::greedy());
    }
    Ok(Sampling {
        temperature: json.f64("temperature")?.unwrap_or(1.0),
        top_k: json.usize("top_k")?.unwrap_or(50),
        top_p: json.f64("top_p")?.unwrap_or(1.0),
        seed: 0,
    })
}

fn early_stopping(json: &JsonObject) -> Result<EarlyStopping, ModelError> {
    let Some(value) = json.get("early_stopping") else {
        return Ok(EarlyStopping::Heuristic);
    };
    match (value.as_bool(), value.as_str()) {
        (Some(false), _) => Ok(EarlyStopping::Heuristic),
        (Some(true), _) => Ok(EarlyStopping::Full),
        (None, Some("never")) => Ok(EarlyStopping::Never),
        (None, _) => Err(json
            .wrong_type("early_stopping", "true, false or \"never\"")
            .into()),
    }
}

fn bad_words(json: &JsonObject) -> Result<Vec<Vec<u32>>, ModelError> {
    let Some(value) = json.get("bad_words_ids") else {
        return Ok(Vec::new());
    };
    let words = value.as_array().and_then(|words| {
        let words = words.iter().map(|word| {
            let ids = word.as_array()?.iter();
            ids.map(|id| u32::try_from(id.as_u64()?).ok()).collect()
        });
        words.collect::<Option<Vec<Vec<u32>>>>()
    });
    words.ok_or_else(|| {
        json.wrong_type("bad_words_ids", "a list of lists of token ids")
            .into()
    })
}

/// Refuses what would change the targets and is not done.
fn refuse_others(json: &JsonObject) -> Result<(), ModelError> {
    let refuse = |setting, found: &dyn ToString, supported| {
        Err(ModelError::UnsupportedSetting {
            setting,
            found: found.to_string(),
            supported,
        })
    };
    let drawn = match json.bool("do_sample")? {
        Some(true) => &UNSUPPORTED_DRAWN[..],
        _ => &[],
    };
    for (key, neutral) in UNSUPPORTED.iter().chain(drawn) {
        match json.get(key) {
            Some(found) if found.as_f64() != Some(*neutral) => {
                return refuse(key, found, "leave it out");
            }
            _ => {}
        }
    }
    for key in UNSUPPORTED_LISTS {
        match json.get(key) {
            Some(found) if found.as_array().is_none_or(|list| !list.is_empty()) => {
                return refuse(key, found, "leave it out");
            }
            _ => {}
        }
    }
    Ok(())
}
