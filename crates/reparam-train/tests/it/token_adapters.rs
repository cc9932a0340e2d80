//! Adapters with tokens of their own where they are used: other bases, other programs' files, damaged files.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use reparam::methods::FactorSize;
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::gguf::GgufDtype;
use reparam_formats::peft::{AdapterFiles, PeftError, Tensor};
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};
use reparam_models::Sampling;
use reparam_train::chat::Chat;
use reparam_train::config::Precision;
use reparam_train::convert::{GgufRequest, adapter_to_gguf, adapter_to_mlx, model_to_gguf};
use reparam_train::merge::{
    LoraReport, LoraRequest, LoraSource, MergeError, MergeRequest, merge, to_lora,
};
use reparam_train::{DataRequest, Session, Stop, TrainError};
use serde_json::json;

use crate::tokens::{CLOSE, LORA, Place, ROWS, TABLE, TOKENS, json_file, request};
use crate::{names, offline, repository};

const HEAD_ROWS: &str = "lm_head.token_adapter.trainable_tokens_delta";

fn stories() -> PathBuf {
    repository("assets/stories260K")
}

impl Place {
    fn data(&self) -> DataRequest {
        DataRequest::new(self.path("held_out.txt"))
    }

    /// The adapter of a run on a base.
    fn adapter(&self, run: &str, base: &Path, overrides: &[&str]) -> PathBuf {
        self.finish(run, base, overrides);
        self.path(run).join("adapter")
    }

    /// A copy of an adapter with another content, and the tokenizer beside it.
    fn changed(&self, name: &str, from: &Path, change: impl FnOnce(&mut AdapterFiles)) -> PathBuf {
        let mut files = AdapterFiles::load(from).expect("an adapter");
        change(&mut files);
        let to = self.path(name);
        files.save(&to).expect("writes");
        for file in names(from) {
            if !to.join(&file).exists() {
                fs::copy(from.join(&file), to.join(&file)).expect("copies");
            }
        }
        to
    }

    fn merged(&self, name: &str, base: &Path, adapter: &Path) -> Result<PathBuf, TrainError> {
        let base = request(base, None, Precision::F32);
        let asked = MergeRequest {
            dtype: Some(Dtype::F32),
            ..MergeRequest::new(base, vec![(adapter.to_owned(), 1.0)])
        };
        let output = self.path(name);
        merge(&asked, &output, &offline(), Stop::never())?;
        Ok(output)
    }

    fn lora(&self, name: &str, base: &Path, source: LoraSource) -> Result<LoraReport, TrainError> {
        let asked = LoraRequest {
            base: request(base, None, Precision::F32),
            source,
            size: FactorSize::Rank(4),
            task_type: None,
            data: Some(self.data()),
            sequence_length: 64,
        };
        to_lora(&asked, &self.path(name), &offline(), Stop::never())
    }
}

fn opened(base: &Path, adapter: &Path) -> Result<Session, TrainError> {
    let request = request(base, Some(adapter), Precision::F32);
    Session::open_request(&request, &offline())
}

/// What `config.json` says of the head is not what the weights say: a head with other numbers has rows of its own.
#[test]
fn a_head_of_its_own_is_trained_whatever_is_said_of_it() {
    let place = Place::new();
    let base = place.base("base", 0, true);
    let path = base.join("config.json");
    let mut config = json_file(&path);
    config["tie_word_embeddings"] = json!(true);
    fs::write(&path, config.to_string()).expect("writes");
    let witness = place.finish("run", &base, &[LORA, TOKENS]);
    let adapter = place.path("run/adapter");
    let files = AdapterFiles::load(&adapter).expect("an adapter");
    assert!(files.tensors.contains_key(ROWS) && files.tensors.contains_key(HEAD_ROWS));
    assert_ne!(files.tensors[ROWS], files.tensors[HEAD_ROWS]);
    let after = witness.finished().after.expect("a loss");
    assert_eq!(
        place.loss(&request(&base, Some(&adapter), Precision::F32)),
        after
    );
    let merged = place.merged("merged", &base, &adapter).expect("merges");
    let loss = place.loss(&request(&merged, None, Precision::F32));
    assert!((loss - after).abs() < CLOSE, "{loss} {after}");
}

