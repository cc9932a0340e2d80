//! The operations as plain compositions of Burn operations.
//!
//! Readable, differentiated by Burn, in any float type and on any backend: what the native forms
//! are tested against, and what runs where there is no native form.

use burn::tensor::{DType, Int, Tensor, TensorData, activation};

use crate::{
    Activation, AttentionConfig, DropoutKey, ExpertRows, IGNORE_INDEX, LinearPlan, LowRank,
    RotaryTable, ScoreTerms, Segment, Segments, soft_cap,
};

mod recurrent;
mod state_space;
pub use recurrent::recurrent;
pub use state_space::{causal_conv, selective_scan};

/// See [`crate::linear`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, plan: LinearPlan) -> Tensor<2> {
    let x = match plan.input_scale {
        None => x,
        Some(scale) => x * scale.unsqueeze::<2>(),
    };
    let mut y = x.clone().matmul(weight.transpose());
    for term in plan.low_rank {
        y = y + low_rank(x.clone(), term);
    }
    match plan.output_scale {
        None => y,
        Some(scale) => y * scale.unsqueeze::<2>(),
    }
}

/// One term of a plan, `s (z A') B'`.
pub(crate) fn low_rank(x: Tensor<2>, term: LowRank) -> Tensor<2> {
    let z = term.dropped(&x).unwrap_or(x);
    z.matmul(term.a.transpose()).matmul(term.b.transpose()) * term.scaling
}

/// See [`crate::expert_linear`].
pub fn expert_linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    low_rank: Option<LowRank>,
    rows: &ExpertRows,
) -> Tensor<2> {
    let n_experts = rows.n_experts();
    let d_out = weight.dims()[0] / n_experts;
    let parts = rows.used().map(|(expert, rows)| {
        let x = x.clone().narrow(0, rows.start, rows.len());
        let own = weight.clone().narrow(0, expert * d_out, d_out);
        let y = x.clone().matmul(own.transpose());
        let Some(term) = &low_rank else { return y };
        let rank = term.a.dims()[0] / n_experts;
        let b = term.b.clone().reshape([d_out, rank, n_experts]);
        let own = LowRank {
            a: term.a.clone().narrow(0, expert * rank, rank),
            b: b.narrow(2, expert, 1).reshape([d_out, rank]),
            ..term.clone()
        };
        y + self::low_rank(x, own)
    });
    let parts: Vec<Tensor<2>> = parts.collect();
    match parts.is_empty() {
        true => x.matmul(weight.narrow(0, 0, d_out).transpose()),
        false => Tensor::cat(parts, 0),
    }
}

/// `sqrt(square + eps)`, and NaN where the square overflowed: dividing by infinity would make zeros of it, as if it were a number.
fn deviation(square: Tensor<2>, eps: f32) -> Tensor<2> {
    (square.clone() + eps).sqrt() + square * 0.0
}

/// See [`crate::rms_norm`].
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f32) -> Tensor<2> {
    let mean_square = (x.clone() * x.clone()).mean_dim(1);
    x / deviation(mean_square, eps) * weight.unsqueeze::<2>()
}

/// See [`crate::layer_norm`].
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f32) -> Tensor<2> {
    let off = x.clone() - x.mean_dim(1);
    let variance = (off.clone() * off.clone()).mean_dim(1);
    off / deviation(variance, eps) * weight.unsqueeze::<2>() + bias.unsqueeze::<2>()
}

/// See [`crate::activation`].
pub fn activation(x: Tensor<2>, function: Activation) -> Tensor<2> {
    match function {
        Activation::Silu => activation::silu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => {
            let cube = x.clone() * x.clone() * x.clone();
            let inner = (x.clone() + cube * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
            x * 0.5 * (inner.tanh() + 1.0)
        }
        Activation::Relu => activation::relu(x),
    }
}

/// See [`crate::swiglu`].
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

/// See [`crate::rotary`].
pub fn rotary(x: Tensor<2>, table: &RotaryTable) -> Tensor<2> {
    let [n, width] = x.dims();
    let (turned, head_dim) = (table.turned, table.head_dim);
    let half = turned / 2;
    let device = x.device();
    let dtype = x.dtype();
    let table_tensor = |values: &[f32]| {
        let data = TensorData::new(values.to_vec(), [n, 1, half]);
        Tensor::<3>::from_data(data.convert_dtype(dtype), (&device, dtype))
    };
    let (cos, sin) = (table_tensor(&table.cos), table_tensor(&table.sin));
    let heads = width / head_dim;
    let x = x.reshape([n, heads, head_dim]);
    let rotated = x.clone().narrow(2, 0, turned);
    // The two of each pair, `[n, heads, half]`: of neighbours the columns of `[half, 2]`, else the rows of `[2, half]`.
    let (shape, axis) = match table.interleaved {
        true => ([n, heads, half, 2], 3),
        false => ([n, heads, 2, half], 2),
    };
    let pairs = rotated.reshape(shape);
    let one = |which: usize| {
        pairs
            .clone()
            .narrow(axis, which, 1)
            .reshape([n, heads, half])
    };
    let (first, second) = (one(0), one(1));
    let turned_pairs = [
        first.clone() * cos.clone() - second.clone() * sin.clone(),
        second * cos + first * sin,
    ];
    let rotated = Tensor::stack::<4>(turned_pairs.to_vec(), axis).reshape([n, heads, turned]);
    let mut parts = vec![rotated];
    if turned < head_dim {
        parts.push(x.narrow(2, turned, head_dim - turned));
    }
    Tensor::cat(parts, 2).reshape([n, width])
}

/// See [`crate::attention`].
///
/// Forms the score matrix of one segment at a time.
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    config: AttentionConfig,
    segments: &Segments,
) -> Tensor<2> {
    attention_with_dropout(q, k, v, config, segments, None)
}

