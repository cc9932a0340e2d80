//! Methods over packed weights: the same as over tensors, and nothing decodes by the way.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Tensor, bf16};
use reparam_formats::peft::{AdapterFiles, TargetModules};
use reparam_ops::fused::{FusedNorm, FusedNorms, MlpBlock, PackedDType, PackedWeight, mlp_block};
use reparam_ops::{Activation, rms_norm, swiglu};

use super::toy::{data, numbers, randomize, values};
use crate::methods::{
    AdapterMeta, Biases, DoraConfig, FullConfig, Ia3Config, Layer, LoraConfig, Method,
    MethodConfig, MethodError, MethodSpec, Methods, OverparameterizedConfig, ScaleConfig,
    Selection, SigmaReparamConfig, Start, Theta, VeraConfig, WeightLayout, WeightNormConfig,
    attach, attach_adapter, attach_all, linear_modules, load_theta, save_theta, to_adapter,
};
use crate::optim::{AdamW, Optimizer, Schedule};
use crate::parameters;
use crate::{ForwardContext, Linear, Weight};

/// What the roundings of activations to bf16 (relative error at most 2^-8 each) amount to over a block, relative to the
/// greatest element; the factors, scales and biases are `f32` on both paths.
const BF16_TOLERANCE: f64 = 0.02;

/// Sizes of which none is a multiple of a panel.
const D: usize = 20;
const INNER: usize = 27;
const TOKENS: usize = 9;
const EPS: f32 = 1e-5;

/// A gated feed-forward block, of packed weights or of the same numbers as tensors.
#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

const SHAPES: [[usize; 2]; 3] = [[INNER, D], [INNER, D], [D, INNER]];

/// Numbers that bf16 holds.
fn halves(len: usize, seed: u64, scale: f64) -> Vec<f32> {
    let numbers = numbers(len, seed).into_iter();
    numbers
        .map(|x| bf16::from_f64(x * scale).to_f32())
        .collect()
}

fn weight(idx: usize) -> Vec<f32> {
    let [rows, cols] = SHAPES[idx];
    halves(rows * cols, idx as u64, 1.5 / (cols as f64).sqrt())
}

fn tensor<const K: usize>(values: Vec<f32>, dims: [usize; K]) -> Tensor<K> {
    let values = values.into_iter().map(f64::from).collect();
    data(values, &dims, DType::F32)
}

impl Mlp {
    fn dense() -> Self {
        let layer = |idx: usize| {
            let layer = Linear::new(tensor(weight(idx), SHAPES[idx]), bias(idx));
            layer.freeze()
        };
        Self {
            gate_proj: layer(0),
            up_proj: layer(1),
            down_proj: layer(2),
        }
    }

    fn packed(numbers: PackedDType) -> Self {
        let pack = |ids: &[usize]| {
            let shapes: Vec<[usize; 2]> = ids.iter().map(|idx| SHAPES[*idx]).collect();
            PackedWeight::pack(&shapes, numbers, |part, range, to| {
                to.copy_from_slice(&weight(ids[part])[range]);
            })
        };
        let device = data::<1>(vec![0.0], &[1], DType::F32).device();
        let stacks = pack(&[0, 1]).into_iter().chain(pack(&[2]));
        let mut layers = stacks
            .enumerate()
            .map(|(idx, weight)| Linear::packed(weight, bias(idx), &device));
        let mut layer = || layers.next().expect("three layers");
        Self {
            gate_proj: layer(),
            up_proj: layer(),
            down_proj: layer(),
        }
    }

    fn forward(&self, h: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let fused = |layer: &Linear| layer.fused(context);
        match (
            fused(&self.gate_proj),
            fused(&self.up_proj),
            fused(&self.down_proj),
        ) {
            (Some(gate), Some(up), Some(down)) => {
                let norm = FusedNorm {
                    weight: norm(h.is_autodiff()),
                    shift: None,
                    eps: EPS,
                };
                let block = MlpBlock {
                    norms: FusedNorms {
                        before: Some(norm),
                        ..FusedNorms::default()
                    },
                    inputs: vec![gate, up],
                    gated: true,
                    down,
                    activation: Activation::Silu,
                    recompute: false,
                };
                mlp_block(h.cast(DType::BF16), None, block).cast(DType::F32)
            }
            _ => {
                let x = rms_norm(h.clone(), norm(h.is_autodiff()), EPS);
                let gate = self.gate_proj.forward(x.clone(), context);
                let act = swiglu(gate, self.up_proj.forward(x, context));
                h + self.down_proj.forward(act, context)
            }
        }
    }

