//! Studies: the same run under several settings.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use reparam_train::config::Override;
use reparam_train::event::{Event, FailureKind, StopReason};
use reparam_train::study::{Study, StudyRequest, StudyRun, Vary, study};
use reparam_train::{Runtime, Tasks, TrainError};
use serde_json::Value;
use tempfile::TempDir;

use crate::witness::read_events;
use crate::{names, offline, repository};

const REGRESSION: &str = "[model]\ntask = \"regression\"\n\
    [data]\ngenerate = { samples = 40, features = 2, noise = 5.0, seed = 1 }\n\
    [train]\nmax_steps = 30\n[output]\ndir = \"unused\"\n";

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn request(&self, text: &str, vary: &[&str]) -> StudyRequest {
        let run_file = self.path("run.toml");
        std::fs::write(&run_file, text).expect("writes");
        let output = self.path("study");
        let vary = vary.iter().map(|text| Vary::parse(text));
        StudyRequest {
            run_file,
            overrides: vec![Override::output(output.to_str().expect("UTF-8"))],
            vary: vary.collect::<Result<_, _>>().expect("something to vary"),
            runtime: Runtime::default(),
        }
    }

    /// Makes a study, and returns what it was told on the way.
    fn study(
        &self,
        text: &str,
        vary: &[&str],
    ) -> (Result<Option<Study>, TrainError>, Vec<StudyRun>) {
        let mut told = Vec::new();
        let mut on_run = |run: &StudyRun| told.push(run.clone());
        let request = self.request(text, vary);
        let result = study(
            &request,
            &Tasks::builtin(),
            &offline(),
            &AtomicBool::new(false),
            &mut on_run,
        );
        (result, told)
    }

    #[track_caller]
    fn finish(&self, text: &str, vary: &[&str]) -> Study {
        let (result, told) = self.study(text, vary);
        let study = result
            .unwrap_or_else(|error| panic!("{error}"))
            .expect("not interrupted");
        let rows = |runs: &[StudyRun]| serde_json::to_string(runs).expect("JSON");
        assert_eq!(rows(&study.runs), rows(&told));
        study
    }

    /// A run file of two steps on a short text.
    fn language_model(&self) -> String {
        let data = self.path("train.txt");
        let text = std::fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
        std::fs::write(&data, &text[..300]).expect("writes");
        format!(
            "[model]\npath = {:?}\n[data]\ntrain = {data:?}\neval = {data:?}\n\
             [train]\nmax_steps = 2\nbatch_size = 1\nsequence_length = 32\n[output]\ndir = \"unused\"\n",
            repository("assets/stories260K"),
        )
    }

    fn names(&self) -> Vec<String> {
        names(&self.path("study"))
    }
}

fn labels(study: &Study) -> Vec<&str> {
    study.runs.iter().map(|run| run.label.as_str()).collect()
}

/// Checks that tags are closed in the order in which they were opened, and returns the text between them.
#[track_caller]
fn text_of(markup: &str) -> String {
    let mut open = Vec::new();
    let mut text = String::new();
    let mut rest = markup;
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        assert!(!tag.contains('<'), "{tag}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(|c| c.is_alphanumeric())
            .collect();
        let is_alone = tag.ends_with('/') || tag.starts_with(['!', '?']);
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_ref(), Some(&name), "{tag}");
        } else if !is_alone && !["meta", "br", "link", "img"].contains(&name.as_str()) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    text + rest
}