/// See [`crate::attention_with_dropout`]; the segments are in the order of their queries.
pub fn attention_with_dropout(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    config: AttentionConfig,
    segments: &Segments,
    dropout: Option<(f32, DropoutKey)>,
) -> Tensor<2> {
    let terms = ScoreTerms::default();
    attention_with([q, k, v], terms, config, segments, dropout)
}

/// See [`crate::attention_with`]; the segments are in the order of their queries.
pub fn attention_with(
    [q, k, v]: [Tensor<2>; 3],
    terms: ScoreTerms,
    config: AttentionConfig,
    segments: &Segments,
    dropout: Option<(f32, DropoutKey)>,
) -> Tensor<2> {
    let sizes = segments
        .iter()
        .map(|segment| config.n_heads * segment.q_len * segment.k_len);
    let mut mask = dropout.map(|(p, key)| crate::dropout::mask(sizes.sum(), p, key).into_iter());
    let [n, width] = q.dims();
    let device = q.device();
    let dtype = q.dtype();
    let mut rows = Vec::new();
    let mut next = 0;
    for segment in segments.iter() {
        if segment.q_start > next {
            rows.push(Tensor::zeros(
                [segment.q_start - next, width],
                (&device, dtype),
            ));
        }
        next = segment.q_start + segment.q_len;
        let inputs = [q.clone(), k.clone()];
        let mut weights = attention_weights(inputs, terms.clone(), config, segment);
        if let Some(mask) = &mut mask {
            let shape = weights.dims();
            let mask = mask.by_ref().take(shape.iter().product()).collect();
            let mask = TensorData::new(mask, shape).convert_dtype(dtype);
            weights = weights * Tensor::from_data(mask, (&device, dtype));
        }
        let out = weights.matmul(shared_heads(v.clone(), config, segment));
        rows.push(out.swap_dims(0, 1).reshape([segment.q_len, width]));
    }
    if next < n {
        rows.push(Tensor::zeros([n - next, width], (&device, dtype)));
    }
    Tensor::cat(rows, 0)
}

/// Where the distance of every query and key of a segment is in a row of `width` distances, query by query.
fn distances(width: usize, segment: &Segment) -> Vec<i64> {
    let (q_len, k_len) = (segment.q_len, segment.k_len);
    (0..q_len)
        .flat_map(|i| (0..k_len).map(move |j| (width / 2 + j + q_len) as i64 - (k_len + i) as i64))
        .collect()
}

/// The numbers of a bias by distance for every pair of a segment, `[heads, q_len, k_len]`.
fn biases(bias: Tensor<2>, segment: &Segment) -> Tensor<3> {
    let [heads, width] = bias.dims();
    let (q_len, k_len) = (segment.q_len, segment.k_len);
    let places = TensorData::new(distances(width, segment), [q_len * k_len]);
    let places = Tensor::<1, Int>::from_data(places, &bias.device());
    bias.select(1, places).reshape([heads, q_len, k_len])
}

/// The products of some rows by head, `[heads, len, head_dim]`, with the vectors of distances, `[2 R + 1, heads * head_dim]`: for each
/// row those at its `places`, `[heads, len, places of a row]`.
fn by_distance(rows: Tensor<3>, vectors: Tensor<2>, places: Vec<i64>) -> Tensor<3> {
    let [n_heads, len, head_dim] = rows.dims();
    let [n, _] = vectors.dims();
    let products = rows.matmul(heads(vectors, (0, n), n_heads, head_dim).swap_dims(1, 2));
    let of_row = places.len() / len;
    let places = TensorData::new(places, [1, len, of_row]);
    let places = Tensor::<3, Int>::from_data(places, &products.device());
    products.gather(2, places.repeat_dim(0, n_heads))
}

