//! Where slices begin changes no bit, and nothing around them is written.

use super::{numbers, tokens_with_tiles};
use crate::Bf16;
use crate::activation::{Activation, activation_backward, activation_forward};
use crate::attention::{
    AttentionSaved, AttentionSavedBf16, AttentionShape, QkvGradient, Rows, Segment,
    attention_backward, attention_backward_bf16, attention_forward, attention_forward_bf16,
};
use crate::causal_conv::{ConvShape, causal_conv_backward, causal_conv_forward};
use crate::cross_entropy::{IGNORE, linear_cross_entropy};
use crate::embedding::{embedding_backward, embedding_forward, embedding_packed};
use crate::gated::{GatedRows, gated_backward_in_place, gated_forward};
use crate::isa::Token;
use crate::layer_norm::{layer_norm_backward, layer_norm_backward_add, layer_norm_forward};
use crate::matmul::{MatMut, MatRef, matmul};
use crate::number::{Number, add};
use crate::packed::{
    self, Direction, Epilogue, Matrix, MatrixMut, PackedWeight, Values, ValuesMut,
};
use crate::rms_norm::{rms_norm_backward, rms_norm_backward_add, rms_norm_forward};
use crate::rotary::{Heads, rotary_rows};
use crate::selective_scan::{
    ScanGrads, ScanInputs, ScanShape, selective_scan_backward, selective_scan_forward,
};
use crate::swiglu::{swiglu_backward, swiglu_forward};

/// Numbers in a buffer that holds sevens before and behind them.
struct Within<T> {
    buffer: Vec<T>,
    start: usize,
    end: usize,
}

impl<T: Number> Within<T> {
    fn new(values: &[f32], start: usize) -> Self {
        let end = start + values.len();
        let mut buffer = vec![T::from_f32(7.0); end + 16];
        for (to, value) in buffer[start..end].iter_mut().zip(values) {
            *to = T::from_f32(*value);
        }
        Self { buffer, start, end }
    }

    fn get(&self) -> &[T] {
        &self.buffer[self.start..self.end]
    }

    fn get_mut(&mut self) -> &mut [T] {
        &mut self.buffer[self.start..self.end]
    }
}

/// Makes buffers whose numbers begin at different places.
struct Places {
    token: Token,
    by: usize,
    made: usize,
    /// The bits of all outputs.
    bits: Vec<u32>,
}

impl Places {
    fn input<T: Number>(&mut self, len: usize) -> Within<T> {
        self.made += 1;
        // Odd steps, so that no two buffers begin alike for every `by`.
        let start = self.by * (2 * self.made + 1) % 16;
        Within::new(&numbers(self.made as u64, len), start)
    }

    /// What an output holds before does not matter unless it is added to.
    fn keep<T: Number>(&mut self, output: Within<T>) {
        let Within { start, end, .. } = output;
        for (i, x) in output.buffer.iter().enumerate() {
            if (start..end).contains(&i) {
                self.bits.push(x.to_f32().to_bits());
            } else {
                assert_eq!(
                    x.to_f32(),
                    7.0,
                    "{}: {i} of {start}..{end}",
                    self.token.isa()
                );
            }
        }
    }

    fn rows<T: Number>(&mut self) {
        // Four groups, one more, and an incomplete one.
        let (n, d) = (3, 83);
        let [x, dy] = [0; 2].map(|_| self.input::<T>(n * d));
        let [mut y, mut dx, mut added] = [0; 3].map(|_| self.input::<T>(n * d));
        let [weight, bias] = [0; 2].map(|_| self.input::<f32>(d));
        let [mut dweight, mut dbias] = [0; 2].map(|_| self.input::<f32>(d));
        let [mut mean, mut inv] = [0; 2].map(|_| self.input::<f32>(n));

        let (x, dy, w) = (x.get(), dy.get(), weight.get());
        rms_norm_forward(x, w, 1e-5, y.get_mut(), inv.get_mut()).unwrap();
        let (to, sum) = (dx.get_mut(), Some(dweight.get_mut()));
        rms_norm_backward(dy, x, w, inv.get(), to, sum).unwrap();
        rms_norm_backward_add(dy, x, w, inv.get(), added.get_mut()).unwrap();
        for output in [y, dx] {
            self.keep(output);
        }
        self.keep(dweight);

        let [mut y, mut dx] = [0; 2].map(|_| self.input::<T>(n * d));
        let mut dweight = self.input::<f32>(d);
        let (to, center, kept) = (y.get_mut(), mean.get_mut(), inv.get_mut());
        layer_norm_forward(x, w, Some(bias.get()), 1e-5, to, center, kept).unwrap();
        let sums = (Some(dweight.get_mut()), Some(dbias.get_mut()));
        let (mean_of, inv_of) = (mean.get(), inv.get());
        layer_norm_backward(dy, x, w, mean_of, inv_of, dx.get_mut(), sums.0, sums.1).unwrap();
        layer_norm_backward_add(dy, x, w, mean_of, inv_of, added.get_mut()).unwrap();
        for output in [y, dx, added] {
            self.keep(output);
        }
        for output in [dweight, dbias, mean, inv] {
            self.keep(output);
        }
    }

