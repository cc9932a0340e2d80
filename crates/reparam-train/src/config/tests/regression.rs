//! Run files of the task `regression`.

use super::*;
use crate::Tasks;

const TABLE: &str = "\
[model]
task = \"regression\"
[data]
train = \"houses.csv\"
target = \"price\"
[output]
dir = \"runs/a\"
";

fn regression(text: &str) -> Result<RegressionConfig, ConfigError> {
    let run = Tasks::builtin().parse(text, "run.toml", &[])?;
    match run.config::<RegressionConfig>() {
        Some(config) => Ok(config.clone()),
        None => panic!("another task"),
    }
}

fn refused(from: &str, to: &str) -> String {
    assert!(TABLE.contains(from));
    render(&regression(&TABLE.replace(from, to)).expect_err(to))
}

#[test]
fn defaults_are_those_of_the_method() {
    let config = regression(TABLE).unwrap();
    assert_eq!(config.model.kind, RegressionModelKind::Linear);
    assert_eq!(config.train.max_steps, 1000);
    assert_eq!(config.optimizer.learning_rate, 0.1);
    let UpdateConfig::Named(update) = &config.optimizer.update else {
        panic!("a kind");
    };
    assert_eq!(update.algorithm.kind, "sgd");
    assert_eq!((update.clip_grad_norm, update.lambda), (0.0, None));
    assert_eq!(config.method.kind, "full");
    // All parameters, biases included.
    assert_eq!(config.method.get("target_modules"), None);
    assert_eq!(config.method.get("bias"), None);
    assert!(config.data.standardize);
    assert_eq!(config.data.test_fraction, 0.2);
}

#[test]
fn a_task_without_a_word_is_a_language_model() {
    let tasks = Tasks::builtin();
    let run = tasks.parse(MINIMAL, "run.toml", &[]).unwrap();
    assert!(run.config::<RunConfig>().is_some());
    let error = tasks.parse(&with("model", "task = \"regresion\""), "run.toml", &[]);
    let error = render(&error.expect_err("no such task"));
    assert!(
        error.contains("unknown task `regresion` in [model]"),
        "{error}"
    );
    assert!(error.contains("did you mean `regression`?"), "{error}");
    // Also where the keys are those of the task that was meant.
    let error = refused(
        "task = \"regression\"",
        "task = \"regresion\"\nkind = \"mlp\"",
    );
    assert!(
        error.contains("unknown task `regresion` in [model]"),
        "{error}"
    );
}

#[test]
fn keys_of_the_other_task_are_refused() {
    let error = refused("[output]", "[train]\nsequence_length = 4\n[output]");
    assert!(
        error.contains("unknown key `sequence_length` in [train]"),
        "{error}"
    );
    let error = refused("target", "packing = \"none\"\ntarget");
    assert!(error.contains("unknown key `packing` in [data]"), "{error}");
}

#[test]
fn a_table_is_a_file_or_generated() {
    let error = refused("train = \"houses.csv\"\n", "");
    assert!(error.contains("missing `train` in [data]"), "{error}");
    let error = refused("target = \"price\"", "");
    assert!(error.contains("missing `target` in [data]"), "{error}");
    let error = refused(
        "target",
        "generate = { samples = 10, features = 1 }\ntarget",
    );
    assert!(
        error.contains("`train` and `generate` in [data] exclude each other"),
        "{error}"
    );
    let generated = "train = \"houses.csv\"\ntarget = \"price\"";
    for (problem, message) in [
        ("generate = 1", "must be a table"),
        (
            "generate = { samples = 1, features = 1 }",
            "a whole number of at least 2",
        ),
        (
            "generate = { samples = 10, features = 0 }",
            "a whole number of at least 1",
        ),
        (
            "generate = { samples = 10, features = 1, noise = -1 }",
            "at least 0",
        ),
        ("generate = { samples = 10 }", "missing `features`"),
        (
            "generate = { samples = 10, features = 1, sed = 1 }",
            "unknown key `sed`",
        ),
    ] {
        let error = refused(generated, problem);
        assert!(error.contains(message), "{problem}: {error}");
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (lines, message) in [
        (
            "[train]\nmax_steps = 0",
            "`max_steps` in [train] must be a whole number of at least 1",
        ),
        (
            "[train]\nbatch_size = 0",
            "`batch_size` in [train] must be a whole number of at least 1",
        ),
        ("[optimizer]\nlambda = 0", "`lambda` in [optimizer] must be"),
        (
            "[optimizer]\nlambda = -1",
            "`lambda` in [optimizer] must be",
        ),
        (
            "[optimizer]\nlearning_rate = 0",
            "`learning_rate` in [optimizer] must be",
        ),
        ("[optimizer]\nkind = \"newton\"", "unknown kind `newton`"),
    ] {
        let error = refused("[output]", &format!("{lines}\n[output]"));
        assert!(error.contains(message), "{lines}: {error}");
    }
    for fraction in ["0", "1", "-0.1"] {
        let error = refused("target", &format!("test_fraction = {fraction}\ntarget"));
        assert!(
            error.contains("`test_fraction` in [data] must be"),
            "{fraction}: {error}"
        );
    }
    let error = refused("[data]", "hidden = [4]\n[data]");
    assert!(
        error.contains("`hidden` in [model] does not apply to kind `linear`"),
        "{error}"
    );
    let error = refused("[data]", "kind = \"mlp\"\nhidden = []\n[data]");
    assert!(error.contains("a list of at least one width"), "{error}");
}