/// A table that is shorter than the tokenizer: the row of a token that nobody trains is the same in training and afterwards,
/// whatever the seed; one that is asked for is trained.
#[test]
fn tokens_without_a_row_get_one() {
    let place = Place::new();
    let base = place.base("base", -2, false);
    // The first token without a row.
    let last = "~";
    let text = |name: &str| {
        let text = fs::read_to_string(place.path(name)).expect("a text");
        let text = text.replace("dog", &format!("dog{last}"));
        fs::write(place.path(name), text).expect("writes");
    };
    text("train.txt");
    text("held_out.txt");
    let indices = |adapter: &Path| {
        let files = AdapterFiles::load(adapter).expect("an adapter");
        files.config.get("trainable_token_indices").cloned()
    };
    let witness = place.finish("gap", &base, &[LORA, TOKENS, "train.seed=7"]);
    let adapter = place.path("gap/adapter");
    assert_eq!(indices(&adapter), Some(json!([512, 513])));
    let after = witness.finished().after.expect("a loss");
    let request = request(&base, Some(&adapter), Precision::F32);
    assert_eq!(place.loss(&request), after);

    let known = format!("data.add_tokens=[\"{last}\"]");
    let adapter = place.adapter("known", &base, &[LORA, &known]);
    assert_eq!(indices(&adapter), Some(json!([510])));
    let session = opened(&base, &adapter).expect("a model");
    assert_eq!(session.model.architecture().vocab_size, 511);
}

#[test]
fn dora_with_tokens_is_read_again_merged_and_made_a_lora() {
    let place = Place::new();
    let base = stories();
    let dora = LORA.replace("lora", "dora");
    let witness = place.finish("run", &base, &[&dora, TOKENS]);
    let adapter = place.path("run/adapter");
    let after = witness.finished().after.expect("a loss");
    assert_eq!(
        place.loss(&request(&base, Some(&adapter), Precision::F32)),
        after
    );
    let merged = place.merged("merged", &base, &adapter).expect("merges");
    let loss = place.loss(&request(&merged, None, Precision::F32));
    assert!((loss - after).abs() < CLOSE, "{loss} {after}");

    // The rows go on, and the tokenizer with them.
    let report = place.lora("lora", &base, LoraSource::Adapter(adapter.clone()));
    let report = report.expect("a LoRA");
    assert_eq!(report.left_out, [""; 0]);
    let files = |adapter: &Path| AdapterFiles::load(adapter).expect("an adapter");
    let lora = place.path("lora");
    assert_eq!(files(&lora).tensors[ROWS], files(&adapter).tensors[ROWS]);
    assert_eq!(
        files(&lora).config.get("trainable_token_indices"),
        Some(&json!([512, 513]))
    );
    let agreement = report.agreement.expect("a comparison");
    let loss = place.loss(&request(&base, Some(&lora), Precision::F32));
    assert!((loss - agreement.merged_loss).abs() < CLOSE, "{loss}");
    assert!((agreement.loss - after).abs() < CLOSE, "{after}");
}

#[test]
fn other_programs_get_tokens_in_a_merged_model_alone() {
    let place = Place::new();
    let base = stories();
    let adapter = place.adapter("run", &base, &[LORA, TOKENS]);
    let with_adapter = request(&base, Some(&adapter), Precision::F32);
    let asked = GgufRequest {
        data: Some(place.data()),
        sequence_length: 64,
        ..GgufRequest::new(with_adapter, Some(GgufDtype::F32))
    };
    let file = place.path("merged.gguf");
    let report = model_to_gguf(&asked, &file, &offline(), Stop::never()).expect("a file");
    let agreement = report.agreement.expect("a comparison");
    // Merging rounds each weight once.
    assert!(agreement.kl < 1e-8, "{agreement:?}");
    let bytes = fs::read(&file).expect("a file");
    assert!(bytes.windows(6).any(|bytes| bytes == b"<tool>"));

    let refused = |error: TrainError| {
        let text = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(text.contains("trainable_token_indices"), "{text}");
    };
    let mlx = place.path("mlx");
    refused(adapter_to_mlx(&adapter, &mlx).expect_err("no place for rows"));
    let file = place.path("adapter.gguf");
    let model = request(&base, None, Precision::F32);
    let written = adapter_to_gguf(
        &adapter,
        Some(&model),
        GgufDtype::F32,
        &file,
        &model,
        &offline(),
    );
    refused(written.expect_err("no place for rows"));
    assert!(!mlx.exists() && !file.exists());
}

