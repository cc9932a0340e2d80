//! Solved examples in the prompt of a language model.
//!
//! Labels are scored as lm-evaluation-harness 0.4.13 scores multiple choice (`TemplateLM._encode_pair`,
//! `HFLM._loglikelihood_tokens` and `ConfigurableTask.process_results` there): the prompt is `K` examples, each filled into the
//! template with its label, and the row's own without, joined by blank lines. White space at its end is moved to the label;
//! then the tokens of the label are those of prompt and label together behind as many as the prompt alone has. The score of a
//! label is the sum of their log-likelihoods, and for `accuracy_norm` that divided by the characters of the label. Where both
//! together are too long, the prompt loses tokens from its beginning.
//!
//! The examples are drawn once and are the same before each row, so that what a row is said to be does not depend on its place
//! (lm-evaluation-harness draws others for each row). A row that is among them has the next one of the draw in its place.

use burn::tensor::Tensor;
use reparam_data::Template;
use reparam_data::rows::{Labels, TextRow, log_softmax};
use reparam_formats::hub::HubOptions;
use reparam_models::KvCache;

use super::examples::{ByExamples, Example, Said};
use crate::task::{DataRequest, ExamplesRequest, ModelRequest};
use crate::tasks::causal_lm::TrainedTexts;
use crate::tasks::next_token::largest;
use crate::warnings::beyond_positions;
use crate::{ExamplesError, Result, Session, Stop};

#[cfg(test)]
mod tests;

/// The template of who gives none.
const TEMPLATE: &str = "{text}\nLabel: {label}";

/// What stands between examples.
const BETWEEN: &str = "\n\n";

/// A language model with what its prompts are made of.
#[derive(Debug)]
pub(super) struct Shots {
    session: Session,
    template: Template,
    /// What is done to texts first, and to words.
    trained: TrainedTexts,
    /// What is said for each label, by its index.
    words: Vec<String>,
    /// In the order in which they are drawn.
    examples: Vec<Example>,
    /// How many of them are in a prompt.
    shots: usize,
    /// The most tokens that the model reads.
    most: usize,
    shared: Shared,
}

/// What the prompts of most rows begin with.
#[derive(Debug)]
enum Shared {
    /// Nothing is known.
    Unknown,
    /// The prompt of the row before.
    Before(Vec<u32>),
    /// Tokens that were read.
    Read(Vec<u32>, KvCache),
}

/// The prompt of a row, and what may follow it, in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prompt {
    context: Vec<u32>,
    /// Of each label.
    continuations: Vec<Vec<u32>>,
    /// Whether the examples in it are those of most rows.
    is_usual: bool,
}

impl Shots {
    /// Opens a language model, and checks what its prompts are made of.
    pub(super) fn open(
        (request, data): (&ModelRequest, &DataRequest),
        asked: &ExamplesRequest,
        (labels, examples): (&Labels, Vec<Example>),
        length: Option<usize>,
        hub: &HubOptions,
    ) -> Result<Self> {
        let shots = asked.shots.ok_or(ExamplesError::NoNumber)?;
        if examples.len() < shots {
            return Err(ExamplesError::TooFew {
                wanted: shots,
                found: examples.len(),
                label: None,
            }
            .into());
        }
        let template = match &data.template {
            Some(template) => template.clone(),
            None => TEMPLATE.parse()?,
        };
        check(&template)?;
        let session = Session::open_request(request, hub)?;
        let trained = TrainedTexts::of(request, &session, hub)?;
        let words = words(labels, asked, &trained)?;
        let architecture = session.model.architecture();
        // With more rotary positions than it was made for a model still says something; a table of positions has an end.
        let most = length.unwrap_or(architecture.max_positions);
        let most = most.min(architecture.max_tokens().unwrap_or(usize::MAX));
        if length.is_some() {
            let warning = beyond_positions(architecture, most);
            request.warnings.extend(warning);
        }
        Ok(Self {
            session,
            template,
            trained,
            words,
            examples,
            shots,
            most,
            shared: Shared::Unknown,
        })
    }

    /// Fills a row and a word into the template; returns the text and how much of it is the prompt.
    fn filled(&self, row: &TextRow, word: &str) -> Result<(String, usize)> {
        let pair = row.text_pair.as_deref();
        let wants_pair = self.template.fields().any(|field| field == "text_pair");
        let problem = match (pair, wants_pair) {
            (Some(_), false) => "the row has a `text_pair`, and the template no {text_pair}",
            (None, true) => "the row has no `text_pair`, and the template has {text_pair}",
            _ => {
                let (text, prompt) = self.template.fill(|field| {
                    Ok(match field {
                        "text" => self.trained.prepared(&row.text),
                        "text_pair" => self.trained.prepared(pair.unwrap_or_default()),
                        _ => word.into(),
                    })
                })?;
                return Ok((text, prompt.unwrap_or_default()));
            }
        };
        Err(ExamplesError::Pair {
            place: row.place.clone(),
            problem,
        }
        .into())
    }

