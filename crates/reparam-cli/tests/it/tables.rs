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
        "a,y\n1,2\n\"1,5\",3\n",
        "table.csv:3: column `a` is not a number: \"1,5\"",
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
fn values_that_are_missing() {
    for word in ["", "NaN", "nan", "NA", "n/a", "null", "?", " "] {
        refused(
            &format!("a,y\n1,2\n2,{word}\n{word},4\n4,5\n"),
            "missing values in 2 of 4 rows, columns `a`, `y`, lines 3, 4",
            "missing = \"drop_rows\"",
        );
    }
    let table = b"a,y\n1,\n2,\n3,\n";
    Place::new(table, "missing = \"drop_rows\"", "").refused(
        "table.csv has no rows left: all 3 have missing values",
        "leave out the columns",
    );
}

#[test]
fn columns_that_are_not_there() {
    let table = GOOD.replace("b,y", "price,weight");
    refused(
        &table,
        "no column `y` for the target, found `a`, `price`, `weight`",
        "",
    );
    let table = GOOD.replace("b,y", "price,y");
    Place::new(table.as_bytes(), "features = [\"a\", \"prise\"]", "").refused(
        "no column `prise` for the features",
        "did you mean `price`?",
    );
    refused(
        &GOOD.replace(',', ";"),
        "no column `y` for the target, found `a;b;y`",
        "this file seems to use ';'",
    );
    refused(
        "1,2\n3,4\n5,6\n",
        "no column `y`",
        "the first line looks like data",
    );
    let of = |features: &str| Place::new(GOOD.as_bytes(), &format!("features = {features}"), "");
    of("[\"a\", \"y\"]").refused("the target `y` is among the features", "take it out");
    of("[\"a\", \"a\"]").refused("the feature `a` is named twice", "once");
    refused(
        "y\n1\n2\n3\n",
        "there are no features to predict `y` from",
        "at least one column",
    );
    refused(
        "a,a,y\n1,2,3\n",
        "columns 1 and 2 are both named `a`",
        "rename",
    );
    refused(
        "a,,y\n1,2,3\n",
        "column 2 of the header has no name",
        "index=False",
    );
}

#[test]
fn files_that_are_no_tables() {
    refused("", "table.csv is empty", "the first line names the columns");
    refused(
        "\n\n\n",
        "table.csv is empty",
        "the first line names the columns",
    );
    refused(
        "a,y\n",
        "table.csv has no rows",
        "every further line is a row",
    );
    refused(
        "a,y\n1,2\n3\n",
        "table.csv:3: expected 2 cells as in the header, found 1",
        "empty cell",
    );
    refused(
        "a,y\n1,2\n3,4,5\n",
        "table.csv:3: expected 2 cells",
        "double quotes",
    );
    refused(
        "a,y\n\"1,2\n3,4\n",
        "table.csv:2: a quoted cell of this record is never closed",
        "close",
    );
    Place::new(b"a,y\n1,2\ncaf\xe9,4\n", "", "").refused("table.csv:3: invalid UTF-8", "iconv");
    let place = Place::new(b"", "", "");
    for (file, error) in [
        ("tabel.csv", "no such file: tabel.csv"),
        (".", "found a directory: ."),
    ] {
        let train = format!("data.train={file}");
        let outcome = place.0.train(&[&train]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(
            outcome.err.contains(error) && outcome.err.contains("hint: "),
            "{outcome:?}"
        );
        place.0.assert_no_run();
    }
}

#[test]
fn tables_that_teach_nothing() {
    let constant: String = (0..20)
        .map(|row| format!("{row},5,{}\n", row * row % 7))
        .collect();
    refused(
        &format!("a,b,y\n{constant}"),
        "constant over the 16 rows: `b`",
        "leave them out of the features",
    );
    refused(
        &format!(
            "a,y\n{}",
            (0..20).map(|row| format!("{row},5\n")).collect::<String>()
        ),
        "the target `y` is constant over the 16 rows: 5",
        "nothing to learn",
    );
    refused(
        "a,b,c,d,e,y\n1,2,3,4,5,6\n2,3,5,7,1,1\n1,4,9,6,2,2\n2,7,1,8,2,8\n",
        "3 rows cannot determine 5 coefficients and an intercept",
        "give at least 6 rows or fewer features",
    );
    let twins: String = (0..20)
        .map(|row| format!("{row},{},{}\n", 2 * row, row * row % 7))
        .collect();
    refused(
        &format!("a,b,y\n{twins}"),
        "the 2 features are linearly dependent",
        "leave out `b`",
    );
    refused(
        "a,y\n1,2\n",
        "of 1 rows leaves no row for training",
        "more rows",
    );
    refused(
        "a,y\n1,1e200\n2,2e200\n3,9e200\n4,3e200\n5,8e200\n",
        "squared errors of the target `y` cannot be computed",
        "another unit",
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
            "must be a finite number greater than 0, not `0`",
        ),
        (
            "optimizer.lambda=-0.1",
            "must be a finite number greater than 0, not `-0.1`",
        ),
        (
            "optimizer.lambda=nan",
            "must be a finite number greater than 0",
        ),
        (
            "optimizer.lambda=1/T",
            "must be \"1/sqrt(T)\", \"adaptive\" or a finite number",
        ),
        ("optimizer.learning_rate=0", "greater than 0"),
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
