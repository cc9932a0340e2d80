//! The run file of a task that says itself what `[model]` and `[data]` may hold.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use reparam::schema::{SettingSpec, Settings};
use serde::Serialize;

use super::task::RunTree;
use super::{
    Catalog, MethodConfig, ModelConfig, NewModelConfig, OptimizerConfig, OutputConfig, Result,
    RunKeys, TrainConfig, check_pretrained, defaults, method, open_sections, pretrained_keys,
};
use crate::task::RunFile;

/// What a task's run file may say that those of others may not.
pub trait TaskKeys: fmt::Debug + Clone + PartialEq + 'static {
    /// Settings of `[model]`, beside those of [`ModelConfig`].
    const MODEL: &'static [SettingSpec] = &[];
    /// All settings of `[data]`. Those that several tasks have are constants of [`DataConfig`](super::DataConfig).
    const DATA: &'static [SettingSpec];
}

/// A run file with the sections that all have, and settings of the task's own, defaults filled in.
///
/// It is what a task takes for its [`RunFile`] that needs no rules about keys besides their types and ranges.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(bound = "")]
pub struct TaskConfig<K: TaskKeys> {
    /// `[model]`: what is trained, with [`TaskKeys::MODEL`].
    pub model: TaskModelConfig,
    /// `[data]`: the settings of [`TaskKeys::DATA`].
    pub data: Settings,
    /// `[method]`: how its weights are reparameterized.
    pub method: MethodConfig,
    /// `[optimizer]`: how the trainable parameters are updated.
    pub optimizer: OptimizerConfig,
    /// `[train]`: how long, how much at once.
    pub train: TrainConfig,
    /// `[output]`: where the results go.
    pub output: OutputConfig,
    /// Where methods, transforms and families are looked up; no part of the file.
    #[serde(skip)]
    pub catalog: Catalog,
    #[serde(skip)]
    keys: PhantomData<K>,
}

/// `[model]` with settings of the task's own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskModelConfig {
    /// What every model has.
    #[serde(flatten)]
    pub common: ModelConfig,
    /// What the task adds.
    #[serde(flatten)]
    pub own: Settings,
}

impl<K: TaskKeys> RunFile for TaskConfig<K> {
    fn keys() -> RunKeys {
        let mut keys = pretrained_keys(K::MODEL, K::DATA);
        // Whether it trains on from an adapter, or makes new models, such a task would have to say itself.
        let is_other = |key: &str| {
            let mut new = NewModelConfig::SPECS.iter();
            key == ModelConfig::ADAPTER.key || new.any(|spec| spec.key == key)
        };
        keys.own[0].retain(|spec| !is_other(spec.key));
        keys
    }

    fn read(tree: &RunTree) -> Result<Self> {
        let (root, catalog) = (tree.root(), tree.catalog());
        let layout = Self::keys().layout(catalog);
        let sections = open_sections(root, &layout, catalog)?;
        let [model, data, method, optimizer, train, output] = &sections;
        let config = Self {
            model: TaskModelConfig {
                common: ModelConfig::read(model)?,
                own: model.read(K::MODEL)?,
            },
            data: data.read(K::DATA)?,
            method: method::read(method, defaults::METHOD)?,
            optimizer: OptimizerConfig::read(optimizer, defaults::OPTIMIZER)?,
            train: TrainConfig::read(train)?,
            output: OutputConfig::read(output)?,
            catalog: catalog.clone(),
            keys: PhantomData,
        };
        check_pretrained(
            &sections,
            Some(&config.method),
            &config.optimizer,
            &config.train,
        )?;
        Ok(config)
    }

    fn output(&self) -> &Path {
        &self.output.dir
    }

    fn threads(&self) -> usize {
        self.train.threads
    }
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }
}