    /// The examples before a row, which does not stand among them.
    fn beside(&self, row: &TextRow) -> Result<Vec<&Example>> {
        let others = self
            .examples
            .iter()
            .filter(|example| is_other(example, row));
        let drawn: Vec<&Example> = others.take(self.shots).collect();
        if drawn.len() < self.shots {
            return Err(ExamplesError::TooFewBeside {
                place: row.place.clone(),
                wanted: self.shots,
                found: drawn.len(),
            }
            .into());
        }
        Ok(drawn)
    }

    /// What stands before the label of a row: the examples, and the row.
    fn text(&self, row: &TextRow) -> Result<String> {
        let mut text = String::new();
        for (example, class) in self.beside(row)? {
            text += &self.filled(example, &self.words[*class])?.0;
            text += BETWEEN;
        }
        let (own, length) = self.filled(row, "")?;
        text += &own[..length];
        let is_empty = text.trim_end_matches(is_space).is_empty();
        match is_empty && self.first_token().is_none() {
            false => Ok(text),
            true => Err(ExamplesError::EmptyPrompt {
                place: row.place.clone(),
            }
            .into()),
        }
    }

    /// What begins a prompt.
    fn first_token(&self) -> Option<u32> {
        let special = self.session.tokenizer.special_tokens();
        special.bos.or(special.eos)
    }

    /// Makes the prompt of a row.
    fn prompt(&self, row: &TextRow) -> Result<Prompt> {
        let (context, continuations) = self.encode(&self.text(row)?)?;
        Ok(Prompt {
            context,
            continuations,
            is_usual: self.examples[..self.shots]
                .iter()
                .all(|example| is_other(example, row)),
        })
    }

    /// Makes tokens of a prompt and of each label behind it.
    fn encode(&self, text: &str) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let tokenizer = &self.session.tokenizer;
        let (special, first) = (tokenizer.special_tokens(), self.first_token());
        let context = text.trim_end_matches(is_space);
        // A text that begins with that token itself is not given another.
        let first_text = first.and_then(|id| tokenizer.token(id));
        let begins = first_text.is_some_and(|token| context.starts_with(&token));
        let encode = |text: &str, with_template: bool| -> Result<Vec<u32>> {
            let mut ids = tokenizer.encode(text, with_template)?;
            let ends = |ids: &[u32]| special.eos.is_some() && ids.last() == special.eos.as_ref();
            // Nothing follows an end that the template has put behind the text.
            if with_template && ends(&ids) && !ends(&tokenizer.encode(text, false)?) {
                ids.pop();
            }
            Ok(ids)
        };
        let mut ids = encode(context, !begins)?;
        let is_empty = context.is_empty();
        if is_empty {
            ids = first.into_iter().collect();
        }
        let continuation = |word: &String| -> Result<Vec<u32>> {
            let said = format!("{text}{word}");
            let mut tokens = encode(&said, !begins && !is_empty)?;
            let given = match is_empty {
                false => ids.len().min(tokens.len()),
                true => usize::from(tokens.first() == ids.first()),
            };
            tokens.drain(..given);
            match tokens.len() {
                0 => Err(ExamplesError::NoTokens { word: word.clone() }.into()),
                n if n > self.most => Err(ExamplesError::LongWord {
                    word: word.clone(),
                    tokens: n,
                    most: self.most,
                }
                .into()),
                _ => Ok(tokens),
            }
        };
        let continuations = self.words.iter().map(continuation).collect::<Result<_>>()?;
        Ok((ids, continuations))
    }

    /// How much of a prompt is cut away, so that a label fits behind it: its last token is not read.
    fn cut(&self, prompt: &Prompt, continuation: &[u32]) -> usize {
        let all = prompt.context.len() + continuation.len();
        all.saturating_sub(self.most.saturating_add(1))
    }

    /// Returns the summed log-likelihood of each label.
    fn log_likelihoods(&mut self, prompt: &Prompt) -> Vec<f64> {
        // Labels of as many tokens leave as much of the prompt.
        let mut read: Vec<(usize, KvCache, Vec<f32>)> = Vec::new();
        let mut sums = Vec::with_capacity(prompt.continuations.len());
        for continuation in &prompt.continuations {
            let cut = self.cut(prompt, continuation);
            let place = read.iter().position(|(other, ..)| *other == cut);
            let place = place.unwrap_or_else(|| {
                let (cache, logits) =
                    self.read(&prompt.context[cut..], prompt.is_usual && cut == 0);
                read.push((cut, cache, logits));
                read.len() - 1
            });
            let (_, cache, logits) = &read[place];
            let mut sum = log_softmax(logits, continuation[0] as usize);
            let given = &continuation[..continuation.len() - 1];
            if !given.is_empty() {
                let model = &self.session.model;
                let logits = numbers(model.all_next_logits(given, &mut cache.clone()));
                let rows = logits.chunks_exact(model.vocab_size());
                let rows = rows.zip(&continuation[1..]);
                sum += rows
                    .map(|(logits, token)| log_softmax(logits, *token as usize))
                    .sum::<f64>();
            }
            sums.push(sum);
        }
        sums
    }

    /// Reads a prompt, and returns the logits behind it. What it has in common with those before is not read again.
    fn read(&mut self, tokens: &[u32], is_usual: bool) -> (KvCache, Vec<f32>) {
        if is_usual {
            self.share(tokens);
        }
        let model = &self.session.model;
        let (mut cache, given) = match &self.shared {
            // The last token is read, since its logits are wanted.
            Shared::Read(shared, cache)
                if shared.len() < tokens.len() && tokens.starts_with(shared) =>
            {
                (cache.clone(), shared.len())
            }
            _ => (model.new_cache(self.most), 0),
        };
        let logits = numbers(model.next_logits(&tokens[given..], &mut cache));
        (cache, logits)
    }

    /// Notes what a prompt has in common with those before.
    fn share(&mut self, tokens: &[u32]) {
        let before = match &self.shared {
            Shared::Unknown => return self.shared = Shared::Before(tokens.to_vec()),
            Shared::Before(tokens) | Shared::Read(tokens, _) => tokens,
        };
        let pairs = before.iter().zip(tokens);
        let same = pairs.take_while(|(a, b)| a == b).count();
        let same = same.min(tokens.len() - 1);
        let is_read = matches!(self.shared, Shared::Read(..));
        // A prompt that was cut begins elsewhere, and no more than that follows of it.
        if same == 0 || (is_read && same == before.len()) {
            return;
        }
        let mut cache = self.session.model.new_cache(self.most);
        let shared = tokens[..same].to_vec();
        let _ = self.session.model.next_logits(&shared, &mut cache);
        self.shared = Shared::Read(shared, cache);
    }
}

