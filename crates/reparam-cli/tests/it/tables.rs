//! Tables and run files of regressions that cannot be used: what is said, and that nothing is written.

use crate::support::{Outcome, Workplace};

const GOOD: &str = "a,b,y\n1,2,3\n2,1,5\n4,4,7\n3,9,1\n5,5,5\n6,1,8\n7,2,2\n8,8,4\n";

struct Place(Workplace);

impl Place {
    /// A run on `table.csv`, with lines of the section `[data]` and the rest of the run file.
    fn new(table: &[u8], data: &str, rest: &str) -> Self {
        let workplace = Workplace::new();
        workplace.write("table.csv", table);
        let text = format!(
            "[model]\ntask = \"regression\"\n[data]\ntrain = \"table.csv\"\ntarget = \"y\"\n{data}\n\
             {rest}\n[output]\ndir = \"run\"\n"
        );
        workplace.write("run.toml", text.as_bytes());
        Self(workplace)
    }

    #[track_caller]
    fn refused(&self, error: &str, hint: &str) -> Outcome {
        let outcome = self
            .0
            .reparam(&["train", "run.toml"])
            .failed(1, error, hint);
        self.0.assert_no_run();
        assert!(outcome.out.is_empty(), "{outcome:?}");
        outcome
    }
}

#[track_caller]
fn refused(table: &str, error: &str, hint: &str) {
    Place::new(table.as_bytes(), "", "").refused(error, hint);
}

#[test]
fn the_table_is_good() {
    let place = Place::new(GOOD.as_bytes(), "", "");
    place.0.reparam(&["train", "run.toml"]).succeeded();
}

#[test]
fn cells_that_are_no_numbers() {
    refused(
        "a,b,y\n1,2,3\n2,one,4\n",
        "table.csv:3: column `b` is not a number: \"one\"",
        "name the numeric ones",
    );
    Place::new(b"a,b,y\n1,2,3\n2,one,4\n", "features = [\"b\"]", "").refused(
        "table.csv:3: column `b` is not a number: \"one\"",
        "choose another column than `b`",
    );
    refused(
        "a,y\n1,2\n\"1,500\",3\n",
        "table.csv: \"1,500\" may mean 1500 or 1.5",
        "write decimals with a point",
    );
    refused(
        "a,y\n1,2\n2,inf\n",
        "table.csv:3: column `y` is not finite: \"inf\"",
        "leave the cell empty",
    );
    refused(
        "a,y\n1e999,2\n2,3\n",
        "table.csv:2: column `a` is not finite: \"1e999\"",
        "correct the value",
    );
}

#[test]
fn settings_that_cannot_be_used() {
    let place = Place::new(GOOD.as_bytes(), "", "");
    for (text, error) in [
        (
            "train.max_steps=0",
            "`max_steps` in [train] must be a whole number of at least 1, not `0`",
        ),
        (
            "optimizer.lambda=0",
            "must be a number from 1.2e-38 to 3.4e38 (the range of f32), not `0`",
        ),
        (
            "optimizer.lambda=-0.1",
            "must be a number from 1.2e-38 to 3.4e38 (the range of f32), not `-0.1`",
        ),
        ("optimizer.lambda=nan", "must be a number from 1.2e-38"),
        (
            "optimizer.lambda=1/T",
            "must be \"1/sqrt(T)\", \"adaptive\" or a number",
        ),
        ("optimizer.learning_rate=0", "from 1.2e-38"),
        (
            "optimizer.transforms=[{kind=\"momentumm\"}]",
            "did you mean `momentum`?",
        ),
        (
            "optimizer={learning_rate=0.1,transforms=[{kind=\"clip_by_value\",max_value=1},{kind=\"mask\",branches=[1]}]}",
            "`clip_by_value` cannot come before `mask`",
        ),
        ("optimizer.kind=adamx", "did you mean `adam"),
        ("optimizer.kind=muon", "`muon` updates matrices only"),
        ("model.kind=cubic", "unknown kind `cubic` in [model]"),
        (
            "model.hidden=[4]",
            "`hidden` in [model] does not apply to kind `linear`",
        ),
        (
            "model.task=classification",
            "unknown task `classification` in [model]",
        ),
        ("train.batch_size=0", "at least 1"),
        (
            "train.batch_size=7",
            "the batch size is 7, but there are only 6 training rows",
        ),
        (
            "train.sequence_length=4",
            "unknown key `sequence_length` in [train]",
        ),
        ("train.patience=3", "`patience` in [train] has no effect"),
        ("data.test_fraction=0", "greater than 0 and less than 1"),
        ("data.test_fraction=1", "less than 1"),
        ("data.features=[]", "at least one string"),
        ("data.missing=ignore", "unknown missing `ignore` in [data]"),
        (
            "data.generate={samples=9,features=1}",
            "`train` and `generate` in [data] exclude each other",
        ),
        ("method.kind=loraa", "did you mean `lora`?"),
        (
            "method.rank=4",
            "`rank` in [method] does not apply to kind `full`",
        ),
        (
            "optimizer.warmup_steps=2000",
            "must be at most the 1000 steps of the run",
        ),
    ] {
        let outcome = place.0.train(&[text]);
        assert_eq!(outcome.code, Some(1), "{text}: {outcome:?}");
        assert!(outcome.err.contains(error), "{text}: {outcome:?}");
        assert!(outcome.out.is_empty(), "{text}: {outcome:?}");
    }
    place.0.assert_no_run();
}

#[test]
fn an_output_that_holds_a_run() {
    let place = Place::new(GOOD.as_bytes(), "", "");
    place.0.train(&[]).succeeded();
    let before = place.0.read("run/model/model.safetensors");
    place
        .0
        .train(&["train.seed=1"])
        .failed(1, "run already holds a run", "--output");
    assert_eq!(place.0.read("run/model/model.safetensors"), before);
}