#[test]
fn a_conversation_is_held_with_new_tokens() {
    let place = Place::new();
    let base = stories();
    let adapter = place.adapter("run", &base, &[LORA, TOKENS]);
    let template = place.path("t.jinja");
    let text = "{% for m in messages %}<tool>{{ m.content }}</tool>{% endfor %}";
    fs::write(&template, text).expect("writes");
    let session = opened(&base, &adapter).expect("a model");
    let merged = place.merged("merged", &base, &adapter).expect("merges");
    let merged = request(&merged, None, Precision::F32);
    let merged = Session::open_request(&merged, &offline()).expect("a model");
    let name = template.display().to_string();
    // Token by token, the rows give what they give as a part of the table.
    let answers = [&session, &merged].map(|session| {
        let mut chat = Chat::new(session, Some(&name), None).expect("a conversation");
        let mut go_on = |_: &str| ControlFlow::Continue(());
        let greedy = Sampling::greedy();
        let answer = chat.answer("a dog", Some(12), greedy, Stop::never(), &mut go_on);
        let answer = answer.expect("an answer");
        assert_eq!(chat.messages().len(), 2);
        answer.tokens
    });
    assert!(!answers[0].is_empty());
    assert_eq!(answers[0], answers[1]);
    let ids = session.tokenizer.encode("<tool>a</tool>", false);
    let ids = ids.expect("encodes");
    assert_eq!(ids[0], 512);

    // A model that is loaded already has the base's tokenizer, which cuts the tokens into pieces.
    let alone = Session::open_request(&request(&base, None, Precision::F32), &offline());
    let error = alone.expect("a model").with_adapter(&adapter);
    let error = error.expect_err("another tokenizer");
    assert!(
        matches!(error, TrainError::AdapterTokenizer { .. }),
        "{error}"
    );
    assert!(error.hint().expect("a hint").contains("open_request"));
}

/// A head that is the table and has a method of its own: whether it has the rows, too, is nowhere said.
#[test]
fn a_method_on_a_head_that_is_the_table_is_refused_beside_rows() {
    let place = Place::new();
    let base = stories();
    let adapter = place.adapter("run", &base, &[LORA, TOKENS]);
    let both = place.changed("both", &adapter, |files| {
        let factor = |shape: [usize; 2]| Tensor {
            data: vec![0.1; shape[0] * shape[1]],
            shape: shape.to_vec(),
        };
        let mut config = files.config.map().clone();
        config.insert(
            "target_modules".to_owned(),
            json!(["q_proj", "down_proj", "lm_head"]),
        );
        let mut tensors = files.tensors.clone();
        tensors.insert("lm_head.lora_A.weight".to_owned(), factor([2, 64]));
        tensors.insert("lm_head.lora_B.weight".to_owned(), factor([514, 2]));
        *files = AdapterFiles::new(config, tensors);
    });
    for error in [
        opened(&base, &both).expect_err("refused"),
        place.merged("merged", &base, &both).expect_err("refused"),
    ] {
        assert!(
            matches!(&error, TrainError::TokensAndHead { head } if head == "lm_head"),
            "{error}"
        );
    }
}

