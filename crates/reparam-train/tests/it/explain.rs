//! Explanations of real models: what they explain is what the models say.

use reparam::ForwardContext;
use reparam_models::TokenBatch;
use reparam_train::explain::{Attribution, Baseline, ExplainRequest, Explanation};
use reparam_train::{DataRequest, ModelRequest, Stop, Tasks, TrainError};

use crate::classification::Place;
use crate::{offline, repository, stories};

/// Both are sums of `f32`.
const TOLERANCE: f64 = 1e-4;

fn explain(request: &ExplainRequest) -> Result<Vec<Explanation>, TrainError> {
    let tasks = Tasks::builtin();
    let task = tasks.of_request(None, &request.model, &offline())?;
    task.explain(request, &offline(), Stop::never())
}

fn one(request: &ExplainRequest) -> Explanation {
    let mut explained = explain(request).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(explained.len(), 1);
    explained.remove(0)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < TOLERANCE
}

#[test]
fn a_label_is_explained_by_the_words() {
    let place = Place::new();
    place.train("run", &[]);
    let text = "you have won a FREE prize!";
    let request = ExplainRequest::new(place.adapted("run"), text);
    place.write(
        "text.jsonl",
        &serde_json::json!({ "text": text }).to_string(),
    );
    let data = DataRequest {
        fields: Some("text=text".parse().expect("fields")),
        ..DataRequest::new(place.path("text.jsonl"))
    };
    let predicted = place
        .predict(place.adapted("run"), data)
        .expect("predicts")
        .objects
        .remove(0);

    let explained = one(&request);
    assert_eq!(predicted["label"], explained.target.as_str());
    let score = predicted["scores"][&explained.target]
        .as_f64()
        .expect("a score");
    assert!(
        close(explained.probability, score),
        "{explained:?} {predicted}"
    );
    assert_eq!(explained.tokens.len(), explained.attributions.len());
    let words: Vec<&str> = explained
        .words
        .iter()
        .map(|word| word.text.as_str())
        .collect();
    assert_eq!(words, ["you", "have", "won", "a", "FREE", "prize", "!"]);
    // The template counts for nothing, so that the words make up all of it.
    let of_words: f64 = explained.words.iter().map(|word| word.attribution).sum();
    let of_tokens: f64 = explained.attributions.iter().sum();
    assert!(close(of_words, of_tokens));

    // The more points, the more complete.
    let error = |steps: usize| {
        let request = ExplainRequest {
            steps: Some(steps),
            ..request.clone()
        };
        one(&request).completeness_error.expect("an error")
    };
    let (few, many) = (error(2), error(128));
    assert!(
        many < few.max(TOLERANCE) && many < TOLERANCE,
        "{few:e} {many:e}"
    );

    // Of two labels, what counts for one does not for the other in a softmax, but logits are each by itself.
    let other = ExplainRequest {
        target: Some("ham".to_owned()),
        method: Attribution::Occlusion,
        ..request.clone()
    };
    let other = one(&other);
    assert_eq!(
        (other.target.as_str(), other.baseline),
        ("ham", Some("mask"))
    );
    let rollout = ExplainRequest {
        method: Attribution::Rollout,
        ..request.clone()
    };
    let rollout = one(&rollout);
    assert!(close(rollout.attributions.iter().sum(), 1.0), "{rollout:?}");
    assert!(
        rollout
            .attributions
            .iter()
            .all(|attribution| *attribution > 0.0)
    );

    let unknown = ExplainRequest {
        target: Some("spma".to_owned()),
        ..request
    };
    let error = explain(&unknown).expect_err("no such label");
    assert_eq!(error.to_string(), "the model has no label `spma`");
    assert_eq!(error.hint().as_deref(), Some("did you mean `spam`?"));
}