    fn elements<T: Number>(&mut self) {
        let len = 131;
        let [x, dy] = [0; 2].map(|_| self.input::<T>(len));
        let [mut y, mut dx, mut sum] = [0; 3].map(|_| self.input::<T>(len));
        let kind = Activation::Gelu;
        activation_forward(kind, x.get(), y.get_mut()).unwrap();
        activation_backward(kind, dy.get(), x.get(), dx.get_mut()).unwrap();
        add(x.get(), sum.get_mut()).unwrap();

        let rows = GatedRows {
            inner: 37,
            row_stride: 2 * 37 + 5,
            up_at: 40,
        };
        let (n, behind) = (3, 2 * (2 * 37 + 5) + 77);
        let gate_up = self.input::<T>(behind);
        let mut in_place = self.input::<T>(behind);
        let (dout, mut out) = (self.input::<T>(n * 37), self.input::<T>(n * 37));
        gated_forward(kind, gate_up.get(), rows, out.get_mut()).unwrap();
        let to = Some(out.get_mut());
        gated_backward_in_place(kind, in_place.get_mut(), rows, dout.get(), to).unwrap();

        let heads = Heads {
            row_stride: 2 * 42 + 3,
            n_heads: 2,
            head_dim: 42,
            turned: 42,
            interleaved: false,
        };
        let [cos, sin] = [0; 2].map(|_| self.input::<f32>(3 * 21));
        let mut turned = self.input::<T>(2 * (2 * 42 + 3) + 84);
        rotary_rows(turned.get_mut(), heads, cos.get(), sin.get(), false).unwrap();
        for output in [y, dx, sum, in_place, out, turned] {
            self.keep(output);
        }
    }

    fn over_f32(&mut self) {
        let len = 131;
        let [gate, up, dy] = [0; 3].map(|_| self.input::<f32>(len));
        let [mut y, mut dgate, mut dup] = [0; 3].map(|_| self.input::<f32>(len));
        let (g, u) = (gate.get(), up.get());
        swiglu_forward(g, u, y.get_mut()).unwrap();
        swiglu_backward(dy.get(), g, u, dgate.get_mut(), dup.get_mut()).unwrap();
        for output in [y, dgate, dup] {
            self.keep(output);
        }

        let (n, d, vocabulary) = (5, 19, 83);
        let (h, w) = (self.input::<f32>(n * d), self.input::<f32>(vocabulary * d));
        let (mut dh, mut dw) = (self.input::<f32>(n * d), self.input::<f32>(vocabulary * d));
        let labels = [82, IGNORE, 0, IGNORE, 17];
        let to = (Some(dh.get_mut()), Some(dw.get_mut()));
        let result = linear_cross_entropy(h.get(), w.get(), d, &labels, 0.5, to.0, to.1).unwrap();
        self.bits.push((result.sum as f32).to_bits());
        let mut product = self.input::<f32>(n * vocabulary);
        matmul(
            MatMut::new(product.get_mut(), n, vocabulary).unwrap(),
            MatRef::new(h.get(), n, d).unwrap(),
            MatRef::new(w.get(), vocabulary, d).unwrap().t(),
            1.0,
            1.0,
        )
        .unwrap();

        let ids = [82, 0, 82, 7, 1];
        let (mut rows, mut table) = (self.input::<f32>(n * d), self.input::<f32>(vocabulary * d));
        embedding_forward(&ids, w.get(), d, rows.get_mut()).unwrap();
        embedding_backward(h.get(), &ids, d, table.get_mut()).unwrap();
        for output in [dh, dw, product, rows, table] {
            self.keep(output);
        }
    }

