//! A family of models that the library does not know, with keys and names of its own.

use std::collections::BTreeMap;
use std::path::Path;

use reparam_formats::config::{ModelJson, SpecialTokens};
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};
use reparam_models::architecture::{
    AttentionSpec, BlockSpec, EmbeddingSpec, FeedForwardSpec, HeadActivation, HeadSpec,
    HeadWeights, HeadsSpec, Initialization, LinearSpec, NormKind, NormSpec, NormsSpec, Pooling,
    PredictorSpec, TableSpec, TransformSpec,
};
use reparam_models::{Architecture, Family, ModelError};
use reparam_ops::Activation;
use serde_json::{Value, json};

use crate::repository;

pub(crate) const FAMILY: Family = Family {
    model_type: "toy",
    describe,
    gguf: None,
};

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let (width, depth) = (raw.required_size("dim")?, raw.required_size("depth")?);
    let n_heads = raw.required_size("heads")?;
    let positions = raw.required_size("positions")?;
    let causal = raw.bool("causal")?.unwrap_or(true);
    let head_dim = width / n_heads;
    let norm = |path: String| NormSpec {
        path,
        kind: NormKind::Rms,
        width,
        eps: 1e-5,
    };
    let before = |path: String| NormsSpec {
        before: Some(norm(path)),
        ..NormsSpec::default()
    };
    let block = |layer: usize| {
        let path = |name: &str| format!("floors.{layer}.{name}");
        let linear = |name: &str, d_in, d_out| LinearSpec::new(path(name), d_in, d_out);
        BlockSpec {
            attention: AttentionSpec {
                inputs: ["ask", "key", "say"]
                    .map(|name| linear(name, width, width))
                    .to_vec(),
                output: linear("mix", width, width),
                grouped: false,
                q_norm: None,
                k_norm: None,
                norm_weights: HeadWeights::Shared,
                clip: None,
                n_heads,
                n_kv_heads: n_heads,
                head_dim,
                scale: 1.0 / head_dim as f64,
                causal,
                window: None,
                soft_cap: None,
                rotary: None,
                positions: None,
                dropout: None,
                output_dropout: None,
            },
            attention_norms: before(path("first")),
            cross: None,
            feed_forward: FeedForwardSpec {
                inputs: vec![linear("up", width, 2 * width)],
                gated: false,
                output: linear("down", 2 * width, width),
                activation: Activation::Silu,
                inner_dropout: None,
                output_dropout: None,
                experts: None,
            },
            feed_forward_norms: before(path("second")),
            parallel: false,
        }
    };
    Ok(Architecture {
        model_type: json.model_type.clone(),
        width,
        vocab_size: raw.required_size("vocab")?,
        max_positions: positions,
        special: json.special_tokens(SpecialTokens::default())?,
        prefix: "house".to_owned(),
        embedding: EmbeddingSpec {
            tokens: "words".to_owned(),
            factor: None,
            positions: Some(TableSpec {
                path: "places".to_owned(),
                rows: positions,
                offset: 0,
            }),
            sinusoids: None,
            token_types: None,
            token_projection: None,
            norm: None,
            dropout: None,
            projection: None,
        },
        recurrent: None,
        state_space: None,
        rotary: Vec::new(),
        relative: None,
        seq2seq: None,
        blocks: (0..depth).map(block).collect(),
        norm: Some(norm("roof".to_owned())),
        head: HeadSpec::new("speaker", false),
        bias_keys: Vec::new(),
        init: Initialization::Normal(0.02),
        heads: match causal {
            true => HeadsSpec::default(),
            false => HeadsSpec {
                sequence: Some(judge(width)),
                names: vec!["speaker."],
                ..HeadsSpec::default()
            },
        },
        buffers: Vec::new(),
    })
}

fn judge(width: usize) -> PredictorSpec {
    PredictorSpec {
        class: "ToyForSequenceClassification",
        pooling: Pooling::First,
        input_dropout: None,
        transform: Some(TransformSpec {
            linear: LinearSpec::new("gather", width, width),
            in_body: true,
            activation: HeadActivation::Tanh,
            norm: None,
        }),
        dropout: None,
        output: Some("judge".to_owned()),
        normalize: false,
        std: 0.1,
        saved: vec!["judge"],
    }
}

const WIDTH: usize = 16;
/// The tokens of the built-in model's tokenizer, which the toy takes.
const VOCABULARY: usize = 512;
const POSITIONS: usize = 48;

/// Writes a checkpoint of two blocks; always the same one.
pub(crate) fn write(directory: &Path, causal: bool) {
    std::fs::create_dir_all(directory).expect("a directory");
    let stories = repository("assets/stories260K");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(stories.join(name), directory.join(name)).expect("a tokenizer");
    }
    let class = if causal { "ToyForCausalLM" } else { "ToyModel" };
    let config = json!({
        "model_type": "toy", "architectures": [class], "dim": WIDTH, "depth": 2, "heads": 2, "vocab": VOCABULARY,
        "positions": POSITIONS, "causal": causal, "bos_token_id": 1, "eos_token_id": 2,
    });
    std::fs::write(directory.join("config.json"), Value::to_string(&config)).expect("writes");
    let mut shapes = vec![
        ("house.words".to_owned(), vec![VOCABULARY, WIDTH]),
        ("house.places".to_owned(), vec![POSITIONS, WIDTH]),
        ("house.roof".to_owned(), vec![WIDTH]),
        match causal {
            true => ("speaker".to_owned(), vec![VOCABULARY, WIDTH]),
            false => ("house.gather".to_owned(), vec![WIDTH, WIDTH]),
        },
    ];
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("house.floors.{layer}.{name}"), shape.to_vec()));
        };
        for name in ["ask", "key", "say", "mix"] {
            add(name, &[WIDTH, WIDTH]);
        }
        add("up", &[2 * WIDTH, WIDTH]);
        add("down", &[WIDTH, 2 * WIDTH]);
        add("first", &[WIDTH]);
        add("second", &[WIDTH]);
    }
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = shapes
        .into_iter()
        .enumerate()
        .map(|(place, (name, shape))| {
            let wave = |i: usize| ((i * (place + 3)) as f32 * 0.71 + place as f32).sin() * 0.4;
            let around = if shape.len() == 1 { 1.0 } else { 0.0 };
            let values = (0..shape.iter().product()).map(|i| around + wave(i));
            (format!("{name}.weight"), shape, values.collect())
        })
        .collect();
    let tensors: Vec<TensorToWrite<'_>> = tensors
        .iter()
        .map(|(name, shape, values)| TensorToWrite::f32(name, shape, values))
        .collect();
    let path = directory.join("model.safetensors");
    write_safetensors(&path, &tensors, &BTreeMap::new()).expect("writes");
}
