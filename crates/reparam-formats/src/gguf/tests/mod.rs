//! What is written, read back by a reader of its own.

mod adapter;
mod model;
mod tokenizer;

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};

use super::GgufValue;

/// A file that was read.
#[derive(Debug)]
struct File {
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, Read>,
}

/// A tensor that was read, with its numbers widened.
#[derive(Debug)]
struct Read {
    shape: Vec<usize>,
    kind: u32,
    values: Vec<f64>,
}

struct Cursor<'a>(&'a [u8], usize);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let part = self.0[self.1..self.1 + N].try_into().expect("bytes");
        self.1 += N;
        part
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn text(&mut self) -> String {
        let len = self.u64() as usize;
        let text = self.0[self.1..self.1 + len].to_vec();
        self.1 += len;
        String::from_utf8(text).expect("text")
    }

    fn value(&mut self) -> GgufValue {
        match self.u32() {
            4 => GgufValue::U32(self.u32()),
            6 => GgufValue::F32(f32::from_le_bytes(self.take())),
            7 => GgufValue::Bool(self.take::<1>() == [1]),
            8 => GgufValue::Text(self.text()),
            9 => {
                let (kind, len) = (self.u32(), self.u64());
                match kind {
                    5 => GgufValue::I32s((0..len).map(|_| self.u32().cast_signed()).collect()),
                    6 => {
                        let value = |_| f32::from_le_bytes(self.take());
                        GgufValue::F32s((0..len).map(value).collect())
                    }
                    8 => GgufValue::Texts((0..len).map(|_| self.text()).collect()),
                    kind => panic!("an array of {kind}"),
                }
            }
            kind => panic!("a value of {kind}"),
        }
    }
}

fn read(path: &Path) -> File {
    let bytes = std::fs::read(path).expect("a file");
    let mut cursor = Cursor(&bytes, 0);
    assert_eq!(&cursor.take::<4>(), b"GGUF");
    assert_eq!(cursor.u32(), 3);
    let (n_tensors, n_values) = (cursor.u64(), cursor.u64());
    let metadata = (0..n_values)
        .map(|_| (cursor.text(), cursor.value()))
        .collect();
    let mut entries = Vec::new();
    for _ in 0..n_tensors {
        let name = cursor.text();
        let rank = cursor.u32();
        let mut shape: Vec<usize> = (0..rank).map(|_| cursor.u64() as usize).collect();
        shape.reverse();
        entries.push((name, shape, cursor.u32(), cursor.u64() as usize));
    }
    let data = &bytes[cursor.1.next_multiple_of(32)..];
    assert!(data.len().is_multiple_of(32));
    let mut tensors = BTreeMap::new();
    for (name, shape, kind, offset) in entries {
        assert!(offset.is_multiple_of(32), "{name}");
        let n: usize = shape.iter().product();
        let at = |index: usize| &data[offset + index..];
        let pair = |index: usize| -> [u8; 2] { at(2 * index)[..2].try_into().expect("bytes") };
        let value = |index: usize| match kind {
            0 => f64::from(f32::from_le_bytes(
                at(4 * index)[..4].try_into().expect("bytes"),
            )),
            1 => f16::from_le_bytes(pair(index)).to_f64(),
            30 => bf16::from_le_bytes(pair(index)).to_f64(),
            8 => {
                let block = at(index / 32 * 34);
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f64();
                scale * f64::from(block[2 + index % 32].cast_signed())
            }
            kind => panic!("a tensor of {kind}"),
        };
        let values = (0..n).map(value).collect();
        tensors.insert(
            name,
            Read {
                shape,
                kind,
                values,
            },
        );
    }
    File { metadata, tensors }
}