#[track_caller]
fn check_pictures(directory: &Path, curves: &[&str]) {
    let page = std::fs::read_to_string(directory.join("study.html")).expect("a page");
    let all = text_of(&page);
    for name in ["held_out", "loss", "grad_variance", "update_variance"] {
        let svg = std::fs::read_to_string(directory.join(format!("{name}.svg"))).expect(name);
        assert!(svg.starts_with("<svg"), "{name}");
        let text = text_of(&svg);
        assert!(page.contains(&svg), "the page has the picture {name}");
        for curve in curves {
            // A name is as long as it is, on several lines if need be.
            let curve: String = curve.chars().take(25).collect();
            let shown = curve.replace('"', "&quot;");
            assert!(
                text.contains(&curve) || text.contains(&shown),
                "{name}: {curve}"
            );
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
    }
    for column in StudyRun::COLUMNS {
        assert!(all.contains(column), "{column}");
    }
    assert!(
        !page.contains("<script") && !page.contains("http-equiv"),
        "{page}"
    );
}

#[test]
fn all_combinations_are_run_and_told_of() {
    let place = Place::new();
    let vary = [
        "optimizer.learning_rate=0.1,0.05",
        "optimizer.lambda=1,0.5,0.25",
    ];
    let study = place.finish(REGRESSION, &vary);
    let expected = [
        "learning_rate=0.1, lambda=1",
        "learning_rate=0.1, lambda=0.5",
        "learning_rate=0.1, lambda=0.25",
        "learning_rate=0.05, lambda=1",
        "learning_rate=0.05, lambda=0.5",
        "learning_rate=0.05, lambda=0.25",
    ];
    assert_eq!(labels(&study), expected);
    assert_eq!(
        place.names(),
        [
            "grad_variance.svg",
            "held_out.svg",
            "loss.svg",
            "run-01",
            "run-02",
            "run-03",
            "run-04",
            "run-05",
            "run-06",
            "study.html",
            "study.json",
            "update_variance.svg"
        ]
    );
    check_pictures(&place.path("study"), &expected);

    // A run's row says what its directory does.
    for run in &study.runs {
        let events = read_events(&run.directory);
        let steps: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Step(step) => Some(step),
                _ => None,
            })
            .collect();
        assert_eq!((run.steps, steps.len()), (30, 30));
        assert_eq!(run.reason, Some(StopReason::Steps));
        assert_eq!(
            (run.first_loss, run.last_loss),
            (steps[0].loss, steps[29].loss)
        );
        let Some(Event::Finished(finished)) = events.last() else {
            panic!("{:?}", events.last());
        };
        assert_eq!(
            (run.held_out_before, run.held_out_after),
            (finished.before, finished.after)
        );
        let measured = |step: usize| steps[step].variances.expect("a study measures");
        let longest = (0..30).map(|step| measured(step).update_norm * steps[step].learning_rate);
        assert_eq!(run.longest_step, longest.fold(0.0, f64::max));
        let mean = (15..30)
            .map(|step| measured(step).grad_variance)
            .sum::<f64>()
            / 15.0;
        assert!((run.grad_variance / mean - 1.0).abs() < 1e-12);
        assert!(run.directory.join("model").exists());
    }
    // The update is lambda times the gradient, so its variance is lambda squared times the gradient's.
    for (run, lambda) in study.runs.iter().zip([1.0, 0.5, 0.25, 1.0, 0.5, 0.25_f64]) {
        let ratio = run.update_variance / run.grad_variance;
        assert!(
            (ratio / (lambda * lambda) - 1.0).abs() < 1e-9,
            "{ratio} {lambda}"
        );
    }
    // The same product of both is the same run.
    let (a, b) = (&study.runs[1], &study.runs[3]);
    assert!((a.last_loss / b.last_loss - 1.0).abs() < 1e-9);

    let json = std::fs::read_to_string(place.path("study/study.json")).expect("a file");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json, serde_json::to_value(&study.runs).expect("JSON"));
}

/// What is held out decides, and the page says when, with what, and which run is the best.
#[test]
fn the_best_run_is_marked() {
    let place = Place::new();
    let study = place.finish(REGRESSION, &["optimizer.lambda=0.01,1,0.1"]);
    let errors: Vec<f64> = study
        .runs
        .iter()
        .filter_map(|run| run.held_out_after)
        .collect();
    let best = (0..3).min_by(|a, b| errors[*a].total_cmp(&errors[*b]));
    assert_eq!(study.best, best);
    let label = &study.runs[best.expect("three runs")].label;
    let page = std::fs::read_to_string(&study.page).expect("a page");
    assert!(page.contains(&format!(
        "<tr class=\"best\"><th scope=\"row\">{label} (best)</th>"
    )));
    let text = text_of(&page);
    for part in [
        &format!("best by the held-out mse: {label}"),
        "3 runs, 20",
        " UTC to 20",
        "data.generate.samples",
        "train.max_steps",
        "(log scale)",
    ] {
        assert!(text.contains(part), "{part}");
    }
    // What differs is in the table, and where a run went is no setting.
    assert!(!text.contains("optimizer.lambda") && !text.contains("output.dir"));
    assert!(page.contains("prefers-color-scheme:dark"));
}