    fn weights(&self) -> [&Weight; 3] {
        [&self.gate_proj, &self.up_proj, &self.down_proj].map(|layer| &layer.weight)
    }

    /// Whether no packed weight has been decoded for Burn's traits.
    fn is_undecoded(&self) -> bool {
        let mut weights = self.weights().into_iter();
        weights.all(|weight| !weight.param().is_initialized())
    }
}

fn bias(idx: usize) -> Option<Tensor<1>> {
    let rows = SHAPES[idx][0];
    (idx != 1).then(|| tensor(halves(rows, 40 + idx as u64, 0.5), [rows]))
}

fn norm(is_autodiff: bool) -> Tensor<1> {
    let weight = halves(D, 30, 0.3).into_iter().map(|x| 1.0 + x).collect();
    let weight = tensor::<1>(weight, [D]);
    if is_autodiff { weight } else { weight.inner() }
}

fn hidden() -> Tensor<2> {
    tensor(halves(TOKENS * D, 77, 1.0), [TOKENS, D])
}

fn targets(modules: &[&str]) -> Selection {
    let names = modules.iter().map(|name| (*name).to_owned()).collect();
    Selection::default().with_target_modules(TargetModules::Names(names))
}

/// Settings of the methods that run over packed weights.
fn cases() -> Vec<(&'static str, Arc<dyn MethodConfig>)> {
    let lora = || LoraConfig::new(3, 6.0);
    let vera = || VeraConfig {
        rank: 5,
        d_initial: 0.5,
        ..VeraConfig::default()
    };
    let dora = |lora: LoraConfig| Arc::new(DoraConfig { lora });
    vec![
        ("lora", Arc::new(lora())),
        (
            "rsLoRA of some, with all biases",
            Arc::new(LoraConfig {
                use_rslora: true,
                selection: targets(&["up_proj", "down_proj"]).with_bias(Biases::All),
                ..LoraConfig::new(4, 3.0)
            }),
        ),
        (
            "lora with dropout",
            Arc::new(LoraConfig {
                dropout: 0.4,
                ..lora()
            }),
        ),
        ("dora", dora(lora())),
        (
            "dora with dropout and biases",
            dora(LoraConfig {
                dropout: 0.4,
                selection: targets(&["gate_proj", "down_proj"]).with_bias(Biases::Targets),
                ..lora()
            }),
        ),
        ("vera", Arc::new(vera())),
        (
            "vera with dropout",
            Arc::new(VeraConfig {
                dropout: 0.4,
                ..vera()
            }),
        ),
        ("ia3", Arc::new(Ia3Config::default())),
        (
            "ia3 of outputs alone",
            Arc::new(Ia3Config {
                feedforward_modules: TargetModules::Names(Vec::new()),
                ..Ia3Config::default()
            }),
        ),
        (
            "ia3 of inputs alone",
            Arc::new(Ia3Config {
                feedforward_modules: TargetModules::Names(vec![
                    "gate_proj".into(),
                    "down_proj".into(),
                ]),
                selection: targets(&["gate_proj", "down_proj"]),
            }),
        ),
    ]
}

#[test]
fn every_method_that_runs_packed_has_cases() {
    for spec in Methods::builtin().iter() {
        let has_case = cases()
            .iter()
            .any(|(_, config)| config.spec().kind == spec.kind);
        assert_eq!(has_case, spec.runs_packed, "{}", spec.kind);
    }
}

/// Attaches, and moves what is trained a little: numbers of size one would make the block's sums cancel.
fn attached(base: Mlp, config: &dyn MethodConfig) -> Mlp {
    let (model, _) = attach(base, config, 7).expect("attaches");
    let moved = parameters::trainable(&model)
        .into_iter()
        .enumerate()
        .map(|(idx, tensor)| {
            let offsets = halves(tensor.len(), 500 + idx as u64, 0.3);
            let offsets = self::tensor::<1>(offsets, [tensor.len()]).inner();
            let values = tensor.values.clone() + offsets;
            tensor.with_values(values)
        })
        .collect();
    parameters::assign(model, moved)
}