fn is_other((example, _): &Example, row: &TextRow) -> bool {
    (&example.text, &example.text_pair) != (&row.text, &row.text_pair)
}

impl ByExamples for Shots {
    fn fits(&self, row: &TextRow) -> Result<()> {
        self.text(row).map(|_| ())
    }

    fn say(&mut self, rows: &[&TextRow], stop: Stop<'_>) -> Result<Vec<Said>> {
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            stop.check()?;
            let prompt = self.prompt(row)?;
            let mut continuations = prompt.continuations.iter();
            let is_cut = continuations.any(|tokens| self.cut(&prompt, tokens) > 0);
            let sums = self.log_likelihoods(&prompt);
            let lengths = self.words.iter().map(|word| word.chars().count() as f64);
            let by_length: Vec<f64> = sums.iter().zip(lengths).map(|(sum, n)| sum / n).collect();
            all.push(Said {
                by_length: Some(largest(&by_length)),
                logits: sums.iter().map(|sum| *sum as f32).collect(),
                is_cut,
            });
        }
        Ok(all)
    }

    fn length(&self) -> usize {
        self.most
    }
}

/// What is said for each label, by its index.
fn words(
    labels: &Labels,
    asked: &ExamplesRequest,
    trained: &TrainedTexts,
) -> Result<Vec<String>, ExamplesError> {
    let names = labels.names();
    if let Some(label) = asked.words.keys().find(|label| !names.contains(label)) {
        return Err(ExamplesError::WordOfNoLabel {
            label: label.clone(),
            labels: names.to_vec(),
        });
    }
    let word = |name: &String| {
        let word = asked.words.get(name).unwrap_or(name);
        trained.prepared(word).into_owned()
    };
    let words: Vec<String> = names.iter().map(word).collect();
    let repeated = words
        .iter()
        .enumerate()
        .find(|(place, word)| words[..*place].contains(word));
    match (repeated, words.iter().find(|word| word.is_empty())) {
        (Some((_, word)), _) => Err(ExamplesError::SameWord { word: word.clone() }),
        (None, Some(word)) => Err(ExamplesError::NoTokens { word: word.clone() }),
        (None, None) => Ok(words),
    }
}

/// Checks that a template makes a prompt and leaves its end to the label.
fn check(template: &Template) -> Result<(), ExamplesError> {
    let has = |wanted: &str| template.fields().any(|field| field == wanted);
    let mut fields = template.fields();
    let problem = if !has("text") {
        "has no {text}"
    } else if !has("label") {
        "has no {label}"
    } else if template.response() != Some("label")
        || template.fields().filter(|field| *field == "label").count() > 1
    {
        "has to end with {label}, and to have it there alone"
    } else if fields.any(|field| !["text", "text_pair", "label"].contains(&field)) {
        "has another field than {text}, {text_pair} and {label}"
    } else {
        return Ok(());
    };
    Err(ExamplesError::Template {
        template: template.to_string(),
        problem,
    })
}

/// What Python's `str.rstrip` takes away.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn numbers(logits: Tensor<2>) -> Vec<f32> {
    logits.into_data().iter::<f32>().collect()
}