    fn along_sequences(&mut self) {
        // A group of channels and an incomplete one.
        let (tokens, channels, taps, states) = (40, 21, 4, 3);
        let bounds = [0, 35, 40];
        let len = tokens * channels;
        let [x, dt, dy] = [0; 3].map(|_| self.input::<f32>(len));
        let [weight, bias] = [channels * taps, channels].map(|len| self.input::<f32>(len));
        let [mut y, mut dx] = [0; 2].map(|_| self.input::<f32>(len));
        let [mut dweight, mut dbias] = [channels * taps, channels].map(|len| self.input(len));
        let shape = ConvShape {
            channels,
            taps,
            bounds: &bounds,
        };
        let (x, w, b) = (x.get(), weight.get(), Some(bias.get()));
        causal_conv_forward(shape, x, w, b, y.get_mut()).unwrap();
        let to = (dx.get_mut(), dweight.get_mut(), Some(dbias.get_mut()));
        causal_conv_backward(shape, dy.get(), x, w, b, to.0, to.1, to.2).unwrap();
        for output in [y, dx, dweight, dbias] {
            self.keep(output);
        }

        let shape = ScanShape {
            channels,
            states,
            bounds: &bounds,
        };
        let [a, d] = [channels * states, channels].map(|len| self.input::<f32>(len));
        let [b, c] = [0; 2].map(|_| self.input::<f32>(tokens * states));
        let inputs = ScanInputs {
            u: x,
            dt: dt.get(),
            a: a.get(),
            b: b.get(),
            c: c.get(),
            d: d.get(),
        };
        let mut y = self.input::<f32>(len);
        let [mut last, mut kept] =
            [2 * states * channels, shape.kept()].map(|len| self.input::<f32>(len));
        let to = (y.get_mut(), last.get_mut(), Some(kept.get_mut()));
        selective_scan_forward(shape, inputs, None, to.0, to.1, to.2).unwrap();
        let [mut du, mut ddt] = [0; 2].map(|_| self.input::<f32>(len));
        let [mut da, mut dd] = [channels * states, channels].map(|len| self.input::<f32>(len));
        let [mut db, mut dc] = [0; 2].map(|_| self.input::<f32>(tokens * states));
        let grads = ScanGrads {
            du: du.get_mut(),
            ddt: ddt.get_mut(),
            da: da.get_mut(),
            db: db.get_mut(),
            dc: dc.get_mut(),
            dd: dd.get_mut(),
        };
        selective_scan_backward(shape, inputs, dy.get(), kept.get(), grads).unwrap();
        for output in [y, last, kept, du, ddt, da, db, dc, dd] {
            self.keep(output);
        }
    }

    fn packed<T: Number>(&mut self)
    where
        for<'a> Values<'a>: From<&'a [T]>,
        for<'a> ValuesMut<'a>: From<&'a mut [T]>,
    {
        let (m, k, n) = (21, 37, 51);
        let weight = self.input::<T>(n * k);
        let w = PackedWeight::new(Matrix::new(weight.get(), n, k).unwrap()).unwrap();
        let (x, mut y, mut dx) = (
            self.input::<T>(m * k),
            self.input::<T>(m * n),
            self.input::<T>(m * k),
        );
        let bias = self.input::<f32>(n);
        let epilogue = Epilogue {
            bias: Some(bias.get()),
            accumulate: true,
            ..Epilogue::default()
        };
        let left = Matrix::new(x.get(), m, k).unwrap();
        let out = MatrixMut::new(y.get_mut(), m, n).unwrap();
        packed::matmul(left, &w, Direction::Forward, epilogue, out).unwrap();
        let dy = self.input::<T>(m * n);
        let dy = Matrix::new(dy.get(), m, n).unwrap();
        let plain = Epilogue::default();
        let out = MatrixMut::new(dx.get_mut(), m, k).unwrap();
        packed::matmul(dy, &w, Direction::Backward, plain, out).unwrap();
        let mut dw = self.input::<f32>(n * k);
        let out = MatrixMut::new(dw.get_mut(), n, k).unwrap();
        packed::product(dy.t(), left, 0.5, true, out).unwrap();

        let mut rows = self.input::<T>(3 * k);
        embedding_packed(&[50, 0, 16], &w, rows.get_mut()).unwrap();
        let labels: Vec<i32> = (0..m as i32).collect();
        let mut dh = self.input::<Bf16>(m * k);
        let to = Some(dh.get_mut());
        let loss = packed::linear_cross_entropy(left, &w, &labels, 0.5, to).unwrap();
        self.bits.push((loss.sum as f32).to_bits());
        for output in [y, dx, rows] {
            self.keep(output);
        }
        self.keep(dw);
        self.keep(dh);
    }

