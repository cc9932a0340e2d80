//! What is refused, and how it is shown.

use super::*;

#[test]
fn unknown_key_shows_its_place_and_the_nearest() {
    assert_eq!(
        rendered(&with(
            "optimizer",
            "kind = \"adamw\"\n\tlerning_rate = 1e-3"
        )),
        "\
error: unknown key `lerning_rate` in [optimizer]
 --> run.toml:9
  |
9 |  lerning_rate = 1e-3
  |  ^^^^^^^^^^^^
hint: did you mean `learning_rate`?"
    );
}

#[test]
fn gutter_grows_with_the_line_number() {
    let text = with("optimizer", "# a\n# b\n# c\nlerning_rate = 1e-3");
    assert_eq!(
        rendered(&text),
        "\
error: unknown key `lerning_rate` in [optimizer]
  --> run.toml:11
   |
11 | lerning_rate = 1e-3
   | ^^^^^^^^^^^^
hint: did you mean `learning_rate`?"
    );
}

#[test]
fn syntax_error_shows_its_place() {
    assert_eq!(
        rendered("[model]\r\npath = assets/x\r\n"),
        "\
error: invalid TOML: string values must be quoted, expected literal string
 --> run.toml:2
  |
2 | path = assets/x
  |        ^^^^^^^^
hint: strings need quotes, as in path = \"models/base\"; a section starts with [name]"
    );
}

#[test]
fn override_errors_show_the_override() {
    assert_eq!(
        rendered_set(&["train.max_step=5"]),
        "\
error: unknown key `max_step` in [train]
--> --set
 |
 | train.max_step=5
 |       ^^^^^^^^
hint: did you mean `max_steps`?"
    );
    assert_eq!(
        rendered_set(&["train.max_steps = 0"]),
        "\
error: `max_steps` in [train] must be a whole number of at least 1, not `0`
--> --set
 |
 | train.max_steps = 0
 |                   ^"
    );
    assert_eq!(
        rendered_set(&["train.max_steps"]),
        "\
error: the override `train.max_steps` has no `=`
hint: use --set section.key=value, as in --set train.max_steps=50"
    );
    assert_eq!(
        rendered_set(&["model.path=12"]),
        "\
error: `path` in [model] must be a string, not the integer `12`
--> --set
 |
 | model.path=12
 |            ^^
hint: put the value in quotes"
    );
    assert!(rendered_set(&["data.train=[\"a\""]).starts_with("error: invalid TOML: "));
    assert!(rendered_set(&["=1"]).contains("does not start with a valid key"));
    assert!(rendered_set(&["a b=1"]).contains("does not start with a valid key"));
    assert!(rendered_set(&["train.x=1\ntrain.y=2"]).contains("unknown key `x` in [train]"));
    assert!(rendered_set(&["train.x\ny=2"]).contains("invalid key"));
    assert!(rendered_set(&["train=5"]).contains("write [train] on a line of its own"));
}

