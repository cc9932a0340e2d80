//! Token embedding.

use burn::tensor::Tensor;
use reparam_kernels::embedding as kernels;

use crate::native::{self, Operation, from_values, values};
use crate::profile::{self, Work};
use crate::reference;

/// Looks up the rows of a table.
///
/// # Shapes
///
/// - table: `[V, d]`
/// - ids: `N` numbers below `V`
/// - output: `[N, d]`
///
/// # Panics
///
/// Panics when an id is not below `V`; callers check the tokenizer against the table once.
pub fn embedding(table: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    if !native::is_native(&table) {
        return reference::embedding(table, ids);
    }
    let [vocab, d] = table.dims();
    let mut operation = Operation::default();
    let table = operation.input(table);
    let mut out = vec![0.0; ids.len() * d];
    profile::measure(Work::Embedding, 0.0, || {
        native::run(kernels::embedding_forward(ids, values(&table), d, &mut out));
    });
    let ids = ids.to_vec();
    operation.output(from_values(out, [ids.len(), d]), move |dout, [_]| {
        let mut dtable = vec![0.0; vocab * d];
        native::run(kernels::embedding_backward(
            values(&dout),
            &ids,
            d,
            &mut dtable,
        ));
        [Some(from_values(dtable, [vocab, d]))]
    })
}