/// The output, the gradient of the input, and those of all that is trained.
fn pass(model: &Mlp, context: &ForwardContext) -> Vec<(String, Vec<f64>)> {
    let h = hidden().require_grad();
    let y = model.forward(h.clone(), context);
    let weights = tensor::<2>(halves(TOKENS * D, 99, 1.0), [TOKENS, D]);
    let mut gradients = (y.clone() * weights).sum().backward();
    let dh = h.grad(&gradients).expect("h is tracked");
    let mut found = vec![("y".to_owned(), values(&y)), ("dh".to_owned(), values(&dh))];
    for gradient in parameters::take_gradients(model, &mut gradients) {
        found.push((gradient.name, values(&gradient.values)));
    }
    found
}

fn assert_near(found: &[(String, Vec<f64>)], expected: &[(String, Vec<f64>)], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for ((name, found), (expected_name, expected)) in found.iter().zip(expected) {
        assert_eq!(name, expected_name, "{what}");
        let greatest = expected.iter().fold(1e-3_f64, |max, x| max.max(x.abs()));
        let difference = super::max_difference(found, expected);
        assert!(
            difference <= BF16_TOLERANCE * greatest,
            "{what}: {name} is off by {difference} of {greatest}"
        );
    }
}

/// The plan is the same value on both paths: outputs, the gradient of the input, and every gradient of theta.
#[test]
fn packed_equals_the_dense_path_of_the_same_numbers() {
    for (name, config) in cases() {
        for context in [ForwardContext::inference(), ForwardContext::training(3, 4)] {
            let packed = attached(Mlp::packed(PackedDType::Bf16), &*config);
            let dense = attached(Mlp::dense(), &*config);
            let expected = pass(&dense, &context);
            assert_near(&pass(&packed, &context), &expected, name);
            assert!(packed.is_undecoded(), "{name}");
            // Neither is empty: the method does something, and everything that is trained has a gradient.
            let base = pass(&Mlp::dense(), &context);
            assert!(
                super::max_difference(&expected[0].1, &base[0].1) > 0.1,
                "{name}"
            );
            for (gradient, values) in &expected[2..] {
                assert!(
                    values.iter().any(|value| value.abs() > 1e-3),
                    "{name}: {gradient}"
                );
            }
        }
    }
}

/// Attaching, training, copies, files: the walk over parameters shows a packed weight and never decodes it.
#[test]
fn a_packed_model_is_trained_and_stored_without_decoding() {
    for (name, config) in cases() {
        let attach_to = |base: Mlp| attach(base, &*config, 7).expect("attaches");
        let (mut model, report) = attach_to(Mlp::packed(PackedDType::Bf16));
        let (dense, dense_report) = attach_to(Mlp::dense());
        assert!(model.is_undecoded(), "{name}: attached");
        assert_eq!(report, dense_report, "{name}");
        let names = |model: &Mlp| -> Vec<String> {
            let list = parameters::trainable(model).into_iter();
            list.map(|tensor| tensor.name).collect()
        };
        assert_eq!(names(&model), names(&dense), "{name}");
        assert_eq!(
            parameters::count(&model),
            parameters::count(&dense),
            "{name}"
        );
        let linears = linear_modules(&model);
        assert!(linears.iter().all(|linear| linear.is_packed), "{name}");

        let mut optimizer = Optimizer::new(
            vec![Box::new(AdamW::default())],
            0.05,
            Schedule::Constant,
            2,
        )
        .expect("valid settings");
        for step in 0..2 {
            let y = model.forward(hidden(), &ForwardContext::training(1, step));
            let mut gradients = (y.clone() * y).sum().backward();
            let gradients = parameters::take_gradients(&model, &mut gradients);
            (model, _) = optimizer.step(model, gradients).expect("a finite step");
        }
        let model = crate::methods::after_step(model);
        let output = |model: &Mlp| values(&model.forward(hidden(), &ForwardContext::inference()));
        let expected = output(&model);
        assert!(
            super::max_difference(
                &expected,
                &output(&attach_to(Mlp::packed(PackedDType::Bf16)).0)
            ) > 1e-3
        );

        let plain = model.valid();
        let inferred = plain.forward(hidden().inner(), &ForwardContext::inference());
        assert_eq!(values(&inferred), expected, "{name}: valid");
        let trained = plain.clone().train();
        assert_eq!(names(&trained), names(&model), "{name}: train");
        assert_eq!(output(&trained), expected, "{name}: train");
        assert!(plain.is_undecoded() && trained.is_undecoded(), "{name}");

        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("theta.safetensors");
        save_theta(&model, &path).expect("writable");
        let (fresh, _) = attach(Mlp::packed(PackedDType::Bf16), &*config, 1234).expect("attaches");
        let loaded = load_theta(fresh, &path).expect("what was just saved");
        let meta = AdapterMeta::new(&*config, &report.modules);
        let files = to_adapter(&model, &*config, &meta).expect("its own adapter");
        files
            .save(&directory.path().join("adapter"))
            .expect("writable");
        let files = AdapterFiles::load(&directory.path().join("adapter")).expect("just saved");
        let fresh = Mlp::packed(PackedDType::Bf16);
        let (adapted, _) =
            attach_adapter(fresh, &files, WeightLayout::OutIn).expect("the same model");
        for loaded in [loaded, adapted] {
            assert_eq!(output(&loaded), expected, "{name}: loaded");
            assert!(loaded.is_undecoded(), "{name}: loaded");
        }
        assert!(model.is_undecoded(), "{name}: used");
    }
}