/// A pair is explained as it is predicted, by the words of both of its texts.
#[test]
fn a_pair_is_explained_by_the_words_of_both_texts() {
    let place = Place::new();
    place.train("run", &[]);
    let (text, pair) = ("you have won", "a prize for you!");
    let row = serde_json::json!({ "text": text, "text_pair": pair });
    place.write("pair.jsonl", &row.to_string());
    let data = DataRequest {
        fields: Some("text=text,text_pair=text_pair".parse().expect("fields")),
        ..DataRequest::new(place.path("pair.jsonl"))
    };
    let predicted = place.predict(place.adapted("run"), data);
    let predicted = predicted.expect("predicts").objects.remove(0);
    let request = ExplainRequest {
        pair: Some(pair.to_owned()),
        steps: Some(128),
        ..ExplainRequest::new(place.adapted("run"), text)
    };
    let explained = one(&request);
    assert_eq!(predicted["label"], explained.target.as_str());
    let score = &predicted["scores"][&explained.target];
    assert!(close(
        explained.probability,
        score.as_f64().expect("a score")
    ));
    let words = explained.words.iter().map(|word| word.text.as_str());
    assert!(words.eq(["you", "have", "won", "a", "prize", "for", "you", "!"]));
    let error = explained.completeness_error.expect("an error");
    assert!(error < TOLERANCE, "{error:e}");
    // Each text counts, and a word by where it stands.
    assert_ne!(
        explained.words[0].attribution,
        explained.words[6].attribution
    );
    let halves = explained.words.split_at(3);
    for half in [halves.0, halves.1] {
        assert!(half.iter().any(|word| word.attribution.abs() > 1e-6));
    }
    let alone = one(&ExplainRequest {
        pair: None,
        ..request
    });
    assert_ne!(alone.probability, explained.probability);
}

/// The last logits of some tokens.
fn logits(ids: &[u32]) -> Vec<f64> {
    let session = stories();
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let batch = TokenBatch {
        input_ids: ids,
        position_ids: &positions,
        bounds: &[0, ids.len()],
    };
    let logits = session.model.logits(batch, &ForwardContext::inference());
    logits
        .narrow(0, ids.len() - 1, 1)
        .into_data()
        .iter::<f64>()
        .collect()
}

#[test]
fn each_generated_token_is_explained_by_those_before_it() {
    let session = stories();
    let model = ModelRequest::new(repository("assets/stories260K").to_str().expect("UTF-8"));
    let request = ExplainRequest {
        method: Attribution::Occlusion,
        max_new_tokens: Some(3),
        ..ExplainRequest::new(model, "Once upon a time")
    };
    let explained = explain(&request).expect("explains");
    assert_eq!(explained.len(), 3);
    let mut ids = session
        .tokenizer
        .encode("Once upon a time", true)
        .expect("encodes");
    for explanation in &explained {
        assert_eq!(explanation.tokens.len(), ids.len());
        let all = logits(&ids);
        let best = (0..all.len())
            .max_by(|a, b| all[*a].total_cmp(&all[*b]))
            .expect("tokens");
        assert!(close(explanation.score, all[best]), "{explanation:?}");
        // The last word without its tokens.
        let last = explanation.words.last().expect("a word");
        let n = explanation.attributions.iter().rev();
        let n =
            n.take_while(|share| close(**share, *explanation.attributions.last().expect("one")));
        let without = logits(&ids[..ids.len() - n.count()]);
        assert!(
            close(last.attribution, all[best] - without[best]),
            "{explanation:?}"
        );
        ids.push(best as u32);
    }

    // A text of one's own is explained token by token.
    let gradients = ExplainRequest {
        method: Attribution::IntegratedGradients,
        baseline: Some(Baseline::Unk),
        steps: Some(256),
        target: Some(" there".to_owned()),
        max_new_tokens: None,
        ..request
    };
    let explained = explain(&gradients).expect("explains");
    assert!(!explained.is_empty());
    for explanation in &explained {
        let error = explanation.completeness_error.expect("an error");
        let range = explanation.score - explanation.baseline_score.expect("a baseline");
        assert!(error < 0.02 * range.abs().max(1.0), "{explanation:?}");
        assert!(explanation.attributions[0] == 0.0, "the template stays");
    }
}

#[test]
fn what_cannot_be_explained_is_refused_by_name() {
    let place = Place::new();
    place.train("run", &[]);
    let request = ExplainRequest::new(place.adapted("run"), "a text");
    let refused = |request: ExplainRequest| explain(&request).expect_err("an error").to_string();
    let word = ExplainRequest {
        word: Some(1),
        ..request.clone()
    };
    assert_eq!(
        refused(word),
        "--word has no effect for the task sequence-classification"
    );
    let tasks = Tasks::builtin();
    let task = tasks.find("embedding").expect("a task");
    let error = task
        .explain(&request, &offline(), Stop::never())
        .expect_err("no score");
    assert_eq!(
        error.to_string(),
        "a model for embedding cannot be explained"
    );
}