/// Runs that differ in their seed alone are one setting with a mean, and no seed is chosen.
#[test]
fn seeds_repeat_a_setting() {
    let place = Place::new();
    let text = REGRESSION.replace("[train]", "[train]\nbatch_size = 4");
    let vary = ["optimizer.learning_rate=0.1,0.001", "train.seed=1,2,3"];
    let study = place.finish(&text, &vary);
    assert_eq!(study.runs.len(), 6);
    let settings = &study.settings;
    assert_eq!(settings.len(), 2);
    for (setting, (label, runs)) in settings
        .iter()
        .zip([("learning_rate=0.1", 0..3), ("learning_rate=0.001", 3..6)])
    {
        let runs: Vec<usize> = runs.collect();
        assert_eq!((setting.label.as_str(), &setting.runs), (label, &runs));
        assert_eq!((setting.seeds, setting.metric.as_str()), (3, "mse"));
        let values = runs.iter().map(|run| study.runs[*run].held_out_after);
        let values: Vec<f64> = values.collect::<Option<_>>().expect("three numbers");
        assert!(
            values[0] != values[1],
            "the order of rows follows from the seed"
        );
        let mean = values.iter().sum::<f64>() / 3.0;
        let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        let close = |found: Option<f64>, expected: f64| {
            let found = found.expect("a number");
            assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        };
        close(setting.mean, mean);
        close(setting.standard_deviation, (squares / 2.0).sqrt());
    }
    assert_eq!(study.best_setting, Some(0));
    assert!(settings[0].runs.contains(&study.best.expect("a run")));

    let read = |name: &str| std::fs::read_to_string(place.path("study").join(name)).expect(name);
    let json: Value = serde_json::from_str(&read("settings.json")).expect("JSON");
    assert_eq!(json, serde_json::to_value(settings).expect("JSON"));
    assert_eq!(json[0]["seeds"], 3);
    let (page, svg) = (read("study.html"), read("settings.svg"));
    assert!(page.contains(&svg));
    assert!(text_of(&svg).contains("mse over seeds") && text_of(&svg).contains("learning_rate"));
    assert!(page.contains("learning_rate=0.1 (best)") && page.contains("standard deviation"));
    assert_eq!(page.matches("class=\"best\"").count(), 1);
    let text = text_of(&page);
    assert!(
        text.contains("best on average: learning_rate=0.1 (mse "),
        "{text}"
    );
    assert!(text.contains(" over 3 seeds)"));
    let held_out = text_of(&read("held_out.svg"));
    assert!(!held_out.contains("best:"), "{held_out}");
}

/// A study of seeds alone says how far one number is to be trusted, and one without repetitions says nothing of it.
#[test]
fn what_no_other_key_varies_is_one_setting() {
    let place = Place::new();
    let text = REGRESSION.replace("[train]", "[train]\nbatch_size = 4");
    let study = place.finish(&text, &["train.seed=1,2"]);
    assert_eq!((study.settings.len(), study.settings[0].seeds), (1, 2));
    assert!(!place.names().contains(&"settings.svg".to_owned()));
    let place = Place::new();
    let study = place.finish(&text, &["train.max_steps=2,4"]);
    assert!(study.settings.is_empty() && study.best_setting.is_none());
    assert!(!place.names().contains(&"settings.json".to_owned()));
}

#[test]
fn each_run_computes_with_as_many_threads_as_it_says() {
    let place = Place::new();
    let text = place.language_model();
    let study = place.finish(&text, &["train.threads=1,3"]);
    let threads = |run: &StudyRun| match &read_events(&run.directory)[0] {
        Event::Start(start) => start.threads,
        other => panic!("{other:?}"),
    };
    let threads: Vec<u64> = study.runs.iter().map(threads).collect();
    assert_eq!(threads, [1, 3]);
    // They change the speed alone.
    assert_eq!(study.runs[0].last_loss, study.runs[1].last_loss);
}