/// A merge decodes on purpose: it gives the effective weights, of what has no method the stored ones.
#[test]
fn merging_gives_the_effective_weights() {
    for (name, config) in cases() {
        let packed = attached(Mlp::packed(PackedDType::Bf16), &*config);
        let dense = attached(Mlp::dense(), &*config).materialize();
        let merged = packed.clone().materialize();
        assert!(packed.is_undecoded(), "{name}");
        for (idx, weight) in merged.weights().into_iter().enumerate() {
            let expected = values(&dense.weights()[idx].dense().expect("a tensor"));
            let found = values(&weight.dense().expect("a tensor"));
            super::assert_close(&found, &expected, super::F32_TOLERANCE, name);
        }
        let effective = parameters::effective(&packed);
        assert!(packed.is_undecoded(), "{name}");
        let of_dense = parameters::effective(&attached(Mlp::dense(), &*config));
        assert_eq!(effective.len(), of_dense.len(), "{name}");
        for (found, expected) in effective.iter().zip(of_dense) {
            assert_eq!(
                (&found.name, &found.shape),
                (&expected.name, &expected.shape)
            );
            super::assert_close(
                &values(&found.values),
                &values(&expected.values),
                super::F32_TOLERANCE,
                name,
            );
        }
    }
}

#[test]
fn effective_weights_of_a_packed_model_are_its_stored_numbers() {
    for numbers in [PackedDType::Bf16, PackedDType::Int8] {
        let model = Mlp::packed(numbers);
        let effective = parameters::effective(&model);
        let weights = effective
            .iter()
            .filter(|tensor| tensor.name.ends_with("weight"));
        let weights: Vec<_> = weights.collect();
        assert_eq!(weights.len(), SHAPES.len());
        for (tensor, (weight, [rows, _])) in weights.iter().zip(model.weights().iter().zip(SHAPES))
        {
            let stored: Vec<f64> = weight
                .rows_f32(0..rows)
                .into_iter()
                .map(f64::from)
                .collect();
            assert_eq!(values(&tensor.values), stored);
        }
        assert!(model.is_undecoded());
    }
}

#[test]
fn a_packed_weight_is_read_by_rows_only() {
    for (numbers, tolerance) in [(PackedDType::Bf16, 0.0), (PackedDType::Int8, 2e-3)] {
        let model = Mlp::packed(numbers);
        let weight = model.weights()[1];
        let error = weight.dense().expect_err("it is packed");
        assert_eq!(error.dims, SHAPES[1]);
        assert!(error.to_string().contains("[27, 20]"), "{error}");
        assert!(error.hint().contains("rows_f32"));
        assert_eq!(weight.dims(), SHAPES[1]);
        let rows: Vec<f64> = weight.rows_f32(3..5).into_iter().map(f64::from).collect();
        let expected: Vec<f64> = super::packed::weight(1)[3 * D..5 * D]
            .iter()
            .map(|x| f64::from(*x))
            .collect();
        assert!(
            super::max_difference(&rows, &expected) <= tolerance,
            "{numbers:?}"
        );
        assert!(model.is_undecoded());
        // What has no packed form is an ordinary tensor, read alike.
        let dense = Mlp::dense();
        let rows: Vec<f64> = dense.weights()[1]
            .rows_f32(3..5)
            .into_iter()
            .map(f64::from)
            .collect();
        assert_eq!(rows, expected);
    }
}

