//! Generation and the cache of keys and values.

use burn::module::Module;
use reparam::ForwardContext;

use super::{
    Documents, STORIES, golden_adapter, golden_json, golden_tensors, ids, in_f64, integers, load,
    max_difference, values, with_adapter,
};
use crate::{CausalLm, ModelError, Sampling, StopReason};

/// The same sums in another order: a cached step multiplies one row where the whole pass
/// multiplies all. Relative to the largest logit; in `f32` each way is itself 1e-6 from exact.
const CACHE_TOLERANCE: f64 = 1e-5;
/// In `f64` nothing but an error is left.
const CACHE_TOLERANCE_F64: f64 = 1e-13;
const EOS: u32 = 2;

pub(super) fn greedy(model: &CausalLm, prompt: &[u32], n: usize, end_of_text: &[u32]) -> Vec<u32> {
    let generation = model.generate(prompt, n, Sampling::greedy(), end_of_text);
    generation
        .expect("a prompt")
        .collect::<Result<_, _>>()
        .expect("finite logits")
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    let model = load(STORIES);
    let golden = golden_json("generate.json");
    let continuations = golden["continuations"].as_array().expect("a list").iter();
    let mut n_tokens = 0;
    for case in continuations.chain([&golden["greedy_file"]]) {
        let expected = ids(&case["new_ids"]);
        let n = case["max_new_tokens"].as_u64().expect("a number") as usize;
        let found = greedy(&model, &ids(&case["prompt_ids"]), n, &[EOS]);
        assert_eq!(found, expected, "{}", case["prompt"]);
        n_tokens += found.len();
    }
    assert_eq!(n_tokens, 64 + 64 + 256);
}

fn text() -> Vec<u32> {
    let file = golden_tensors("logits.safetensors");
    let ids = integers(&file, "input_ids").into_iter();
    ids.take(48).map(|id| id as u32).collect()
}

/// Checks a cache that is filled in several ways; `text` has 48 tokens.
pub(super) fn check_cache(model: &CausalLm, text: &[u32], tolerance: f64, what: &str) {
    let vocab = model.vocab_size();
    let documents = Documents::new([text]);
    let full = values(&model.logits(documents.batch(), &ForwardContext::inference()));
    let largest = full.iter().fold(0.0_f64, |max, logit| max.max(logit.abs()));
    let tolerance = tolerance * largest;
    let row = |position: usize| &full[position * vocab..(position + 1) * vocab];

    let mut cache = model.new_cache(text.len());
    assert!(cache.is_empty());
    let mut worst = 0.0_f64;
    for (position, token) in text.iter().enumerate() {
        let found = values(&model.next_logits(&[*token], &mut cache));
        worst = worst.max(max_difference(&found, row(position)));
    }
    assert_eq!((cache.len(), cache.capacity()), (48, 48));
    assert!(worst <= tolerance, "{what}, token by token: {worst:e}");

    // A prompt in pieces of several sizes.
    for pieces in [vec![48], vec![1, 47], vec![30, 18], vec![7, 1, 20, 3, 17]] {
        let mut cache = model.new_cache(64);
        let mut worst = 0.0_f64;
        let mut start = 0;
        for piece in &pieces {
            let tokens = &text[start..start + piece];
            start += piece;
            let found = values(&model.next_logits(tokens, &mut cache));
            worst = worst.max(max_difference(&found, row(start - 1)));
        }
        assert_eq!(start, text.len());
        assert!(worst <= tolerance, "{what}, {pieces:?}: {worst:e}");
    }
}

#[test]
fn cached_logits_equal_those_of_the_whole_pass() {
    check_cache(&load(STORIES), &text(), CACHE_TOLERANCE, "base");
    let exact = in_f64(load(STORIES));
    check_cache(&exact, &text(), CACHE_TOLERANCE_F64, "base in f64");
    let adapter = golden_adapter(&golden_tensors("lora_batch.safetensors"));
    let model = with_adapter(load(STORIES), &adapter);
    check_cache(&model.valid(), &text(), CACHE_TOLERANCE, "adapter");
}

/// A model that is being trained can show what it says, too.
#[test]
fn a_training_copy_generates_the_same() {
    let adapter = golden_adapter(&golden_tensors("lora_batch.safetensors"));
    let model = with_adapter(load(STORIES), &adapter);
    let prompt = &text()[..8];
    assert_eq!(
        greedy(&model, prompt, 24, &[]),
        greedy(&model.valid(), prompt, 24, &[])
    );
}

#[test]
fn a_generation_ends_at_the_end_of_the_text() {
    let model = load(STORIES);
    let whole = greedy(&model, &[1], 20, &[]);
    // Whatever token comes fifth, made the end of the text, ends it where it first occurs.
    let end = whole[5];
    let first = whole.iter().position(|id| *id == end).expect("it occurs");
    let mut generation = model
        .generate(&[1], 20, Sampling::greedy(), &[end])
        .expect("a prompt");
    let found: Vec<u32> = generation
        .by_ref()
        .collect::<Result<_, _>>()
        .expect("finite logits");
    assert_eq!(found, whole[..first]);
    assert_eq!(generation.stop_reason(), Some(StopReason::EndOfText));
    assert!(generation.next().is_none());
    let mut generation = model
        .generate(&[1], 3, Sampling::greedy(), &[])
        .expect("a prompt");
    assert_eq!(generation.stop_reason(), None);
    assert_eq!(generation.by_ref().count(), 3);
    assert_eq!(generation.stop_reason(), Some(StopReason::MaxNewTokens));
}

/// What was read is not read again, and what is said is the same, whatever the text goes on with.
#[test]
fn a_text_goes_on_from_what_was_read() {
    let model = load(STORIES);
    let all = text();
    let mut generation = model
        .generate(&all[..9], 5, Sampling::greedy(), &[])
        .expect("a prompt");
    let said: Vec<u32> = generation
        .by_ref()
        .collect::<Result<_, _>>()
        .expect("finite logits");
    let read = generation.into_read();
    let longer = [&all[..9], &said, &all[9..14]].concat();
    // The last token that was said is not read yet.
    assert_eq!(read.tokens(), &longer[..13]);
    // Longer than what there was room for, the same with another end, another text, and one that is not longer.
    for prompt in [&longer, &all[..14], &all[3..14], &longer[..9]] {
        let mut generation = model
            .generate_behind(Some(read.clone()), prompt, 70, Sampling::greedy(), &[])
            .expect("a prompt");
        let found: Vec<u32> = generation
            .by_ref()
            .collect::<Result<_, _>>()
            .expect("finite logits");
        assert_eq!(found, greedy(&model, prompt, 70, &[]));
        let read = generation.into_read();
        assert_eq!(read.tokens(), &[prompt, &found[..69]].concat());
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let model = load(STORIES);
    let start = |prompt: &[u32], temperature: f64, top_p: f64| {
        let sampling = Sampling {
            temperature,
            top_p,
            ..Sampling::greedy()
        };
        model.generate(prompt, 1, sampling, &[]).map(|_| ())
    };
    assert!(matches!(start(&[], 0.0, 1.0), Err(ModelError::EmptyPrompt)));
    for (temperature, top_p) in [(-1.0, 1.0), (f64::NAN, 1.0), (1.0, 0.0), (1.0, 1.5)] {
        let result = start(&[1], temperature, top_p);
        assert!(
            matches!(result, Err(ModelError::Sampling { .. })),
            "{result:?}"
        );
    }
    start(&[1], 0.7, 0.9).expect("valid");
}