#[test]
fn what_is_refused() {
    // (section, lines, error, hint)
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &str)] = &[
        ("method", "rank = 0", "`rank` in [method] must be a whole number of at least 1, not `0`", ""),
        ("method", "rank = -3", "must be a whole number of at least 1, not `-3`", ""),
        ("method", "rank = 16.0", "must be a whole number, not the float `16.0`", ""),
        ("method", "rank = 99999999999999999999999999999999999999999999", "fits 64 bits", ""),
        ("method", "alpha = 0", "`alpha` in [method] must be a finite number greater than 0, not `0`", ""),
        ("method", "alpha = inf", "must be a finite number greater than 0, not `inf`", ""),
        ("method", "alpha = nan", "not `nan`", ""),
        ("method", "alpha = true", "must be a number, not the boolean `true`", ""),
        ("method", "dropout = 1", "must be at least 0 and less than 1, not `1`", ""),
        ("method", "dropout = -0.1", "must be at least 0 and less than 1", ""),
        ("method", "use_rslora = 1", "must be true or false, not the integer `1`", ""),
        ("method", "r = 8", "unknown key `r` in [method]", "it is called `rank` here"),
        ("method", "lora_alpha = 8", "unknown key", "it is called `alpha` here"),
        ("method", "learning_rate = 8", "unknown key", "`learning_rate` belongs in [optimizer]"),
        ("method", "kind = \"full\"\nrank = 8", "does not apply to kind `full`", "`rank` is a key of kind = \"lora\", \"dora\" or \"vera\"; remove it"),
        ("method", "kind = \"ia3\"\nalpha = 8", "does not apply to kind `ia3`", "of kind = \"lora\" or \"dora\"; remove it"),
        ("method", "kind = \"vera\"\nfeedforward_modules = [\"a\"]", "does not apply to kind `vera`", "of kind = \"ia3\"; remove it"),
        ("method", "zzz = 8", "unknown key", "the keys of [method] are `kind`, `rank`"),
        ("method", "kind = \"lara\"", "unknown kind `lara` in [method]", "did you mean `lora`?"),
        ("method", "kind = \"poet\"", "unknown kind `poet`", "supported: `lora`"),
        ("method", "target_modules = []", "a list of at least one string", ""),
        ("method", "target_modules = [1]", "a string or a list of strings, not the integer `1`", ""),
        ("method", "target_modules = 1", "must be \"all-linear\", a list of names or", ""),
        ("method", "target_modules = \"q(\"", "is not a regular expression: unclosed group", "whole module name"),
        ("method", "target_modules = \"\"", "a string that is not empty", ""),
        ("method", "exclude_modules = \"all-linear\"", "a list of names or a regular", ""),
        ("method", "rank_pattern = 4", "must be a table of module pattern = value", ""),
        ("method", "rank_pattern = { q = 0 }", "`rank_pattern.q` in [method] must be a whole number of at least 1", ""),
        ("method", "rank_pattern = { \"q[\" = 4 }", "is not a regular expression", ""),
        ("method", "alpha_pattern = { q = -1 }", "`alpha_pattern.q` in [method] must be a finite", ""),
        ("method", "layers_to_transform = []", "a list of at least one layer", ""),
        ("method", "layers_to_transform = [-1]", "at least 0", ""),
        ("method", "layers_pattern = \"h\"", "has no effect: `layers_to_transform` is absent", "remove"),
        ("method", "layers_to_transform = 1", "has no effect: `target_modules` is \"all-linear\"", "list names"),
        ("method", "rank = 65537", "a whole number of at most 65536", ""),
        ("train", "batch_size = 100000000", "a whole number of at most 65536", ""),
        ("train", "gradient_accumulation = 65537", "a whole number of at most 65536", ""),
        ("train", "threads = 1000000", "a whole number of at most 1024", ""),
        ("method", "layers_to_transform = 1\ntarget_modules = \".*q\"", "`layers_to_transform` in [method] has no effect", "list names"),
        ("method", "bias = \"some\"", "unknown bias `some`", "supported: `none`, `all`, `lora_only`"),
        ("optimizer", "learning_rate = 0", "must be a number from 1.2e-38 to 3.4e38 (the range of f32), not `0`", ""),
        ("optimizer", "learning_rate = 1e999", "must be a number from 1.2e-38", ""),
        ("optimizer", "learning_rate = \"fast\"", "must be a number, not the string `\"fast\"`", ""),
        ("optimizer", "lr = 1", "unknown key `lr`", "it is called `learning_rate` here"),
        ("optimizer", "kind = \"sgd\"", "missing `learning_rate` in [optimizer]", "add to [optimizer]"),
        ("optimizer", "kind = \"sgd\"\nlearning_rate = 1\nbeta1 = 0.9", "`beta1` in [optimizer] does not apply to kind `sgd`", "`beta1` is a key of kind = \"adamw\", \"adam\", \"lamb\""),
        ("optimizer", "momentum = 0.9", "does not apply to kind `adamw`", "kind = \"sgd\""),
        ("optimizer", "kind = \"sgd\"\nlearning_rate = 1\nnesterov = true", "`nesterov` in [optimizer] has no effect: `momentum` is 0", "momentum = 0.9"),
        ("optimizer", "kind = \"adamax\"", "unknown kind `adamax`", "did you mean `adam`?"),
        ("optimizer", "beta2 = 1.0", "at least 0 and less than 1", ""),
        ("optimizer", "eps = 0", "greater than 0", ""),
        ("optimizer", "weight_decay = -1", "at least 0", ""),
        ("optimizer", "clip_grad_norm = -1", "at least 0", ""),
        ("optimizer", "clip_grad_value = 0", "greater than 0", ""),
        ("optimizer", "lambda = \"1/T\"", "must be \"1/sqrt(T)\", \"adaptive\" or a number from 1.2e-38 to 3.4e38 (the range of f32)", ""),
        ("optimizer", "lambda = 0", "from 1.2e-38", ""),
        ("optimizer", "learning_rate = 1e39", "from 1.2e-38 to 3.4e38", ""),
        ("optimizer", "lambda = 1e-30\nlearning_rate = 1e-30", "makes zeros of all updates", "raise `lambda`"),
        ("optimizer", "lambda = 1e30\nlearning_rate = 1e30", "is beyond f32", "lower `lambda`"),
        ("optimizer", "warmup_steps = 1\nwarmup_ratio = 0.1", "`warmup_ratio` and `warmup_steps` in [optimizer] exclude each other", "not both"),
        ("optimizer", "warmup_ratio = 1.5", "between 0 and 1", ""),
        ("optimizer", "warmup_steps = 11\n[train]\nmax_steps = 10", "must be at most the 10 steps of the run", ""),
        ("optimizer", "min_learning_rate_ratio = 0.1", "a constant schedule does not go down", "cosine"),
        ("train", "max_steps = 1\nepochs = 1", "`epochs` and `max_steps` in [train] exclude each other", ""),
        ("train", "epochs = 0", "greater than 0", ""),
        ("train", "batch_size = 0", "at least 1", ""),
        ("train", "sequence_length = 1", "at least 2", ""),
        ("train", "gradient_accumulation = 0", "at least 1", ""),
        ("train", "seed = -1", "at least 0", ""),
        ("train", "seed = 18446744073709551616", "fits 64 bits", ""),
        ("train", "precision = \"fp8\"", "unknown precision `fp8` in [train]", "`auto`, `bf16`, `f32`"),
        ("train", "precision = \"bf16\"\n[method]\nkind = \"weight_norm\"", "`precision` in [train] has no effect: the `kind` in [method] runs in f32 only", "\"f32\""),
        ("train", "recompute = true\nprecision = \"f32\"", "`recompute` in [train] has no effect", "remove `recompute`"),
        ("train", "recompute = true\n[method]\nkind = \"identity\"", "`recompute` in [train] has no effect", "remove `recompute`"),
        ("train", "recompute = 1", "must be true or false", ""),
        ("train", "log_every = 0", "at least 1", ""),
        ("train", "sample_tokens = 4", "`sample_prompt` is absent", ""),
        ("train", "threads = 2024-01-01", "must be a whole number, not the date", ""),
        ("train", "output_dir = \"x\"", "unknown key", "it is called `dir` here, and belongs in [output]"),
        ("data", "eval_fraction = 1.0", "less than 1", ""),
        ("data", "eval_fraction = 0.5\neval = \"x\"", "exclude each other", ""),
        ("data", "eval_max = 5\neval = \"x\"", "exclude each other", ""),
        ("data", "eval_max = 5\neval_fraction = 0", "nothing is held out", "remove `eval_max`"),
        ("data", "format = \"arrow\"", "unknown format `arrow`", "`text`, `lines`, `jsonl`, `csv`, `tsv`, `parquet`, `prompt_completion`, `alpaca`"),
        ("data", "format = \"text\"\ntrain_on_prompt = true", "`train_on_prompt` in [data] has no effect: documents of this `format` or `template` have no prompts", "remove `train_on_prompt`"),
        ("data", "train_on_prompt = true\nformat = \"lines\"", "`train_on_prompt` in [data] has no effect", "remove `train_on_prompt`"),
        ("data", "train_on_prompt = 1", "must be true or false", ""),
        ("data", "packing = \"bestfit\"", "unknown packing", "did you mean `best_fit`?"),
        ("modle", "x = 1", "unknown section `[modle]`", "did you mean [model]?"),
        ("qqq", "x = 1", "unknown section `[qqq]`", "the sections are `model`"),
    ];
    for (section, lines, error, hint) in cases {
        let rendered = rendered(&with(section, lines));
        let (message, given) = rendered
            .split_once("\nhint: ")
            .unwrap_or((rendered.as_str(), ""));
        assert!(message.contains(error), "{lines}: {rendered}");
        assert!(given.contains(hint), "{lines}: {rendered}");
        assert!(message.contains("--> run.toml:"), "{lines}: {rendered}");
    }
    // Rows of JSON may be examples; whether they are shows when they are read.
    parse(&with("data", "train_on_prompt = true\nformat = \"jsonl\"")).unwrap();
}

