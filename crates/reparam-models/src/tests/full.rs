//! Full training of whole models: everything is trained, and every gradient is that of the plain model.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use reparam::methods::{FullConfig, Selection, attach};
use reparam::{ForwardContext, parameters};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::peft::TargetModules;

use super::{
    Documents, STORIES, assert_gradients_close, differentiate, load_on, repository, values,
};
use crate::CausalLm;

/// The model with full training attached, of all but what is left out.
fn attached(exclude: &[&str]) -> CausalLm {
    let names = exclude.iter().map(|name| (*name).to_owned()).collect();
    let method = FullConfig {
        selection: Selection {
            exclude_modules: (!exclude.is_empty()).then_some(TargetModules::Names(names)),
            ..FullConfig::whole().selection
        },
    };
    let model = load_on(STORIES, &Device::flex().autodiff());
    attach(model, &method, 0).expect("it attaches").0.train()
}

fn documents() -> Documents {
    Documents::new([
        &[1, 403, 407, 261, 378, 432, 383][..],
        &[1, 286, 261, 376][..],
    ])
}

#[test]
fn everything_is_trained_once() {
    let trained = parameters::trainable(&attached(&[]));
    let names: BTreeSet<&str> = trained.iter().map(|tensor| &*tensor.name).collect();
    let checkpoint = Checkpoint::open(&repository(STORIES)).expect("a checkpoint");
    // The head is the embedding and no tensor of its own.
    let stored: BTreeSet<&str> = checkpoint.names().collect();
    assert_eq!(names, stored);
    assert_eq!(trained.len(), stored.len());

    let trained = parameters::trainable(&attached(&["embed_tokens", "norm"]));
    let rest: BTreeSet<&str> = trained.iter().map(|tensor| &*tensor.name).collect();
    let left: Vec<&&str> = stored.difference(&rest).collect();
    assert_eq!(left, [&"model.embed_tokens.weight", &"model.norm.weight"]);
}

#[test]
fn a_module_that_is_left_out_has_to_be_there() {
    let method = FullConfig {
        selection: Selection {
            exclude_modules: Some(TargetModules::Names(vec!["embed_token".to_owned()])),
            ..FullConfig::whole().selection
        },
    };
    let model = load_on(STORIES, &Device::flex().autodiff());
    let error = attach(model, &method, 0).expect_err("there is none");
    assert!(error.to_string().contains("embed_token"), "{error}");
}

#[test]
fn gradients_are_those_of_the_plain_model() {
    let documents = documents();
    let plain = load_on(STORIES, &Device::flex().autodiff()).train();
    let plain = Module::set_require_grad(plain, true);
    let expected = differentiate(&plain, &documents, 1.0);
    let found = differentiate(&attached(&[]), &documents, 1.0);
    assert_eq!(found.loss, expected.loss);
    // The same operations on the same numbers.
    assert_gradients_close(&found.gradients, &expected.gradients, 1e-6, "full");
}

/// Tied weights have one gradient, of both their uses: that of central differences.
#[test]
fn gradients_are_those_of_central_differences() {
    let documents = documents();
    let model = attached(&[]);
    let gradients = differentiate(&model, &documents, 1.0).gradients;
    let loss = |values| {
        let model = parameters::assign(model.clone(), values).valid();
        let context = ForwardContext::inference();
        let loss = model.loss(documents.batch(), &documents.labels, 1.0, &context);
        self::values(&loss)[0]
    };
    let start = parameters::trainable(&model);
    for name in [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.2.input_layernorm.weight",
        "model.layers.4.mlp.down_proj.weight",
    ] {
        let gradient = &gradients[name];
        let (at, expected) = gradient
            .iter()
            .enumerate()
            .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
            .expect("an element");
        let place = start.iter().position(|tensor| tensor.name == name);
        let place = place.expect("it is trained");
        // Of a loss of about 40 in f32, the difference of two is off by a few 1e-6.
        let step = 2e-3;
        let moved = |by: f64| {
            let mut list = start.clone();
            let tensor = &list[place];
            let mut numbers = values(&tensor.values);
            numbers[at] += by;
            let numbers: Vec<f32> = numbers.into_iter().map(|x| x as f32).collect();
            let data = TensorData::new(numbers, [tensor.len()]);
            let device = tensor.values.device();
            list[place] = tensor
                .clone()
                .with_values(burn::tensor::Tensor::from_data(data, &device));
            loss(list)
        };
        let found = (moved(step) - moved(-step)) / (2.0 * step);
        let error = (found - expected).abs() / expected.abs();
        assert!(
            error < 0.02,
            "{name}[{at}]: {expected} and {found} by differences"
        );
    }
}
