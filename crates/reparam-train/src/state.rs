//! The state of a run as a value: what a checkpoint holds, and what a run goes on from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use reparam::optim::{self, Optimizer};
use reparam_formats::atomic::AtomicDirectory;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::safetensors::{TensorToWrite, write_safetensors};
use reparam_formats::{FormatError, file};
use serde::{Deserialize, Serialize};

use crate::convergence::Seen;
use crate::event::{Step, StopReason};
use crate::json::text_of;
use crate::learner::Carried;
use crate::provenance::Fingerprint;
use crate::task::{At, TaskLearner};
use crate::{Result, TrainError};

/// The part of a checkpoint that is no export: a folder in it, so that who reads the export does not see it.
const FOLDER: &str = "state";
const STATE: &str = "state.json";
const THETA: &str = "theta.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const CARRIED: &str = "carried.safetensors";

/// The version of the form of a checkpoint; it changes when a reader of the old form would fail.
const SCHEMA_VERSION: u32 = 2;

/// Where a run stands between two steps.
///
/// Beside it a checkpoint has theta, with what methods keep, the state of every transform of the update, and what the step has
/// left for the next one. The schedule
/// and dropout are functions of the step, the data's order is one of the passes; everything else of a run follows from
/// its configuration and the files that [`Fingerprint`] stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainState {
    pub(crate) schema_version: u32,
    /// The task's name.
    pub(crate) task: String,
    /// The last finished step: the place in the schedule.
    pub(crate) step: u64,
    /// The micro-batches that have been learned from: the place in the data.
    pub(crate) passes: u64,
    /// What the conditions to stop have seen.
    pub(crate) seen: Seen,
    /// The name of the measure that decides.
    pub(crate) metric: Option<String>,
    /// Its value before the first step.
    pub(crate) before: Option<f64>,
    /// The same, as it was measured last.
    pub(crate) after: Option<f64>,
    /// Whether that is better than before the first step.
    #[serde(default)]
    pub(crate) improved: Option<bool>,
    /// The evaluation after a step with the best value.
    #[serde(default)]
    pub(crate) best: Option<Best>,
    /// What is still to be done after the last step; a run may be asked to stop while it is done.
    pub(crate) pending: Option<Pending>,
    /// The time that the steps took, in seconds.
    pub(crate) seconds: f64,
    /// How long the file of events was.
    pub(crate) events_bytes: u64,
    /// What the run is made from.
    pub(crate) made_from: Fingerprint,
}

/// The best model so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// The step after which it was measured.
    pub(crate) step: u64,
    /// The value of the measure that decides.
    pub(crate) value: f64,
    /// Whether that is better than before the first step.
    pub(crate) improved: bool,
}

/// What comes after a step: an evaluation where one is due, and the end where it is the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// The step; `None` before the first.
    pub(crate) step: Option<Step>,
    /// Why the run ends with it, if it does.
    pub(crate) reason: Option<StopReason>,
}

impl TrainState {
    /// Returns the state before the first step.
    pub(crate) fn new(task: &str, made_from: Fingerprint) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            task: task.to_owned(),
            step: 0,
            passes: 0,
            seen: Seen::default(),
            metric: None,
            before: None,
            after: None,
            improved: None,
            best: None,
            pending: Some(Pending {
                step: None,
                reason: None,
            }),
            seconds: 0.0,
            events_bytes: 0,
            made_from,
        }
    }

    /// Writes a checkpoint, in one step: the state, and the model as what the run results in.
    pub(crate) fn save(
        &self,
        learner: &dyn TaskLearner,
        optimizer: &Optimizer,
        path: &Path,
    ) -> Result<()> {
        let directory = AtomicDirectory::create(path)?;
        learner.save(At::evaluated(learner, optimizer), directory.path())?;
        let folder = make_folder(directory.path())?;
        learner.save_theta(At::Trained, &folder.join(THETA))?;
        optim::save_state(optimizer, &folder.join(OPTIMIZER)).map_err(TrainError::Update)?;
        save_carried(learner.carried(), &folder.join(CARRIED))?;
        let file = folder.join(STATE);
        let json = text_of(&file, self)?;
        fs::write(&file, json).map_err(|error| FormatError::io("write", &file, error))?;
        Ok(directory.commit()?)
    }

    /// Reads what a checkpoint says of its run; `None` if it is not whole.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = file::read_text(&path.join(FOLDER).join(STATE)).ok()?;
        let state: Self = serde_json::from_str(&text).ok()?;
        (state.schema_version == SCHEMA_VERSION).then_some(state)
    }

    /// Puts the rest of a checkpoint into a learner and its update.
    ///
    /// # Errors
    ///
    /// A damaged file; learner and update are not to be used then.
    pub(crate) fn load(
        &self,
        path: &Path,
        learner: &mut dyn TaskLearner,
        optimizer: &mut Optimizer,
    ) -> Result<()> {
        let folder = path.join(FOLDER);
        learner.load_theta(&folder.join(THETA))?;
        learner.carry(load_carried(&folder.join(CARRIED))?);
        optim::load_state(optimizer, &folder.join(OPTIMIZER)).map_err(TrainError::Update)?;
        if optimizer.steps_done() != self.step {
            return Err(TrainError::CheckpointMixed {
                path: path.to_owned(),
            });
        }
        Ok(())
    }
}

/// Writes the model as it is evaluated, in one step: what the run results in, and theta, from which it is taken up again.
///
/// Nothing of it stays in memory: of a run that trains whole weights it would be a copy of the model.
pub(crate) fn save_best(
    learner: &dyn TaskLearner,
    optimizer: &Optimizer,
    path: &Path,
) -> Result<()> {
    let directory = AtomicDirectory::create(path)?;
    learner.save(At::evaluated(learner, optimizer), directory.path())?;
    let theta = make_folder(directory.path())?.join(THETA);
    learner.save_theta(At::evaluated(learner, optimizer), &theta)?;
    Ok(directory.commit()?)
}

/// Returns the file of theta of what [`save_best`] wrote.
pub(crate) fn theta_of(path: &Path) -> PathBuf {
    path.join(FOLDER).join(THETA)
}

/// Writes what a step has left; nothing if that is nothing.
fn save_carried(carried: &Carried, path: &Path) -> Result<()> {
    if carried.is_empty() {
        return Ok(());
    }
    let numbers = carried.iter().map(|(name, data)| {
        let values: Vec<f32> = data.iter::<f32>().collect();
        (name, data.shape().to_vec(), values)
    });
    let numbers: Vec<_> = numbers.collect();
    let tensors: Vec<TensorToWrite<'_>> = numbers
        .iter()
        .map(|(name, shape, values)| TensorToWrite::f32(name, shape, values))
        .collect();
    write_safetensors(path, &tensors, &BTreeMap::new())?;
    Ok(())
}

/// Reads what [`save_carried`] wrote.
fn load_carried(path: &Path) -> Result<Carried> {
    if !file::is_there(path)? {
        return Ok(Carried::new());
    }
    let stored = Checkpoint::open_file(path)?;
    let tensors = stored.tensors().map(|(name, tensor)| {
        let values = tensor.to_finite_f32_vec()?;
        Ok((
            name.to_owned(),
            TensorData::new(values, tensor.shape.to_vec()),
        ))
    });
    tensors.collect()
}

fn make_folder(directory: &Path) -> Result<PathBuf> {
    let folder = directory.join(FOLDER);
    fs::create_dir(&folder).map_err(|error| FormatError::io("create", &folder, error))?;
    Ok(folder)
}
