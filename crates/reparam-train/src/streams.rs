//! The loss of texts that are read as streams, with the states that go on from step to step.

use burn::tensor::{Device, Int, Tensor, TensorData};
use reparam::ForwardContext;
use reparam_data::{Dataset, Piece};
use reparam_models::{Architecture, CausalLm};
use reparam_ops::RecurrentState;

use crate::evaluate::token_batch;
use crate::learner::Carried;
use crate::{Result, TrainError};

/// Returns the scaled loss of some blocks, one of each stream, and the states after them, a row a block.
///
/// A block whose first piece [continues](Piece::continues) the one of the step before begins with its row of `before`;
/// everything else begins with zeros.
///
/// # Errors
///
/// Those of [`Dataset::batch`].
pub(crate) fn loss(
    model: &CausalLm,
    dataset: &Dataset,
    blocks: &[usize],
    (before, scale): (Vec<RecurrentState>, f32),
    context: &ForwardContext,
) -> Result<(Tensor<1>, Vec<RecurrentState>)> {
    let (mut begin, mut end) = (Vec::new(), Vec::new());
    for (row, block) in blocks.iter().enumerate() {
        let pieces = dataset.blocks[*block].pieces();
        let from = |piece: &Piece| piece.continues().then_some(row);
        begin.extend(pieces.iter().map(from));
        end.push(Some(begin.len() - 1));
    }
    let initial = before.into_iter().map(|state| rows(state, &begin));
    let batch = dataset.batch(blocks)?;
    let (tokens, labels) = (token_batch(&batch), &batch.labels);
    let (loss, states) = model.loss_from(tokens, labels, scale, initial.collect(), context);
    let left = states.into_iter().map(|state| rows(state, &end));
    Ok((loss, left.collect()))
}

/// Returns these rows, zeros for those that are none.
fn rows(state: RecurrentState, which: &[Option<usize>]) -> RecurrentState {
    let of = |x: Tensor<2>| {
        let [n, width] = x.dims();
        let places: Vec<i64> = which.iter().map(|row| row.unwrap_or(n) as i64).collect();
        let places = TensorData::new(places, [which.len()]);
        let places: Tensor<1, Int> = Tensor::from_data(places, &x.device());
        let zeros = Tensor::zeros([1, width], &x.device());
        Tensor::cat(vec![x, zeros], 0).select(0, places)
    };
    RecurrentState {
        h: of(state.h),
        c: state.c.map(of),
    }
}

/// Returns the names of a layer's states of the micro-batch with this number in its step.
fn names(number: u64, layer: usize) -> [String; 2] {
    ["h", "c"].map(|part| format!("{number}.layers.{layer}.{part}"))
}

/// Returns the states that a micro-batch of so many streams has left, one a layer.
///
/// # Errors
///
/// [`TrainError::NoState`].
pub(crate) fn states_of(
    carried: &Carried,
    number: u64,
    streams: usize,
    architecture: &Architecture,
) -> Result<Vec<RecurrentState>> {
    let Some(spec) = &architecture.recurrent else {
        return Ok(Vec::new());
    };
    let find = |name: String| {
        let data = carried.get(&name).filter(|data| {
            matches!(data.shape()[..], [rows, hidden] if rows >= streams && hidden == spec.hidden)
        });
        match data {
            Some(data) => Ok(Tensor::from_data(data.clone(), &Device::flex())),
            None => Err(TrainError::NoState { name }),
        }
    };
    let states = (0..spec.layers.len()).map(|layer| {
        let [h, c] = names(number, layer);
        Ok(RecurrentState {
            h: find(h)?,
            c: spec.cell.has_cell_state().then(|| find(c)).transpose()?,
        })
    });
    states.collect()
}

/// Returns states as what a micro-batch leaves.
pub(crate) fn carried_of(states: Vec<RecurrentState>, number: u64) -> Carried {
    let of_layer = |(layer, state): (usize, RecurrentState)| {
        let tensors = [Some(state.h), state.c].into_iter();
        let named = names(number, layer).into_iter().zip(tensors);
        named.filter_map(|(name, tensor)| Some((name, tensor?.into_data())))
    };
    states.into_iter().enumerate().flat_map(of_layer).collect()
}
