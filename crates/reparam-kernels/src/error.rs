//! What a kernel refuses, with the numbers that it refused.

use crate::Isa;

/// Why a kernel did not run.
///
/// A kernel that returns an error has not read or written anything beyond what it needed to find
/// the error, unless its documentation says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice does not have the length that the shapes ask for.
    #[error("`{name}` has {found} elements but the shapes ask for {expected}")]
    Length {
        /// The argument.
        name: &'static str,
        /// Elements that the shapes ask for.
        expected: usize,
        /// Elements that the slice has.
        found: usize,
    },

    /// A product of dimensions does not fit into `usize`.
    #[error("the number of elements of `{name}` does not fit into the address space")]
    Overflow {
        /// The argument.
        name: &'static str,
    },

    /// A strided view reaches beyond its slice.
    #[error(
        "a {rows} x {cols} view with strides {row_stride} and {col_stride} reaches beyond its \
         slice of {found} elements"
    )]
    View {
        /// Rows of the view.
        rows: usize,
        /// Columns of the view.
        cols: usize,
        /// Elements between two rows.
        row_stride: usize,
        /// Elements between two columns.
        col_stride: usize,
        /// Elements that the slice has.
        found: usize,
    },

    /// A mutable view in which two indices may name the same element.
    #[error(
        "a mutable {rows} x {cols} view with strides {row_stride} and {col_stride} overlaps itself"
    )]
    OverlappingView {
        /// Rows of the view.
        rows: usize,
        /// Columns of the view.
        cols: usize,
        /// Elements between two rows.
        row_stride: usize,
        /// Elements between two columns.
        col_stride: usize,
    },

    /// The shapes of a matrix product do not fit together.
    #[error(
        "cannot multiply {a_rows} x {a_cols} by {b_rows} x {b_cols} into {dst_rows} x {dst_cols}"
    )]
    MatmulShapes {
        /// Rows of the left factor.
        a_rows: usize,
        /// Columns of the left factor.
        a_cols: usize,
        /// Rows of the right factor.
        b_rows: usize,
        /// Columns of the right factor.
        b_cols: usize,
        /// Rows of the destination.
        dst_rows: usize,
        /// Columns of the destination.
        dst_cols: usize,
    },

    /// Query heads cannot be divided among the key heads.
    #[error("{n_heads} query heads cannot be shared by {n_kv_heads} key heads")]
    Heads {
        /// Query heads.
        n_heads: usize,
        /// Key and value heads.
        n_kv_heads: usize,
    },

    /// The rotary embedding turns pairs, so a head needs an even width.
    #[error("a head of {head_dim} numbers cannot be split into two halves")]
    OddHeadDim {
        /// Numbers of one head.
        head_dim: usize,
    },

    /// A dimension that must not be zero is zero.
    #[error("`{name}` must not be zero")]
    Zero {
        /// The dimension.
        name: &'static str,
    },

    /// A number that must be greater than zero, and finite, is not.
    #[error("`{name}` must be a positive number")]
    NotPositive {
        /// The argument.
        name: &'static str,
    },

    /// Two outputs in one buffer of rows would share columns.
    #[error(
        "`{first}` at columns {} to {} and `{second}` at columns {} to {} share columns",
        first_columns.0, first_columns.1, second_columns.0, second_columns.1
    )]
    ColumnsOverlap {
        /// The one output.
        first: &'static str,
        /// Its first column and one past its last.
        first_columns: (usize, usize),
        /// The other output.
        second: &'static str,
        /// Its first column and one past its last.
        second_columns: (usize, usize),
    },

    /// A segment reaches beyond the queries or keys.
    #[error(
        "segment {index} ends at query {q_end} and key {k_end}, but there are {n_queries} queries \
         and {n_keys} keys"
    )]
    SegmentBounds {
        /// Position in the list of segments.
        index: usize,
        /// One past its last query.
        q_end: usize,
        /// One past its last key.
        k_end: usize,
        /// Queries that exist.
        n_queries: usize,
        /// Keys that exist.
        n_keys: usize,
    },

    /// A segment of a causal shape, or of one with a window, has more queries than keys, so that its
    /// first queries would have no position.
    #[error("segment {index} has {q_len} queries but only {k_len} keys")]
    SegmentLengths {
        /// Position in the list of segments.
        index: usize,
        /// Queries of the segment.
        q_len: usize,
        /// Keys of the segment.
        k_len: usize,
    },

    /// Two segments share a query or, in a backward pass, a key.
    #[error("segments {first} and {second} share {what} {position}")]
    SegmentOverlap {
        /// Position of the one segment in the list.
        first: usize,
        /// Position of the other segment.
        second: usize,
        /// `query` or `key`.
        what: &'static str,
        /// The first shared position.
        position: usize,
    },

    /// Bounds of sequences do not begin at 0, or decrease.
    #[error(
        "bound {index} is {bound}, but bounds begin at 0 and do not decrease; before it is {before}"
    )]
    Bounds {
        /// Position in the list of bounds.
        index: usize,
        /// The bound.
        bound: usize,
        /// The one before it, or 0.
        before: usize,
    },

    /// A label is neither a token of the vocabulary nor the ignore value.
    #[error("label {label} at position {position} is not in a vocabulary of {vocabulary}")]
    Label {
        /// Index into the labels.
        position: usize,
        /// The label.
        label: i32,
        /// Tokens of the vocabulary.
        vocabulary: usize,
    },

    /// A token id is not a row of the table.
    #[error("token id {id} at position {position} is not in a vocabulary of {vocabulary}")]
    TokenId {
        /// Index into the ids.
        position: usize,
        /// The id.
        id: u32,
        /// Rows of the table.
        vocabulary: usize,
    },

    /// Two arguments that only make sense together were not given together.
    #[error("`{given}` was given without `{missing}`")]
    Unpaired {
        /// The argument that is there.
        given: &'static str,
        /// The argument that it needs.
        missing: &'static str,
    },

    /// The machine does not have this instruction set.
    #[error("this machine cannot run `{isa}`; it can run {}", list(available))]
    IsaUnavailable {
        /// What was asked for.
        isa: Isa,
        /// What the machine has, slowest first.
        available: Vec<Isa>,
    },

    /// No instruction set has this name.
    #[error(
        "`{name}` is not an instruction set; this machine can run {}",
        list(available)
    )]
    IsaUnknown {
        /// What was asked for.
        name: String,
        /// What the machine has, slowest first.
        available: Vec<Isa>,
    },
}

