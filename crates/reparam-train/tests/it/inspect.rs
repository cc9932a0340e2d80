//! What is said of adapters that PEFT wrote, whatever their method, and of runs without a result.

use reparam_train::Tasks;
use reparam_train::inspect::{Description, Kind, inspect};
use serde_json::{Value, json};

use crate::repository;
use crate::resume::run;
use crate::witness::Witness;

fn property<'a>(description: &'a Description, key: &str) -> Option<&'a Value> {
    let mut properties = description.properties.iter();
    let found = properties.find(|(name, _)| *name == key);
    found.map(|(_, value)| value)
}

#[test]
fn adapters_of_every_method_are_described() {
    let cases = [
        ("gpt2_lora", "lora", "LORA"),
        ("dora", "dora", "LORA"),
        ("vera", "vera", "VERA"),
        ("ia3", "ia3", "IA3"),
    ];
    for (name, method, peft_type) in cases {
        let path = repository(&format!("testdata/golden/methods/{name}"));
        let found = inspect(&path, &Tasks::builtin());
        let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.kind, Kind::Adapter, "{name}");
        assert_eq!(property(&found, "method"), Some(&json!(method)), "{name}");
        assert_eq!(property(&found, "peft_type"), Some(&json!(peft_type)));
        let text = std::fs::read_to_string(path.join("adapter_config.json")).expect("a file");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(property(&found, "rank"), config.get("r"), "{name}");
        let modules = found.tensors.iter().filter(|tensor| {
            let name = tensor.name.as_str();
            ["lora_A.weight", "vera_lambda_b", "ia3_l"]
                .iter()
                .any(|end| name.ends_with(end))
        });
        let modules = modules.count();
        assert!(modules > 1, "{name}: {:?}", found.tensors);
        assert_eq!(
            property(&found, "adapted_modules"),
            Some(&json!(modules)),
            "{name}"
        );
    }
    // The projections that all layers of VeRA share are in the file and not trained.
    let vera = repository("testdata/golden/methods/vera");
    let vera = inspect(&vera, &Tasks::builtin()).expect("an adapter");
    let vectors = vera.tensors.iter().filter(|tensor| tensor.shape.len() == 1);
    let trained: u64 = vectors.map(|tensor| tensor.elements()).sum();
    assert_eq!(
        property(&vera, "trainable_parameters"),
        Some(&json!(trained))
    );
    let dora = repository("testdata/golden/methods/dora");
    let dora = inspect(&dora, &Tasks::builtin()).expect("an adapter");
    // alpha / rank.
    assert_eq!(property(&dora, "scaling"), Some(&json!(2.0)));
}

#[test]
fn a_run_without_a_result_is_described_by_its_newest_checkpoint() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("train.txt");
    let text = std::fs::read(repository("assets/tinyshakespeare.txt")).expect("a text");
    std::fs::write(&data, &text[..700]).expect("writes");
    let full: &[&str] = &["method={ kind = \"full\" }"];
    for (name, overrides, kind) in [("a", &[][..], Kind::Adapter), ("b", full, Kind::Model)] {
        let directory = place.path().join(name);
        let mut witness = Witness {
            stop_at: Some(3),
            ..Witness::default()
        };
        let outcome = witness.run(&run(&directory, &data, overrides), false);
        outcome.expect("it ends well");
        // As if it was killed then.
        let result = directory.join(if kind == Kind::Model {
            "model"
        } else {
            "adapter"
        });
        std::fs::remove_dir_all(result).expect("a result");
        let checkpoints = directory.join("checkpoints");
        // The newest is the one with the largest number, and not the best.
        let newest = checkpoints.join("step-1000000");
        std::fs::rename(checkpoints.join("step-000003"), &newest).expect("a checkpoint");
        let found = inspect(&directory, &Tasks::builtin()).expect("a run");
        let said = property(&found, "result").and_then(Value::as_str);
        let checkpoint = "not there; this is the newest checkpoint";
        assert_eq!(said, Some(checkpoint), "{name}");
        assert_eq!(
            property(&found, "checkpoints"),
            Some(&json!(crate::names(&checkpoints)))
        );
        let of_newest = inspect(&newest, &Tasks::builtin()).expect("a checkpoint");
        assert_eq!((found.kind, of_newest.kind), (kind, kind));
        assert_eq!(found.properties[2..], of_newest.properties);
        assert!(!found.tensors.is_empty() && found.tensors == of_newest.tensors);
        assert_eq!(property(&found, "problem"), None);
        std::fs::remove_dir_all(&checkpoints).expect("checkpoints");
        let found = inspect(&directory, &Tasks::builtin()).expect("a run");
        assert_eq!(found.kind, Kind::Other("run"));
        assert_eq!(property(&found, "result"), Some(&json!("not there")));
    }
}
