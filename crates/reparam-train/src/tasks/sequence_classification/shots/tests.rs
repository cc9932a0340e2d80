use std::path::Path;
use std::sync::Arc;

use reparam::ForwardContext;
use reparam_data::DocumentSource;
use reparam_data::rows::LabelKind;
use reparam_models::TokenBatch;
use serde_json::Value;

use super::*;
use crate::TrainError;
use crate::config::Precision;

/// Sums of a few log-likelihoods in f32, here and in torch.
const GOLDEN: f64 = 1e-4;
/// The same sums, of a prompt that is read at once and of one that is read in parts.
const IN_PARTS: f64 = 1e-4;

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

fn session() -> Session {
    let path = repository("assets/stories260K");
    let hub = HubOptions::new("no-such-cache");
    Session::open(path.to_str().expect("UTF-8"), &hub, Precision::F32).expect("the built-in model")
}

fn golden() -> Value {
    let text = std::fs::read_to_string(repository("testdata/golden/shots.json"));
    serde_json::from_str(&text.expect("a file")).expect("JSON")
}

fn row(text: &str) -> TextRow {
    TextRow {
        text: text.to_owned(),
        text_pair: None,
        labels: None,
        place: DocumentSource {
            path: Arc::from(Path::new("rows.jsonl")),
            line: 7,
            item: None,
        },
    }
}

/// Rows with their classes, as the golden file has them.
fn rows(list: &Value) -> Vec<Example> {
    let list = list.as_array().expect("a list").iter();
    let pair = |pair: &Value| {
        let class = pair[1].as_u64().expect("a class");
        (row(pair[0].as_str().expect("a text")), class as usize)
    };
    list.map(pair).collect()
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list").iter();
    list.map(|text| text.as_str().expect("a text").to_owned())
        .collect()
}

