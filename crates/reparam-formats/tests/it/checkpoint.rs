use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use proptest::prelude::*;
use reparam_formats::FormatError;
use reparam_formats::checkpoint::{
    Checkpoint, Dtype, LoadMismatch, TensorView, sha256_bytes, sha256_file,
};
use reparam_formats::safetensors::{TensorData, TensorToWrite, write_safetensors};

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories260K")
}

/// Builds the bytes of a file from a header and data.
fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Opens bytes as a checkpoint of one file.
fn open_bytes(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    Checkpoint::open_file(&path)
}

fn write_shard(path: &Path, tensors: &[(&str, &[usize], &[f32])]) {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(n, s, v)| TensorToWrite::f32(n, s, v))
        .collect();
    write_safetensors(path, &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn the_built_in_model_reads_as_the_reference_reads_it() {
    let checkpoint = Checkpoint::open(&assets()).unwrap();
    let bytes = fs::read(assets().join("model.safetensors")).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(checkpoint.names().count(), reference.len());
    assert!(checkpoint.names().count() > 40);
    let mut n_parameters = 0;
    for (name, view) in checkpoint.tensors() {
        let expected = reference.tensor(name).unwrap();
        assert_eq!(view.dtype.name(), format!("{:?}", expected.dtype()));
        assert_eq!(view.shape, expected.shape());
        assert_eq!(view.bytes().unwrap(), expected.data());
        view.check_finite().unwrap();
        n_parameters += expected.shape().iter().product::<usize>() as u64;
    }
    assert_eq!(checkpoint.total_parameters(), n_parameters);
    assert_eq!(checkpoint.metadata("format"), Some("pt"));
    assert_eq!(checkpoint.files().count(), 1);
}

#[test]
fn a_tensor_reads_the_same_piece_by_piece() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.safetensors");
    let values: Vec<f32> = (0..37_u8).map(|i| f32::from(i) - 0.5).collect();
    let (halves, bytes): (Vec<u8>, Vec<u8>) = (
        values
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect(),
        values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    );
    let header = concat!(
        r#"{"a":{"dtype":"F32","shape":[37],"data_offsets":[0,148]},"#,
        r#""b":{"dtype":"BF16","shape":[37],"data_offsets":[148,222]},"#,
        r#""c":{"dtype":"U8","shape":[2],"data_offsets":[222,224]}}"#,
    );
    fs::write(
        &path,
        file_of(header, &[bytes, halves, vec![1, 2]].concat()),
    )
    .unwrap();
    let checkpoint = Checkpoint::open_file(&path).unwrap();
    for name in ["a", "b"] {
        let stored = checkpoint.require(name).unwrap();
        let mut found = Vec::new();
        for len in [1, 20, 0, 16] {
            let mut piece = vec![0.0; len];
            stored.read_f32(found.len(), &mut piece).unwrap();
            found.extend(piece);
        }
        assert_eq!(found, stored.to_finite_f32_vec().unwrap());
        assert_eq!(found, values);
    }
    let read = |name: &str| checkpoint.require(name)?.read_f32(0, &mut [0.0; 2]);
    assert!(matches!(read("c"), Err(FormatError::NotFloat { .. })));
    assert!(matches!(read("d"), Err(FormatError::NoSuchTensor { .. })));
    // A file that is cut after it was opened.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(300).unwrap();
    for name in ["a", "b"] {
        let error = checkpoint.require(name).unwrap().to_f32_vec();
        let error = error.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("became shorter while it was read"),
            "{error}"
        );
    }
    assert!(checkpoint.sha256_tensors().is_err());
}

/// A tensor of more bytes than are read at a time reads the same as a small one, of every type.
#[test]
fn large_tensors_read_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.safetensors");
    let n = 300_001;
    let values: Vec<f32> = (0..n).map(|i| (i % 251) as f32 - 125.0).collect();
    let shape = [n];
    for dtype in [Dtype::F32, Dtype::F64, Dtype::BF16, Dtype::F16] {
        let tensors = |values| {
            [TensorToWrite {
                name: "w",
                shape: &shape,
                data: TensorData::Values(values, dtype),
            }]
        };
        write_safetensors(&path, &tensors(&values), &BTreeMap::new()).unwrap();
        let checkpoint = Checkpoint::open_file(&path).unwrap();
        let stored = checkpoint.require("w").unwrap();
        assert_eq!(stored.to_f32_vec().unwrap(), values);
        assert_eq!(stored.n_bytes(), n * dtype.size());
        let mut end = [0.0; 3];
        stored.read_f32(n - 3, &mut end).unwrap();
        assert_eq!(end, values[n - 3..]);
        let mut broken = values.clone();
        broken[n - 2] = f32::NAN;
        write_safetensors(&path, &tensors(&broken), &BTreeMap::new()).unwrap();
        let checkpoint = Checkpoint::open_file(&path).unwrap();
        let stored = checkpoint.require("w").unwrap();
        for error in [
            stored.check_finite().unwrap_err(),
            stored.to_finite_f32_vec().unwrap_err(),
        ] {
            assert!(
                matches!(error, FormatError::NonFinite { index, .. } if index == n - 2),
                "{error}"
            );
        }
    }
}

