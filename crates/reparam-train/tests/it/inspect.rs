//! What is said of adapters that PEFT wrote, whatever their method.

use reparam_train::Tasks;
use reparam_train::inspect::{Description, Kind, inspect};
use serde_json::{Value, json};

use crate::repository;

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