fn ids(list: &Value) -> Vec<u32> {
    let list = list.as_array().expect("a list").iter();
    list.map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// A model with the examples, template and words of a golden case.
fn of_case(golden: &Value, case: &Value) -> Shots {
    Shots {
        session: session(),
        trained: TrainedTexts::default(),
        template: case["template"]
            .as_str()
            .expect("a text")
            .parse()
            .expect("a template"),
        words: strings(&case["words"]),
        examples: rows(&golden["examples"]),
        shots: case["shots"].as_u64().expect("a number") as usize,
        most: case["sequence_length"].as_u64().unwrap_or(512) as usize,
        shared: Shared::Unknown,
    }
}

/// The log-likelihood of a continuation behind a context by one pass over both.
fn at_once(model: &reparam_models::CausalLm, context: &[u32], continuation: &[u32]) -> f64 {
    let all = [context, continuation].concat();
    let input = &all[..all.len() - 1];
    let positions: Vec<u32> = (0..input.len() as u32).collect();
    let batch = TokenBatch {
        input_ids: input,
        position_ids: &positions,
        bounds: &[0, input.len()],
    };
    let logits = numbers(model.logits(batch, &ForwardContext::inference()));
    let rows = logits.chunks_exact(model.vocab_size());
    let rows = rows.skip(context.len() - 1).zip(continuation);
    rows.map(|(logits, token)| log_softmax(logits, *token as usize))
        .sum()
}

/// Prompts, tokens, log-likelihoods and both accuracies are those of lm-evaluation-harness, and those of one pass over the
/// whole text.
#[test]
fn labels_are_scored_as_the_harness_scores_them() {
    let golden = golden();
    let texts = rows(&golden["texts"]);
    for case in golden["cases"].as_array().expect("cases") {
        let name = &case["name"];
        let mut shots = of_case(&golden, case);
        let (mut right, mut right_by_length) = (0, 0);
        for ((text, class), expected) in texts.iter().zip(case["rows"].as_array().expect("rows")) {
            let prompt = shots.prompt(text).expect("a prompt");
            // The harness keeps what stands between prompt and label apart.
            let of_text = shots.encode(expected["prompt"].as_str().expect("a text"));
            let (context, _) = of_text.expect("tokens");
            assert_eq!(context, prompt.context, "{name}");
            let continuations = &prompt.continuations;
            let sums = shots.log_likelihoods(&prompt);
            let labels = expected["labels"].as_array().expect("labels");
            assert_eq!(
                (sums.len(), continuations.len()),
                (labels.len(), labels.len())
            );
            for ((label, sum), tokens) in labels.iter().zip(&sums).zip(continuations) {
                assert_eq!(*tokens, ids(&label["tokens"]), "{name}");
                let read = &context[shots.cut(&prompt, tokens)..];
                assert_eq!(read, ids(&label["context"]), "{name}");
                let expected = label["log_likelihood"].as_f64().expect("a number");
                assert!((sum - expected).abs() < GOLDEN, "{name}: {sum} {expected}");
                let whole = at_once(&shots.session.model, read, tokens);
                assert!((sum - whole).abs() < IN_PARTS, "{name}: {sum} {whole}");
            }
            let said = shots.say(&[text], Stop::never()).expect("a label");
            let logits: Vec<f64> = said[0].logits.iter().map(|x| f64::from(*x)).collect();
            right += usize::from(largest(&logits) == *class);
            right_by_length += usize::from(said[0].by_length == Some(*class));
            assert_eq!(said[0].is_cut, case["name"] == "cut");
        }
        let share = |right: usize| right as f64 / texts.len() as f64;
        assert_eq!(case["accuracy"], share(right), "{name}");
        assert_eq!(case["accuracy_norm"], share(right_by_length), "{name}");
    }
}

/// What most prompts begin with is read once, and a prompt that begins otherwise is read by itself.
#[test]
fn a_row_is_said_the_same_whatever_was_read_before() {
    let golden = golden();
    let case = &golden["cases"][0];
    let others = [
        "The cat was happy in the sun.",
        "The dog was sad because he lost his ball.",
        "",
        "The cat was happy",
        "Mom was very sad and she cried.",
    ]
    .map(row);
    let mut one = of_case(&golden, case);
    for text in others.iter().chain(&others) {
        let mut fresh = of_case(&golden, case);
        let prompt = one.prompt(text).expect("a prompt");
        assert_eq!(fresh.prompt(text).expect("a prompt"), prompt);
        let pairs = one.log_likelihoods(&prompt);
        let pairs = pairs.iter().zip(fresh.log_likelihoods(&prompt));
        for (a, b) in pairs {
            assert!((a - b).abs() < IN_PARTS, "{a} {b}");
        }
    }
    let Shared::Read(shared, cache) = &one.shared else {
        panic!("{:?}", one.shared);
    };
    // Two examples, and nothing of a row.
    let prompt = one.prompt(&others[0]).expect("a prompt");
    assert!(prompt.context.starts_with(shared) && shared.len() > 50);
    assert_eq!(cache.len(), shared.len());
}

/// A row that is an example itself has the next one of the draw in its place.
#[test]
fn no_prompt_has_the_answer_of_its_own_row() {
    let golden = golden();
    let mut shots = of_case(&golden, &golden["cases"][0]);
    let examples = rows(&golden["examples"]);
    let text = |row: &TextRow, shots: &Shots| {
        let prompt = shots.prompt(row).expect("a prompt");
        let text = shots.session.tokenizer.decode(&prompt.context, true);
        (text.expect("a text"), prompt.is_usual)
    };
    let (usual, is_usual) = text(&row("They ran."), &shots);
    assert!(is_usual);
    let (own, is_usual) = text(&examples[0].0, &shots);
    assert!(!is_usual);
    let has = |text: &str, number: usize| text.contains(&examples[number].0.text);
    assert_eq!(
        [0, 1, 2, 3].map(|n| has(&usual, n)),
        [true, true, false, false]
    );
    assert_eq!(
        [0, 1, 2, 3].map(|n| has(&own, n)),
        [true, true, true, false]
    );
    assert_eq!(own.matches(&examples[0].0.text).count(), 1);
    assert!(own.ends_with("\nIt is") && own.contains("\nIt is sad\n\n"));

    shots.shots = 4;
    let error = shots.prompt(&examples[2].0).expect_err("one too few");
    let TrainError::Examples(error) = error else {
        panic!("{error}");
    };
    assert_eq!(
        error.to_string(),
        "rows.jsonl:7: 4 examples are asked for, and the file has 3 beside this row"
    );
}

#[test]
fn an_empty_prompt_begins_with_the_token_that_begins_a_text() {
    let golden = golden();
    let mut shots = of_case(&golden, &golden["cases"][1]);
    shots.template = "{text}{label}".parse().expect("a template");
    let prompt = shots.prompt(&row("  ")).expect("a prompt");
    let bos = shots.session.tokenizer.special_tokens().bos;
    assert_eq!(Some(prompt.context[0]), bos);
    assert_eq!(prompt.context.len(), 1);
    let alone = shots.session.tokenizer.encode("  sad", false);
    assert_eq!(prompt.continuations[0], alone.expect("tokens"));
}

#[test]
fn templates_without_a_prompt_or_a_label_are_refused() {
    for (template, problem) in [
        ("It is {label}", "has no {text}"),
        ("{text} It is", "has no {label}"),
        ("{label}: {text}", "has to end with {label}"),
        ("{text} {label}.", "has to end with {label}"),
        ("{label} {text} {label}", "have it there alone"),
        ("{title} {text} {label}", "another field than"),
    ] {
        let parsed = template.parse().expect("a template");
        let error = check(&parsed).expect_err(template).to_string();
        assert!(
            error.contains(problem) && error.contains(template),
            "{error}"
        );
    }
    for template in [TEMPLATE, "{text}{label}", "{text_pair} {text}: {label}"] {
        let parsed = template.parse().expect("a template");
        assert_eq!(check(&parsed), Ok(()), "{template}");
    }
}

#[test]
fn words_belong_to_labels_and_differ() {
    let labels = Labels::new(vec!["neg".to_owned(), "pos".to_owned()], LabelKind::One);
    let labels = labels.expect("labels");
    let of = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        let asked = ExamplesRequest {
            words: pairs.collect(),
            ..ExamplesRequest::default()
        };
        words(&labels, &asked, &TrainedTexts::default())
    };
    assert_eq!(
        of(&[("neg", "bad")]),
        Ok(vec!["bad".to_owned(), "pos".to_owned()])
    );
    let error = of(&[("negative", "bad")]).expect_err("no label");
    assert!(error.to_string().contains("`negative`"), "{error}");
    let error = of(&[("neg", "pos")]).expect_err("the same");
    assert!(error.to_string().contains("`pos`"), "{error}");
    assert_eq!(
        of(&[("neg", "")]),
        Err(ExamplesError::NoTokens {
            word: String::new()
        })
    );
}

/// With the length of the label's tokens and one less.
#[test]
fn a_label_that_is_longer_than_what_is_read_is_refused() {
    let golden = golden();
    let mut shots = of_case(&golden, &golden["cases"][0]);
    shots.most = 5;
    let prompt = shots.prompt(&row("They ran.")).expect("it just fits");
    let sums = shots.log_likelihoods(&prompt);
    assert!(sums.iter().all(|sum| sum.is_finite() && *sum < 0.0));
    shots.most = 4;
    let error = shots.prompt(&row("They ran.")).expect_err("too long");
    assert_eq!(
        error.to_string(),
        "`happy and glad` has 5 tokens, and the model reads 4 at once"
    );
}