#[test]
fn numbers_beyond_f32_are_named() {
    let header = r#"{"w":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}"#;
    let bytes: Vec<u8> = [1.0_f64, 1e300]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let checkpoint = open_bytes(&file_of(header, &bytes)).unwrap();
    let stored = checkpoint.require("w").unwrap();
    stored.check_finite().unwrap();
    let error = stored.to_finite_f32_vec().unwrap_err();
    assert!(
        matches!(
            error,
            FormatError::BeyondF32 {
                index: 1,
                value: 1e300,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn layers_are_counted() {
    for (names, expected) in [
        (
            &[
                "model.layers.0.a",
                "model.layers.0.b",
                "model.layers.7.a",
                "norm",
            ][..],
            2,
        ),
        (&["h.0.attn.1.w", "h.0.attn.2.w", "h.1.w"], 2),
        (&["a.b", "layer1.w"], 0),
    ] {
        let tensors: Vec<String> = names
            .iter()
            .map(|name| format!(r#""{name}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
            .collect();
        let header = format!("{{{}}}", tensors.join(","));
        let checkpoint = open_bytes(&file_of(&header, &[])).unwrap();
        assert_eq!(checkpoint.n_layers(), expected, "{names:?}");
    }
}

#[test]
fn wrong_and_missing_tensors_are_named() {
    let checkpoint = Checkpoint::open(&assets()).unwrap();
    let name = "model.norm.weight";
    assert_eq!(checkpoint.expect(name, &[64]).unwrap().n_elements(), 64);
    match checkpoint.expect(name, &[63]) {
        Err(FormatError::WrongShape {
            expected,
            found,
            path,
            ..
        }) => {
            assert_eq!((expected, found), (vec![63], vec![64]));
            assert!(path.ends_with("model.safetensors"));
        }
        other => panic!("{other:?}"),
    }
    let error = checkpoint.require("model.norm.weights").unwrap_err();
    assert_eq!(error.hint().unwrap(), "did you mean 'model.norm.weight'?");
}

#[test]
fn a_strict_load_reports_every_difference_at_once() {
    let checkpoint = Checkpoint::open(&assets()).unwrap();
    let mut expected: Vec<(String, Vec<usize>)> = checkpoint
        .tensors()
        .map(|(name, view)| (name.to_owned(), view.shape.to_vec()))
        .collect();
    checkpoint.check_tensors(&expected, |_| false).unwrap();

    for (name, shape) in &mut expected {
        if name == "model.norm.weight" {
            shape[0] = 32;
        }
        *name = name.replace("q_proj", "query");
    }
    let error = checkpoint.check_tensors(&expected, |_| false).unwrap_err();
    let FormatError::Mismatch(mismatch) = &error else {
        panic!("{error:?}")
    };
    let LoadMismatch {
        missing,
        unexpected,
        misshaped,
        ..
    } = &**mismatch;
    assert_eq!(
        (missing.len(), unexpected.len(), misshaped.len()),
        (5, 5, 1)
    );
    assert_eq!(
        mismatch
            .nearest("model.layers.3.self_attn.query.weight")
            .unwrap(),
        "model.layers.3.self_attn.q_proj.weight"
    );
    let text = error.to_string();
    assert!(text.contains("5 missing"), "{text}");
    assert!(
        text.contains("similar: model.layers.0.self_attn.q_proj.weight"),
        "{text}"
    );
    assert!(
        text.contains("model.norm.weight: expected [32], found [64]"),
        "{text}"
    );
    assert!(error.hint().is_some());

    let extra_is_fine = checkpoint.check_tensors(&expected[..1], |_| true);
    extra_is_fine.unwrap();
    let many = checkpoint
        .check_tensors(&[], |_| false)
        .unwrap_err()
        .to_string();
    assert!(many.contains(" more"), "{many}");
    assert_eq!(many.lines().count(), 13, "{many}");
}

#[test]
fn missing_directories_and_weights_are_told_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path();
    let open = || Checkpoint::open(directory).unwrap_err();
    let error = Checkpoint::open(&directory.join("no")).unwrap_err();
    assert!(
        matches!(error, FormatError::NoSuchDirectory { .. }),
        "{error:?}"
    );
    assert!(matches!(open(), FormatError::NoWeights { .. }));
    for pickle in ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"] {
        let path = directory.join(pickle);
        fs::write(&path, b"").unwrap();
        match open() {
            FormatError::PickleOnly { files, .. } => assert_eq!(files, [pickle]),
            other => panic!("{other:?}"),
        }
        assert!(open().hint().unwrap().contains("save_pretrained(NEW_DIR)"));
        fs::remove_file(path).unwrap();
    }
    fs::write(directory.join("adapter_model.safetensors"), b"").unwrap();
    assert!(matches!(open(), FormatError::NoWeights { .. }));
    assert!(open().hint().unwrap().contains("adapter"));
}

#[test]
fn shards_are_one_checkpoint() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path();
    let (one, two) = ("model-1.safetensors", "model-2.safetensors");
    write_shard(&directory.join(one), &[("a", &[2], &[1.0, 2.0])]);
    write_shard(
        &directory.join(two),
        &[("b", &[1, 2], &[3.0, 4.0]), ("c", &[], &[5.0])],
    );
    let write_index = |pairs: &[(&str, &str)]| {
        let map: BTreeMap<_, _> = pairs.iter().copied().collect();
        let index = serde_json::json!({"metadata": {"total_size": 20}, "weight_map": map});
        fs::write(
            directory.join("model.safetensors.index.json"),
            index.to_string(),
        )
        .unwrap();
    };
    let whole = [("a", one), ("b", two), ("c", two)];

    write_index(&whole);
    let checkpoint = Checkpoint::open(directory).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(checkpoint.get("c").unwrap().to_f32_vec().unwrap(), [5.0]);
    assert_eq!(checkpoint.get("c").unwrap().shape, [0_usize; 0]);
    assert_eq!(checkpoint.total_parameters(), 5);
    assert!(checkpoint.file_of("b").unwrap().ends_with(two));
    assert_eq!(checkpoint.files().count(), 2);

    let open = || Checkpoint::open(directory).unwrap_err();
    write_index(&[("a", one), ("b", "model-3.safetensors")]);
    assert!(
        matches!(open(), FormatError::MissingShard { shard, .. } if shard == "model-3.safetensors")
    );
    write_index(&[("a", one), ("b", one), ("c", two)]);
    assert!(matches!(open(), FormatError::TensorNotInShard { name, .. } if name == "b"));
    write_index(&[("a", one), ("d", two)]);
    assert!(matches!(open(), FormatError::TensorNotInShard { name, .. } if name == "d"));
    for outside in [
        "../x.safetensors",
        "/x.safetensors",
        "a/b.safetensors",
        "..",
        "x.bin",
        "",
    ] {
        write_index(&[("a", outside)]);
        assert!(
            matches!(open(), FormatError::InvalidIndex { .. }),
            "{outside}"
        );
    }
    write_index(&[]);
    assert!(matches!(open(), FormatError::InvalidIndex { .. }));
    fs::write(directory.join("model.safetensors.index.json"), "[]").unwrap();
    assert!(matches!(open(), FormatError::InvalidIndex { .. }));

    write_index(&whole);
    write_shard(
        &directory.join(two),
        &[("a", &[1], &[0.0]), ("b", &[1], &[0.0])],
    );
    match open() {
        FormatError::DuplicateTensor {
            name,
            first,
            second,
        } => {
            assert_eq!(name, "a");
            assert!(first.ends_with(one) && second.ends_with(two));
        }
        other => panic!("{other:?}"),
    }
    // A single file wins over an index, as in transformers.
    write_shard(
        &directory.join("model.safetensors"),
        &[("only", &[1], &[0.0])],
    );
    assert_eq!(
        Checkpoint::open(directory)
            .unwrap()
            .names()
            .collect::<Vec<_>>(),
        ["only"]
    );
}

#[test]
fn every_truncation_is_recognized() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.safetensors");
    write_shard(
        &path,
        &[("a", &[3], &[1.0, 2.0, 3.0]), ("b", &[2], &[4.0, 5.0])],
    );
    let whole = fs::read(&path).unwrap();
    let data_begin = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in 0..whole.len() {
        match open_bytes(&whole[..length]) {
            Err(FormatError::Truncated {
                part,
                needed,
                found,
                ..
            }) => {
                let (expected_part, expected_size) = match length {
                    0..8 => ("length field", 8),
                    _ if length < data_begin => ("header", data_begin),
                    _ => ("data", whole.len()),
                };
                assert_eq!((part, needed), (expected_part, expected_size as u64));
                assert_eq!(found, length as u64);
            }
            other => panic!("{length}: {other:?}"),
        }
    }
    let mut longer = whole;
    longer.extend([0; 3]);
    assert!(matches!(
        open_bytes(&longer),
        Err(FormatError::TrailingBytes { extra: 3, .. })
    ));
}

#[test]
fn broken_headers_are_refused() {
    let f32_at = |begin: usize, end: usize| {
        format!(
            r#"{{"dtype":"F32","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
            (end - begin) / 4
        )
    };
    let invalid = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "nonsense".to_owned(),
        r#" {"a":1}"#.to_owned(),
        r#"{"a":1}"#.to_owned(),
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#.to_owned(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#.to_owned(),
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#.to_owned(),
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,4]}}"#.to_owned(),
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}}"#.to_owned(),
        r#"{"__metadata__":{"format":1}}"#.to_owned(),
        r#"{"__metadata__":{},"__metadata__":{}}"#.to_owned(),
        format!(r#"{{"a":{},"b":{}}}"#, f32_at(0, 8), f32_at(4, 8)),
        format!(r#"{{"a":{},"b":{}}}"#, f32_at(0, 4), f32_at(8, 12)),
        format!(r#"{{"a":{}}}"#, f32_at(4, 8)),
    ];
    for header in invalid {
        let result = open_bytes(&file_of(&header, &[0; 12]));
        assert!(
            matches!(result, Err(FormatError::InvalidHeader { .. })),
            "{header}: {result:?}"
        );
    }
    let twice = format!(r#"{{"a":{},"a":{}}}"#, f32_at(0, 4), f32_at(4, 8));
    let result = open_bytes(&file_of(&twice, &[0; 8]));
    assert!(matches!(&result, Err(FormatError::DuplicateTensor { name, .. }) if name == "a"));
    let exotic = r#"{"w":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#;
    match open_bytes(&file_of(exotic, &[0])) {
        Err(FormatError::UnsupportedDtype { name, dtype, .. }) => {
            assert_eq!((name.as_str(), dtype.as_str()), ("w", "F8_E4M3"));
        }
        other => panic!("{other:?}"),
    }
    // A length that no memory holds must not be believed.
    let result = open_bytes(&u64::MAX.to_le_bytes());
    assert!(
        matches!(result, Err(FormatError::InvalidHeader { .. })),
        "{result:?}"
    );
}

/// Puts one byte before others, so that those after it are not aligned to any number's size.
fn shifted(bytes: impl IntoIterator<Item = u8>) -> Vec<u8> {
    std::iter::once(0).chain(bytes).collect()
}

#[test]
fn every_16_bit_number_converts_as_half_converts_it() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let shape = [1 << 16];
    let moved = shifted(bytes.iter().copied());
    for bytes in [&bytes[..], &moved[1..]] {
        let values = |dtype| {
            TensorView {
                dtype,
                shape: &shape,
                bytes,
            }
            .to_f32_vec()
            .unwrap()
            .into_iter()
        };
        for (bits, value) in (0..=u16::MAX).zip(values(Dtype::BF16)) {
            assert_eq!(value.to_bits(), bf16::from_bits(bits).to_f32().to_bits());
        }
        for (bits, value) in (0..=u16::MAX).zip(values(Dtype::F16)) {
            let expected = f16::from_bits(bits).to_f32();
            // The machine's conversion and the portable one may differ in the bits of a NaN.
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
        }
    }
}

#[test]
fn integers_are_not_floats() {
    let bytes = [0; 8];
    for dtype in [Dtype::Bool, Dtype::U8, Dtype::I32, Dtype::I64] {
        let view = TensorView {
            dtype,
            shape: &[8 / dtype.size()],
            bytes: &bytes,
        };
        assert!(matches!(
            view.to_f32_vec(),
            Err(FormatError::NotFloat { .. })
        ));
        assert_eq!(view.first_non_finite(), None);
    }
}

#[test]
fn the_first_non_finite_element_is_found() {
    let values = [0.5_f64, -1.0, f64::NAN, f64::INFINITY];
    let stored: [(Dtype, Vec<u8>); 4] = [
        (
            Dtype::F64,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        (
            Dtype::F32,
            values
                .iter()
                .flat_map(|v| (*v as f32).to_le_bytes())
                .collect(),
        ),
        (
            Dtype::BF16,
            values
                .iter()
                .flat_map(|v| bf16::from_f64(*v).to_le_bytes())
                .collect(),
        ),
        (
            Dtype::F16,
            values
                .iter()
                .flat_map(|v| f16::from_f64(*v).to_le_bytes())
                .collect(),
        ),
    ];
    for (dtype, bytes) in &stored {
        let view = TensorView {
            dtype: *dtype,
            shape: &[4],
            bytes,
        };
        let (index, value) = view.first_non_finite().unwrap();
        assert!(index == 2 && value.is_nan(), "{dtype}");
        let (head, tail) = bytes.split_at(2 * dtype.size());
        let view = TensorView {
            dtype: *dtype,
            shape: &[2],
            bytes: head,
        };
        assert_eq!(view.first_non_finite(), None);
        let tail = &tail[dtype.size()..];
        let view = TensorView {
            dtype: *dtype,
            shape: &[1],
            bytes: tail,
        };
        assert_eq!(view.first_non_finite(), Some((0, f64::INFINITY)));
    }
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let checkpoint = open_bytes(&file_of(header, &f32::NEG_INFINITY.to_le_bytes())).unwrap();
    let error = checkpoint.require("w").unwrap().check_finite().unwrap_err();
    assert!(
        error.to_string().contains("'w'") && error.to_string().contains("0 is -inf"),
        "{error}"
    );
}

#[test]
fn digests_are_of_the_bytes() {
    // The standard's own example.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256_bytes(b"abc"), abc);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("abc");
    fs::write(&path, b"abc").unwrap();
    assert_eq!(sha256_file(&path).unwrap(), abc);
    assert!(matches!(
        sha256_file(&scratch.path().join("no")),
        Err(FormatError::NoSuchFile { .. })
    ));

    let weights = scratch.path().join("x.safetensors");
    write_shard(&weights, &[("z", &[1], &[1.0]), ("a", &[2], &[2.0, 3.0])]);
    let digests = Checkpoint::open_file(&weights)
        .unwrap()
        .sha256_tensors()
        .unwrap();
    assert_eq!(digests["z"], sha256_bytes(&1.0_f32.to_le_bytes()));
    assert_eq!(digests.len(), 2);
}

proptest! {
    // Every case flushes files to the disk, which takes milliseconds.
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = open_bytes(&bytes);
    }

    #[test]
    fn damaged_files_agree_with_the_reference(
        position in 0_usize..400,
        byte in any::<u8>(),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("x.safetensors");
        write_shard(&path, &[("a", &[3], &[1.0, 2.0, 3.0]), ("b", &[2], &[4.0, 5.0])]);
        let mut bytes = fs::read(&path).unwrap();
        let position = position % bytes.len();
        bytes[position] = byte;
        let ours = open_bytes(&bytes);
        match safetensors::SafeTensors::deserialize(&bytes) {
            Ok(reference) => {
                // This reader is as strict as the reference or stricter.
                if let Ok(ours) = ours {
                    for (name, view) in ours.tensors() {
                        prop_assert_eq!(view.bytes().unwrap(), reference.tensor(name).unwrap().data());
                    }
                }
            }
            Err(error) => prop_assert!(ours.is_err(), "the reference says {error}"),
        }
    }

    #[test]
    fn f64_rounds_and_f32_is_exact_at_any_alignment(values in proptest::collection::vec(any::<f64>(), 1..50)) {
        let shape = [values.len()];
        let bytes = shifted(values.iter().flat_map(|v| v.to_le_bytes()));
        let read = TensorView { dtype: Dtype::F64, shape: &shape, bytes: &bytes[1..] }.to_f32_vec().unwrap();
        let narrow: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        prop_assert_eq!(&read, &narrow);
        let bytes = shifted(narrow.iter().flat_map(|v| v.to_le_bytes()));
        let read = TensorView { dtype: Dtype::F32, shape: &shape, bytes: &bytes[1..] }.to_f32_vec().unwrap();
        prop_assert_eq!(read, narrow);
    }
}