impl KernelError {
    /// Says what to do about the error, where there is something that a user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::IsaUnavailable { available, .. } | Self::IsaUnknown { available, .. } => {
                Some(format!(
                    "choose one of {}, or leave the choice to the program",
                    list(available)
                ))
            }
            Self::Label { vocabulary, .. } | Self::TokenId { vocabulary, .. } => Some(format!(
                "the tokenizer does not belong to this model: its ids must be below {vocabulary}"
            )),
            Self::Heads { n_kv_heads, .. } => Some(format!(
                "the number of attention heads must be a multiple of {n_kv_heads}"
            )),
            Self::OddHeadDim { .. } => Some("use an even head dimension".to_owned()),
            Self::SegmentLengths { .. } => Some(
                "a causal segment, or one with a window, needs at least as many keys as queries: keys \
                 of the past come first, then one for each query"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn list(isas: &[Isa]) -> String {
    isas.iter()
        .map(|isa| format!("`{isa}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Refuses a slice whose length is not the product of `dims`.
pub(crate) fn check_len<T>(
    name: &'static str,
    slice: &[T],
    dims: &[usize],
) -> Result<(), KernelError> {
    let expected = elements(name, dims)?;
    if slice.len() == expected {
        Ok(())
    } else {
        Err(KernelError::Length {
            name,
            expected,
            found: slice.len(),
        })
    }
}

/// The product of `dims`, or an error if it overflows.
pub(crate) fn elements(name: &'static str, dims: &[usize]) -> Result<usize, KernelError> {
    dims.iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim))
        .ok_or(KernelError::Overflow { name })
}