#[test]
fn damaged_tables_are_refused() {
    let place = Place::new();
    let from = repository("testdata/golden/variants/untied_bias");
    let base = place.path("base");
    fs::create_dir(&base).expect("a directory");
    for file in names(&from) {
        fs::copy(from.join(&file), base.join(&file)).expect("copies");
    }
    let tokenizer = repository("testdata/golden/gguf/tokenizer.json");
    fs::copy(tokenizer, base.join("tokenizer.json")).expect("copies");
    let golden = |name: &str| repository("testdata/golden/tokens").join(name);
    let table = "model.embed_tokens.token_adapter.base_layer.weight";
    let (head, other) = ("lm_head.weight", "lm_head.token_adapter.base_layer.weight");
    type Change = fn(&mut Tensor);
    let scalar: Change = |tensor| {
        (tensor.shape, tensor.data) = (Vec::new(), vec![1.0]);
    };
    let short: Change = |tensor| {
        tensor.shape[0] -= 1;
        tensor.data.truncate(98 * 32);
    };
    let shorter: Change = |tensor| {
        tensor.shape[0] = 2;
        tensor.data.truncate(2 * 32);
    };
    let narrow: Change = |tensor| {
        tensor.shape = vec![99 * 32 / 16, 16];
    };
    let else_where: Change = |tensor| tensor.data[40] += 1.0;
    let mut number = 0;
    for (name, tensor, change, is_other_base) in [
        ("untied", table, scalar, false),
        ("untied", table, short, false),
        ("untied", table, shorter, false),
        ("untied", table, narrow, false),
        ("untied", table, else_where, true),
        ("untied", other, else_where, true),
        ("untied_list", head, scalar, false),
        ("untied_list", head, short, false),
        ("untied_list", head, else_where, true),
    ] {
        number += 1;
        let damaged = place.changed(&number.to_string(), &golden(name), |files| {
            change(files.tensors.get_mut(tensor).expect(tensor));
        });
        for error in [
            opened(&base, &damaged).expect_err("damaged"),
            place
                .merged("merged", &base, &damaged)
                .expect_err("damaged"),
        ] {
            let TrainError::Peft(error) = error else {
                panic!("{name} {tensor}: {error}");
            };
            let found = matches!(error, PeftError::OtherBase { .. });
            assert_eq!(found, is_other_base, "{name} {tensor}: {error}");
        }
    }
    // A vector of a token that no tokenizer has is not made room for.
    let far = place.changed("far", &golden("untied"), |files| {
        let mut config = files.config.map().clone();
        let far = json!([4_294_967_295_u32, 97, 98]);
        config.insert(
            "trainable_token_indices".to_owned(),
            json!({"embed_tokens": far, "lm_head": far}),
        );
        let mut tensors = files.tensors.clone();
        tensors.retain(|name, _| !name.contains("base_layer"));
        *files = AdapterFiles::new(config, tensors);
    });
    let error = opened(&base, &far).expect_err("no such token");
    assert!(matches!(error, TrainError::TokensBeyond { .. }), "{error}");
}

/// What a checkpoint holds beside its weights makes no difference: buffers, and a head that is the table.
#[test]
fn a_lora_of_two_models_looks_at_weights_alone() {
    let place = Place::new();
    let (base, tuned) = (place.base("base", 0, false), place.base("tuned", 0, false));
    const CHANGED: &str = "model.layers.0.self_attn.q_proj.weight";
    let rewritten = |model: &Path, more: bool| {
        let path = model.join("model.safetensors");
        let stored = Checkpoint::open(model).expect("a model");
        let mut all: Vec<(String, Vec<usize>, Vec<f32>)> = stored
            .tensors()
            .map(|(name, tensor)| {
                let values = tensor.to_f32_vec().expect("numbers");
                (name.to_owned(), tensor.shape.to_vec(), values)
            })
            .collect();
        let table = all.iter().find(|(name, _, _)| name == TABLE);
        let table = table.expect("a table").clone();
        for (name, _, values) in &mut all {
            if !more && name == CHANGED {
                values[3] += 1.0;
            }
        }
        if more {
            all.push(("lm_head.weight".to_owned(), table.1, table.2));
            let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
            all.push((buffer.to_owned(), vec![2], vec![1.0, 2.0]));
        }
        let tensors: Vec<TensorToWrite<'_>> = all
            .iter()
            .map(|(name, shape, values)| TensorToWrite::f32(name, shape, values))
            .collect();
        write_safetensors(&path, &tensors, &Default::default()).expect("writes");
    };
    rewritten(&base, true);
    rewritten(&tuned, false);
    for (name, base, tuned) in [("a", &base, &tuned), ("b", &tuned, &base)] {
        let source = LoraSource::Model(request(tuned, None, Precision::F32));
        let report = place.lora(name, base, source).expect("a LoRA");
        let layers: Vec<&str> = report.layers.iter().map(|layer| &*layer.name).collect();
        assert_eq!(layers, [CHANGED.trim_end_matches(".weight")]);
        assert_eq!(report.left_out, [""; 0]);
        let agreement = report.agreement.expect("a comparison");
        assert!(agreement.kl < 1e-8, "{agreement:?}");
    }
    // One that cannot be compared is not there.
    let source = LoraSource::Model(request(&tuned, None, Precision::F32));
    fs::remove_file(place.path("held_out.txt")).expect("removes");
    place.lora("c", &base, source).expect_err("no texts");
    assert!(!place.path("c").exists());
    // Nothing differs.
    let source = LoraSource::Model(request(&base, None, Precision::F32));
    let error = place.lora("d", &base, source).expect_err("no change");
    assert!(
        matches!(error, TrainError::Merge(MergeError::NoChange)),
        "{error}"
    );
}