    fn attention(&mut self) {
        let shape = AttentionShape {
            n_heads: 3,
            n_kv_heads: 1,
            head_dim: 19,
            scale: 0.25,
            causal: true,
            window: Some(20),
            soft_cap: None,
        };
        let (n, q_width, kv_width) = (35, 3 * 19, 19);
        let segments = [Segment::document(0, n)];
        let [q, dout] = [0; 2].map(|_| self.input::<f32>(n * q_width));
        let [k, v] = [0; 2].map(|_| self.input::<f32>(n * kv_width));
        let [mut out, mut dq] = [0; 2].map(|_| self.input::<f32>(n * q_width));
        let [mut dk, mut dv] = [0; 2].map(|_| self.input::<f32>(n * kv_width));
        let mut lse = self.input::<f32>(n * 3);
        let (to, kept) = (out.get_mut(), lse.get_mut());
        attention_forward(q.get(), k.get(), v.get(), shape, &segments, None, to, kept).unwrap();
        let saved = AttentionSaved {
            q: q.get(),
            k: k.get(),
            v: v.get(),
            out: out.get(),
            lse: lse.get(),
            dout: dout.get(),
        };
        let to = (dq.get_mut(), dk.get_mut(), dv.get_mut());
        attention_backward(saved, shape, &segments, None, to.0, to.1, to.2).unwrap();
        for output in [out, lse, dq, dk, dv] {
            self.keep(output);
        }

        let row_stride = q_width + 2 * kv_width;
        let (qkv, dout) = (self.input(n * row_stride), self.input(n * q_width));
        let (mut gradient, mut out) = (self.input(n * row_stride), self.input(n * q_width));
        let mut lse = self.input::<f32>(n * 3);
        let [k_at, v_at] = [q_width, q_width + kv_width];
        let [q, k, v] = [0, k_at, v_at].map(|at| Rows {
            values: &qkv.get()[at..],
            row_stride,
        });
        let (to, kept) = (out.get_mut(), lse.get_mut());
        attention_forward_bf16(q, k, v, shape, &segments, to, kept).unwrap();
        let saved = AttentionSavedBf16 {
            q,
            k,
            v,
            out: out.get(),
            lse: lse.get(),
            dout: dout.get(),
        };
        let to = QkvGradient {
            values: gradient.get_mut(),
            row_stride,
            q_at: 0,
            k_at,
            v_at,
        };
        attention_backward_bf16(saved, shape, &segments, to).unwrap();
        self.keep(out);
        self.keep(lse);
        self.keep(gradient);
    }
}

/// Asserts that all outputs have the same bits wherever the slices begin.
#[track_caller]
fn assert_places_agree(kernels: impl Fn(&mut Places)) {
    for token in tokens_with_tiles() {
        let run = |by| {
            let mut places = Places {
                token,
                by,
                made: 0,
                bits: Vec::new(),
            };
            kernels(&mut places);
            places.bits
        };
        let expected = run(0);
        for by in 1..16 {
            assert!(run(by) == expected, "{} by {by}", token.isa());
        }
    }
}

#[test]
fn norms() {
    assert_places_agree(Places::rows::<f32>);
    assert_places_agree(Places::rows::<Bf16>);
}

#[test]
fn element_by_element() {
    assert_places_agree(Places::elements::<f32>);
    assert_places_agree(Places::elements::<Bf16>);
}

#[test]
fn kernels_over_f32_alone() {
    assert_places_agree(Places::over_f32);
}

#[test]
fn kernels_along_sequences() {
    assert_places_agree(Places::along_sequences);
}

#[test]
fn packed_weights() {
    assert_places_agree(Places::packed::<f32>);
    assert_places_agree(Places::packed::<Bf16>);
}

#[test]
fn attention() {
    assert_places_agree(Places::attention);
}
