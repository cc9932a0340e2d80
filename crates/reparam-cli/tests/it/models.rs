//! Runs that result in a model instead of an adapter.

use crate::support::{Workplace, model};

const SHORT: [&str; 3] = [
    "train.batch_size=1",
    "train.sequence_length=64",
    "train.max_steps=3",
];

fn without_method(workplace: &Workplace) {
    let text = workplace.read_text("run.toml");
    let text = text.replace("kind = \"lora\"\nrank = 4\n", "");
    workplace.write("run.toml", text.as_bytes());
}

#[test]
fn a_model_is_no_adapter() {
    let workplace = Workplace::new();
    without_method(&workplace);
    workplace
        .train(&[&SHORT[..], &["method.kind=identity"]].concat())
        .succeeded();
    let base = model();
    let args = [
        "eval",
        "--data",
        "held_out.txt",
        "--model",
        &base,
        "--adapter",
        "run/model",
    ];
    workplace
        .reparam(&args)
        .failed(1, "is not an adapter", "save_pretrained");
    let args = ["predict", "--model", "run/model", "--data", "held_out.txt"];
    workplace.reparam(&args).failed(
        1,
        "a model for causal-lm cannot be used for predictions",
        "",
    );
}
