use std::collections::BTreeMap;
use std::fs;

use half::{bf16, f16};
use proptest::prelude::*;
use reparam_formats::FormatError;
use reparam_formats::checkpoint::{Checkpoint, Dtype};
use reparam_formats::safetensors::{TensorData, TensorToWrite, write_safetensors};

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}

#[test]
fn bytes_are_those_of_the_reference() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.safetensors");
    let values: Vec<f32> = (0..24).map(|i| i as f32 / 3.0).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let shapes: [(&str, Vec<usize>); 3] = [
        ("a \"quoted\" name", vec![2, 3, 4]),
        ("b", vec![24]),
        ("é", vec![4, 6]),
    ];
    let ours: Vec<_> = shapes
        .iter()
        .map(|(n, s)| TensorToWrite::f32(n, s, &values))
        .collect();
    write_safetensors(&path, &ours, &metadata()).unwrap();

    let views = shapes.iter().map(|(name, shape)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), &bytes);
        (*name, view.unwrap())
    });
    let info = metadata().into_iter().collect();
    let reference = safetensors::serialize(views, Some(info)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), reference);
}

#[test]
fn narrow_types_round_to_nearest() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.safetensors");
    // More than one chunk of the converter, with a rest.
    let values: Vec<f32> = (0..9001)
        .map(|i| (i as f32 - 4500.0) * 0.123_456_7)
        .collect();
    let shape = [values.len()];
    let as_dtype = |name, dtype| TensorToWrite {
        name,
        shape: &shape,
        data: TensorData::Values(&values, dtype),
    };
    let raw = [1_u8, 2, 3, 4];
    let tensors = [
        as_dtype("bf16", Dtype::BF16),
        as_dtype("f16", Dtype::F16),
        as_dtype("f64", Dtype::F64),
        TensorToWrite {
            name: "raw",
            shape: &[2],
            data: TensorData::Bytes(&raw, Dtype::I16),
        },
    ];
    write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let read = Checkpoint::open_file(&path).unwrap();
    let get = |name: &str| read.get(name).unwrap();
    assert_eq!(
        (get("bf16").dtype, get("f64").dtype),
        (Dtype::BF16, Dtype::F64)
    );
    let rounded = |round: fn(f32) -> f32| values.iter().map(|v| round(*v)).collect::<Vec<_>>();
    assert_eq!(
        get("bf16").to_f32_vec().unwrap(),
        rounded(|v| bf16::from_f32(v).to_f32())
    );
    assert_eq!(
        get("f16").to_f32_vec().unwrap(),
        rounded(|v| f16::from_f32(v).to_f32())
    );
    assert_eq!(get("f64").to_f32_vec().unwrap(), values);
    let bytes = get("raw").bytes().unwrap();
    assert_eq!((get("raw").dtype, &bytes[..]), (Dtype::I16, &raw[..]));
}

#[test]
fn inconsistent_tensors_are_refused_before_the_target_is_touched() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.safetensors");
    fs::write(&path, b"old").unwrap();
    let values = [1.0, 2.0];
    let good = TensorToWrite::f32("a", &[2], &values);
    let cases: [&[TensorToWrite<'_>]; 6] = [
        &[TensorToWrite::f32("a", &[3], &values)],
        &[TensorToWrite::f32("a", &[usize::MAX, 2], &values)],
        &[good, good],
        &[TensorToWrite::f32("__metadata__", &[2], &values)],
        &[TensorToWrite {
            name: "a",
            shape: &[2],
            data: TensorData::Values(&values, Dtype::I32),
        }],
        &[TensorToWrite {
            name: "a",
            shape: &[1],
            data: TensorData::Bytes(&[0; 3], Dtype::F32),
        }],
    ];
    for tensors in cases {
        let error = write_safetensors(&path, tensors, &BTreeMap::new()).unwrap_err();
        assert!(
            matches!(error, FormatError::InvalidTensor { .. }),
            "{error:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}

proptest! {
    // Every case flushes files to the disk, which takes milliseconds.
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_is_read_here_and_by_the_reference(
        tensors in proptest::collection::btree_map(
            ".{1,12}",
            proptest::collection::vec(0_usize..5, 0..4),
            0..6,
        ),
        seed in any::<u32>(),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.safetensors");
        prop_assume!(!tensors.contains_key("__metadata__"));
        let values: Vec<Vec<f32>> = tensors
            .values()
            .map(|shape| {
                let n: usize = shape.iter().product();
                // Any bits at all, NaNs too: nothing may be changed.
                (0..n as u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761) ^ seed)).collect()
            })
            .collect();
        let to_write: Vec<_> = tensors
            .iter()
            .zip(&values)
            .map(|((name, shape), values)| TensorToWrite::f32(name, shape, values))
            .collect();
        write_safetensors(&path, &to_write, &metadata()).unwrap();
        let bytes = fs::read(&path).unwrap();
        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let read = Checkpoint::open_file(&path).unwrap();
        prop_assert_eq!(read.names().count(), tensors.len());
        prop_assert_eq!(reference.len(), tensors.len());
        for ((name, shape), values) in tensors.iter().zip(&values) {
            let view = read.expect(name, shape).unwrap();
            let expected: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            prop_assert_eq!(&view.bytes().unwrap(), &expected);
            prop_assert_eq!(reference.tensor(name).unwrap().data(), &expected[..]);
            let bits = view.to_f32_vec().unwrap().into_iter().map(f32::to_bits);
            prop_assert!(bits.eq(values.iter().map(|v| v.to_bits())));
        }
        write_safetensors(&path, &to_write, &metadata()).unwrap();
        prop_assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