#[test]
fn the_same_study_gives_the_same_pictures() {
    let pictures = || {
        let place = Place::new();
        place.finish(REGRESSION, &["optimizer.lambda=1,1/sqrt(T)"]);
        ["loss.svg", "grad_variance.svg", "update_variance.svg"]
            .map(|name| std::fs::read(place.path("study").join(name)).expect(name))
    };
    assert!(pictures() == pictures());
}

#[test]
fn what_diverges_is_a_result() {
    let place = Place::new();
    let study = place.finish(REGRESSION, &["optimizer.lambda=1,100"]);
    assert_eq!(study.runs[0].failed, None);
    let diverged = &study.runs[1];
    let message = diverged.failed.as_ref().expect("it diverges");
    assert!(message.contains("the loss went from"), "{message}");
    assert_eq!((diverged.reason, diverged.held_out_after), (None, None));
    assert!(
        diverged.steps >= 1 && diverged.steps < 30,
        "{}",
        diverged.steps
    );
    assert_eq!(diverged.row()[3], "divergence");
    assert_eq!(study.best, Some(0));
    assert!(study.failed.is_none());
    assert!(!diverged.directory.join("model").exists());
    check_pictures(&place.path("study"), &["lambda=1", "lambda=100"]);
}

/// Pictures without a point, and with numbers that no axis can hold.
#[test]
fn a_study_of_nothing_but_divergence_has_a_page() {
    let place = Place::new();
    let study = place.finish(REGRESSION, &["optimizer.learning_rate=3e38,1e30,30"]);
    assert!(study.runs.iter().all(|run| run.diverged));
    check_pictures(&place.path("study"), &[]);
}

#[test]
fn whatever_is_written_in_a_run_file_can_be_varied() {
    let place = Place::new();
    let study = place.finish(
        REGRESSION,
        &[
            "model.kind=linear,mlp",
            "optimizer.learning_rate=0.05",
            "optimizer.transforms=[{ kind = \"sgd\" }],[{ kind = \"scale\", lambda = 0.5 }, { kind = \"adamw\" }]",
        ],
    );
    assert_eq!(study.runs.len(), 4);
    assert!(study.runs.iter().all(|run| run.failed.is_none()));
    // The key may be one that the run file lacks and needs.
    let place = Place::new();
    let text = REGRESSION.replace("[train]", "[optimizer]\ntransforms = []\n[train]");
    let study = place.finish(&text, &["optimizer.learning_rate=0.1,0.01"]);
    assert_eq!(study.runs.len(), 2);
}

#[test]
fn a_mistake_is_found_before_the_first_run() {
    let table = "task = \"regression\"\n[data]\ntrain = \"no-such-table.csv\"\ntarget = \"y\"\n";
    let missing = format!("[model]\n{table}[output]\ndir = \"unused\"\n");
    for (text, vary, message) in [
        (
            REGRESSION,
            &["optimizer.lambda=1,0.1,-1"][..],
            "(the range of f32), not `-1`",
        ),
        (REGRESSION, &["optimizer.lamda=1,2"], "unknown key `lamda`"),
        (
            REGRESSION,
            &["train.batch_size=8,33"],
            "the batch size is 33",
        ),
        (
            REGRESSION,
            &["method.kind=identity,lora", "method.scale=2,3"],
            "`scale`",
        ),
        (
            REGRESSION,
            &["method.target_modules=all-linear,[\"nope\"]"],
            "nope",
        ),
        (REGRESSION, &["optimizer.kind=sgd,muon"], "matrices only"),
        (REGRESSION, &["output.dir=a,b"], "varies the output"),
        (
            REGRESSION,
            &["train.seed=1", "train.seed=2"],
            "a second time",
        ),
        (&missing, &["data.split_seed=1,2"], "no-such-table.csv"),
    ] {
        let place = Place::new();
        let (result, told) = place.study(text, vary);
        let error = result.expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
        assert!(told.is_empty() && !place.path("study").exists(), "{vary:?}");
    }
    let place = Place::new();
    let (result, _) = place.study(REGRESSION, &[]);
    let error = result.expect_err("nothing to vary");
    assert!(error.hint().is_some_and(|hint| hint.contains("--vary")));
}