/// Methods that need the weight itself, and lists of methods, which form it.
#[test]
fn what_needs_the_weight_is_refused() {
    let refused: [&dyn MethodConfig; 5] = [
        &FullConfig::default(),
        &ScaleConfig::new(0.5),
        &WeightNormConfig::default(),
        &SigmaReparamConfig::default(),
        &OverparameterizedConfig::default(),
    ];
    let all = Methods::builtin();
    assert_eq!(
        refused.len(),
        all.iter().filter(|spec| !spec.runs_packed).count()
    );
    let check = |methods: &[&dyn MethodConfig], name: &str| {
        let error = attach_all(Mlp::packed(PackedDType::Bf16), methods, 0).expect_err(name);
        assert!(
            matches!(&error, MethodError::PackedWeight { module, method } if module == "gate_proj" && *method == name),
            "{error}"
        );
        assert!(error.hint().is_some());
    };
    for method in refused {
        check(&[method], method.spec().kind);
    }
    let lora = LoraConfig::new(2, 1.0);
    check(&[&lora, &WeightNormConfig::default()], "lora");
}

/// Says that it runs over packed weights, and has no plan.
#[derive(Debug, Clone, Default)]
struct Unplanned(Selection);

static UNPLANNED: MethodSpec = MethodSpec {
    kind: "unplanned",
    aliases: &[],
    summary: "A toy",
    formula: "W = W0",
    source: "this test",
    settings: &[],
    tensors: &[],
    base_name: None,
    mergeable: true,
    runs_packed: true,
    goes_over_others: false,
    peft: None,
    after_step: None,
    build: |_, _| Ok(Arc::new(Unplanned::default())),
};

impl MethodConfig for Unplanned {
    fn spec(&self) -> &'static MethodSpec {
        &UNPLANNED
    }

    fn selection(&self) -> &Selection {
        &self.0
    }

    fn with_selection(&self, selection: Selection) -> Arc<dyn MethodConfig> {
        Arc::new(Self(selection))
    }

    fn start(&self, _: &Layer<'_>) -> Result<Start, MethodError> {
        Ok(Start::new(Nothing))
    }
}

#[derive(Debug)]
struct Nothing;

impl Method for Nothing {
    fn weight(&self, base: Tensor<2>, _: &Theta<'_>) -> Tensor<2> {
        base
    }
}

/// What a method says of itself is believed only once it has shown a plan.
#[test]
fn a_method_without_a_plan_is_refused_when_it_is_attached() {
    attach(Mlp::dense(), &Unplanned::default(), 0).expect("a tensor is all it needs");
    for numbers in [PackedDType::Bf16, PackedDType::Int8] {
        let error = attach(Mlp::packed(numbers), &Unplanned::default(), 0).expect_err("no plan");
        assert!(
            matches!(&error, MethodError::PackedWeight { method, .. } if *method == "unplanned"),
            "{error}"
        );
    }
}

/// A module that an adapter has whole would have to be packed anew; its numbers are not left out without a word.
#[test]
fn modules_to_save_are_refused_where_they_are_packed() {
    let config =
        LoraConfig::new(2, 1.0).with_target_modules(TargetModules::Names(vec!["gate_proj".into()]));
    let (dense, report) = attach(Mlp::dense(), &config, 0).expect("attaches");
    let mut meta = AdapterMeta::new(&config, &report.modules);
    meta.modules_to_save = vec!["down_proj".into()];
    let files = to_adapter(&dense, &config, &meta).expect("an adapter");
    attach_adapter(Mlp::dense(), &files, WeightLayout::OutIn).expect("a tensor takes them");
    let packed = Mlp::packed(PackedDType::Bf16);
    let error = attach_adapter(packed, &files, WeightLayout::OutIn).expect_err("packed");
    assert!(
        matches!(&error, MethodError::PackedModule { module } if module == "down_proj"),
        "{error}"
    );
    assert!(error.hint().is_some());
}

/// A packed model that is moved about keeps its numbers, not what was decoded for a start.
#[test]
fn randomizing_a_packed_model_leaves_its_weights() {
    let config = DoraConfig {
        lora: LoraConfig::new(2, 1.0),
    };
    let (model, _) = attach(Mlp::packed(PackedDType::Int8), &config, 0).expect("attaches");
    let model = randomize(model, 3);
    assert!(model.is_undecoded());
    let rows = |model: &Mlp| model.weights()[2].rows_f32(0..D);
    assert_eq!(rows(&model), rows(&Mlp::packed(PackedDType::Int8)));
}