#[test]
fn missing_keys() {
    for (remove, message) in [
        (
            "path = \"assets/stories260K\"\n",
            "missing `path` in [model]",
        ),
        ("train = \"data.txt\"\n", "missing `train` in [data]"),
        ("dir = \"runs/a\"\n", "missing `dir` in [output]"),
    ] {
        let rendered = rendered(&MINIMAL.replace(remove, ""));
        assert!(rendered.contains(message), "{rendered}");
        assert!(rendered.contains("--> run.toml:"), "{rendered}");
        assert!(rendered.contains("hint: add to ["), "{rendered}");
    }
    // A misspelled key is reported before the key that it was meant to be.
    assert!(rendered("[model]\npth = \"x\"").contains("did you mean `path`?"));
    assert!(rendered("").contains("missing `path` in [model]"));
    assert!(rendered("learning_rate = 1").contains("`learning_rate` belongs in [optimizer]"));
}

#[test]
fn long_lines_are_cut_around_the_place() {
    let long = format!(
        "train = {{ sample_prompt = \"{}\", batch = 1 }}\n{MINIMAL}",
        "é".repeat(4000)
    );
    let location = parse(&long).unwrap_err();
    let location = location.location().expect("a location");
    assert!(location.excerpt().contains("batch"));
    assert!(location.excerpt().chars().count() <= 120);
    let drawn = location.to_string();
    let mut lines = drawn.lines().rev();
    let (marks, line) = (lines.next().unwrap(), lines.next().unwrap());
    let column = marks.find('^').unwrap();
    let under: String = line.chars().skip(column).take(5).collect();
    assert_eq!(under, "batch");
    assert_eq!(marks.trim_start_matches([' ', '|']), "^^^^^");
}