/// What only a language model or its texts show is the end of one run, and not of the study.
#[test]
fn a_run_that_cannot_start_is_a_row() {
    let place = Place::new();
    let vary = ["method.target_modules=all-linear,[\"nope\"]"];
    let study = place.finish(&place.language_model(), &vary);
    assert_eq!(study.runs[0].failed, None);
    let failed = &study.runs[1];
    let found = failed.failed.as_ref().expect("it cannot start");
    assert!(found.contains("nope"), "{found}");
    assert!(!failed.diverged && failed.steps == 0);
    assert_eq!(
        (failed.held_out_before, failed.held_out_after),
        (None, None)
    );
    let row = failed.row();
    assert_eq!((row[3].as_str(), row[5].as_str()), ("failure", "-"));
    // It is said as an error, too, of the class that the run's has.
    let error = study.failed.as_ref().expect("a failure");
    assert!(
        matches!(error, TrainError::StudyRun { label, .. } if label.contains("nope")),
        "{error}"
    );
    assert_eq!(error.kind(), FailureKind::Config);
    assert_eq!(study.best, Some(0));
    assert!(!failed.directory.exists());
    check_pictures(&place.path("study"), &[]);
    let json = std::fs::read_to_string(place.path("study/study.json")).expect("a file");
    assert!(!json.contains("-0.0"), "{json}");

    // Where none can start, the first reason is that of the study.
    let place = Place::new();
    let vary = ["method.target_modules=[\"no\"],[\"nope\"]"];
    let (result, told) = place.study(&place.language_model(), &vary);
    let error = result.expect_err("there are no such modules");
    assert!(error.to_string().contains("'no'"), "{error}");
    assert!(told.len() == 2 && !place.path("study").exists());
}

#[test]
fn a_taken_directory_is_left_alone() {
    let place = Place::new();
    place.finish(REGRESSION, &["optimizer.lambda=1,0.5"]);
    let page = std::fs::read(place.path("study/study.html")).expect("a page");
    let (result, told) = place.study(REGRESSION, &["optimizer.lambda=0.25"]);
    let error = result.expect_err("it is taken");
    assert!(matches!(error, TrainError::OutputTaken { .. }), "{error}");
    assert!(told.is_empty());
    assert_eq!(
        std::fs::read(place.path("study/study.html")).expect("a page"),
        page
    );

    // So is the directory of a single run, and that of a study that did not come to its end.
    let saved = "{\"schema_version\":2,\"event\":\"saved\",\"step\":1,\"path\":\"model\"}\n";
    for taken in ["events.jsonl", "run-02/events.jsonl"] {
        let place = Place::new();
        let file = place.path("study").join(taken);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("creates");
        std::fs::write(&file, saved).expect("writes");
        let (result, told) = place.study(REGRESSION, &["optimizer.lambda=1,0.5"]);
        let error = result.expect_err("it is taken");
        assert!(matches!(error, TrainError::OutputTaken { .. }), "{error}");
        assert!(told.is_empty(), "{taken}");
    }
}

#[test]
fn an_interrupted_study_keeps_the_runs_that_are_done() {
    let place = Place::new();
    let stop = AtomicBool::new(false);
    let mut told = 0;
    let request = place.request(REGRESSION, &["optimizer.lambda=1,0.5,0.25"]);
    let result = study(&request, &Tasks::builtin(), &offline(), &stop, &mut |_| {
        told += 1;
        stop.store(told == 2, Ordering::Relaxed);
    });
    assert!(result.expect("no error").is_none());
    assert_eq!(told, 2);
    assert_eq!(place.names(), ["run-01", "run-02", "run-03"]);
    let events = read_events(&place.path("study/run-03"));
    assert_eq!(events.last(), Some(&Event::Interrupted { step: 0 }));
    assert!(place.path("study/run-02/model").exists());
}

#[test]
fn language_models_are_studied_too() {
    let place = Place::new();
    let run = place.language_model();
    let study = place.finish(&run, &["method.kind=lora,identity"]);
    assert_eq!(labels(&study), ["kind=lora", "kind=identity"]);
    assert!(study.runs[0].directory.join("adapter").exists());
    assert!(study.runs[1].directory.join("model").exists());
    for run in &study.runs {
        assert!(run.held_out_after < run.held_out_before, "{run:?}");
        assert!(
            run.grad_variance > 0.0 && run.update_variance > 0.0,
            "{run:?}"
        );
    }
    check_pictures(&place.path("study"), &["kind=lora", "kind=identity"]);
}