/// How much each query of a segment looks at each key, `[n_heads, q_len, k_len]`: of a query, all together are one.
///
/// # Shapes
///
/// - q: `[N, n_heads * head_dim]`, k: `[M, n_kv_heads * head_dim]`
pub fn attention_weights(
    [q, k]: [Tensor<2>; 2],
    terms: ScoreTerms,
    config: AttentionConfig,
    segment: &Segment,
) -> Tensor<3> {
    let (device, dtype) = (q.device(), q.dtype());
    let (q_len, k_len) = (segment.q_len, segment.k_len);
    let q = heads(q, (segment.q_start, q_len), config.n_heads, config.head_dim);
    let k = shared_heads(k, config, segment);
    let mut scores = q.clone().matmul(k.clone().swap_dims(1, 2));
    if let Some(vectors) = terms.keys {
        let places = distances(vectors.dims()[0], segment);
        scores = scores + by_distance(q, vectors, places);
    }
    if let Some(vectors) = terms.queries {
        let of_queries = distances(vectors.dims()[0], segment);
        let of_key = |j: usize| of_queries[j..].iter().step_by(k_len).copied();
        let places = (0..k_len).flat_map(of_key).collect();
        scores = scores + by_distance(k, vectors, places).swap_dims(1, 2);
    }
    scores = scores * config.scale;
    if let Some(bias) = terms.bias {
        scores = scores + biases(bias, segment);
    }
    if let Some(cap) = config.soft_cap {
        scores = (scores / cap).tanh() * cap;
    }
    if config.causal || config.window.is_some() {
        scores = scores + mask_bias(config, q_len, k_len, &device, dtype);
    }
    activation::softmax(scores, 2)
}

/// Some rows by head, `[n_heads, len, head_dim]`.
fn heads(x: Tensor<2>, (start, len): (usize, usize), n_heads: usize, head_dim: usize) -> Tensor<3> {
    let rows = x.narrow(0, start, len);
    rows.reshape([len, n_heads, head_dim]).swap_dims(0, 1)
}

/// The keys or values of a segment for each head of the queries.
fn shared_heads(x: Tensor<2>, config: AttentionConfig, segment: &Segment) -> Tensor<3> {
    let rows = (segment.k_start, segment.k_len);
    heads(x, rows, config.n_kv_heads, config.head_dim)
        .unsqueeze_dim::<4>(1)
        .repeat_dim(1, config.n_heads / config.n_kv_heads)
        .reshape([config.n_heads, segment.k_len, config.head_dim])
}

/// Zero where a query may see a key, a very negative number elsewhere, `[1, q_len, k_len]`.
fn mask_bias(
    config: AttentionConfig,
    q_len: usize,
    k_len: usize,
    device: &burn::tensor::Device,
    dtype: DType,
) -> Tensor<3> {
    // Finite, so that a fully masked row cannot turn into NaN in half precision either.
    const MASKED: f32 = -6e4;
    let window = config.window.unwrap_or(usize::MAX);
    let bias: Vec<f32> = (0..q_len)
        .flat_map(|i| (0..k_len).map(move |j| (i + k_len, j + q_len)))
        .map(|(query, key)| {
            let sees = query.abs_diff(key) < window && (key <= query || !config.causal);
            if sees { 0.0 } else { MASKED }
        })
        .collect();
    let data = TensorData::new(bias, [1, q_len, k_len]).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

/// See [`crate::embedding`].
pub fn embedding(table: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let ids =
        Tensor::<1, Int>::from_data(TensorData::new(ids.clone(), [ids.len()]), &table.device());
    table.select(0, ids)
}

/// See [`crate::linear_cross_entropy`].
pub fn linear_cross_entropy(
    h: Tensor<2>,
    weight: Tensor<2>,
    cap: Option<f32>,
    labels: &[i32],
    scale: f32,
) -> Tensor<1> {
    let device = h.device();
    let (rows, targets): (Vec<i64>, Vec<i64>) = labels
        .iter()
        .enumerate()
        .filter(|&(_, &label)| label != IGNORE_INDEX)
        .map(|(row, &label)| (row as i64, i64::from(label)))
        .unzip();
    let n_labelled = rows.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n_labelled]), &device);
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [n_labelled, 1]), &device);
    let mut logits = h.select(0, rows).matmul(weight.transpose());
    if let Some(cap) = cap {
        logits = soft_cap(logits, cap);
    }
    let log_probabilities = activation::log_softmax(logits, 1);
    log_probabilities.gather(1, targets).sum() * (-scale)
}
