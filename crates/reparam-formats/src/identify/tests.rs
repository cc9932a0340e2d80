use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::safetensors::{TensorToWrite, write_safetensors};

/// A ZIP archive's first local header, with the name of its entry.
fn zip(name: &str) -> Vec<u8> {
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend([0; 22]);
    bytes.extend((name.len() as u16).to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(name.as_bytes());
    bytes
}

fn safetensors() -> Vec<u8> {
    let header = br#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes
}

const POINTER: &str =
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";

#[test]
fn formats_are_told_by_their_first_bytes() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let cases: &[(&[u8], Kind)] = &[
        (&safetensors(), Kind::Safetensors),
        (POINTER.as_bytes(), Kind::LfsPointer),
        (b"GGUF\x03\0\0\0\x10\0\0\0", Kind::Gguf),
        (b"\x1f\x8b\x08\0\0\0\0\0", Kind::Gzip),
        (b"BZh91AY&SYabcdefgh", Kind::Bzip2),
        (b"\x28\xb5\x2f\xfd\x24\x21", Kind::Zstd),
        (b"PAR1\x15\x04\x15\x10", Kind::Parquet),
        (b"ARROW1\0\0\xff\xff\xff\xff", Kind::Arrow),
        (&zip("archive/data.pkl"), Kind::PyTorch),
        (&zip("weights.npy"), Kind::Npz),
        (&zip("[Content_Types].xml"), Kind::Office),
        (&zip("data.jsonl"), Kind::Zip),
        (b"PK\x03\x04", Kind::Zip),
        (b"\x80\x02}q\0X\x01", Kind::Pickle),
        (b"\x80\x02\x8a\x0al\xfc\x9c\x46", Kind::Pickle),
        (
            b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0c",
            Kind::SentencePiece,
        ),
        (b"\x93NUMPY\x01\0v\0{'descr'", Kind::Numpy),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            Kind::Image(ImageKind::Png),
        ),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", Kind::Image(ImageKind::Jpeg)),
        (b"RIFF\x24\0\0\0WEBPVP8 ", Kind::Image(ImageKind::Webp)),
        (b"%PDF-1.4\n1 0 obj", Kind::Pdf),
        (b"SQLite format 3\0\x10\0", Kind::Sqlite),
        (&tar, Kind::Tar),
    ];
    for (bytes, expected) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(12)]);
        assert_eq!(kind_of_bytes(bytes).as_ref(), Some(expected), "{shown:?}");
    }
}

#[test]
fn texts_are_no_binary_format() {
    let texts = [
        "",
        "{",
        "GGUF is a format.",
        "PAR1 is how a Parquet file begins, and this is a text about it.\n",
        "GIF87a, GIF89a",
        "BMW and BZh9",
        "PK is short for it",
        "RIFF of the day",
        "\n\nText",
        "{\"text\": \"version https://git-lfs.github.com/spec/v1\"}",
        "\u{feff}Es war einmal",
        "从前有一只猫",
    ];
    for text in texts {
        assert_eq!(kind_of_bytes(text.as_bytes()), None, "{text:?}");
    }
    // Of the text of a pointer any version is one, since nobody wants to learn it.
    assert_eq!(kind_of_bytes(POINTER.as_bytes()), Some(Kind::LfsPointer));
}

#[test]
fn texts_are_told_apart_by_their_first_lines() {
    let cases = [
        ("{\n  \"a\": 1\n}\n", Kind::Json),
        ("[1, 2]\n", Kind::Json),
        ("{\"a\": 1}\n{\"a\": 2}\n", Kind::JsonLines),
        ("\u{feff}{\"a\": 1}\n{\"a\": 2}\n", Kind::JsonLines),
        ("a,b\n1,2\n3,4\n", Kind::Table(',')),
        ("a\tb\n1\t2, or 3\n", Kind::Table('\t')),
        ("a;b\n1,5;2,5\n", Kind::Table(';')),
        ("name,says\n\"a\",\"b, c\"\n", Kind::Table(',')),
        ("<!DOCTYPE HTML>\n<html>", Kind::Html),
        ("One day, a cat came.\nIt was black.\n", Kind::Text),
    ];
    for (text, expected) in cases {
        assert_eq!(kind_of_text(text.as_bytes()), Some(expected), "{text:?}");
    }
    // A character that is cut at the end of what was read.
    assert_eq!(kind_of_text(&"é".as_bytes()[..1]), Some(Kind::Text));
    assert_eq!(kind_of_text(b"\xff\xfe\0"), None);
    assert_eq!(kind_of_text(b"a\0b"), None);
}

#[test]
fn every_kind_that_cannot_be_read_as_text_or_tensors_has_a_hint() {
    for bytes in [
        &zip("a.txt"),
        &b"GGUF\x03\0"[..],
        b"\x1f\x8b\x08",
        b"PAR1\x15",
    ] {
        let kind = kind_of_bytes(bytes).unwrap();
        assert!(kind.hint().is_some(), "{kind:?}");
    }
}

fn write(directory: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn directories_are_told_by_their_files() {
    let config = json!({"model_type": "bert", "architectures": ["BertModel"]}).to_string();
    let bert = Kind::Model(ModelDirectory {
        model_type: Some("bert".to_owned()),
        architectures: vec!["BertModel".to_owned()],
        weights: vec!["model.safetensors".to_owned()],
        files: vec!["config.json", "tokenizer.json"],
    });
    let pickled = Kind::Model(ModelDirectory {
        model_type: None,
        architectures: Vec::new(),
        weights: vec!["pytorch_model.bin".to_owned()],
        files: Vec::new(),
    });
    let whole = safetensors();
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Files<'_>, Kind); 9] = [
        (&[], Kind::EmptyDirectory),
        (
            &[
                ("config.json", config.as_bytes()),
                ("model.safetensors", &whole),
                ("tokenizer.json", b"{}"),
            ],
            bert,
        ),
        (&[("pytorch_model.bin", b"\x80\x02}q")], pickled),
        (&[("adapter_config.json", b"{}")], Kind::Adapter),
        (&[("tokenizer.json", b"{}")], Kind::Tokenizer),
        (
            &[
                ("events.jsonl", b""),
                ("adapter/adapter_config.json", b"{}"),
            ],
            Kind::Run,
        ),
        (
            &[("state/state.json", b"{}"), ("adapter_config.json", b"{}")],
            Kind::Adapter,
        ),
        (
            &[("a/events.jsonl", b""), ("b/config.resolved.toml", b"")],
            Kind::Runs(vec!["a".to_owned(), "b".to_owned()]),
        ),
        (&[("notes.txt", b"a")], Kind::Directory),
    ];
    for (files, expected) in cases {
        let directory = TempDir::new().unwrap();
        write(directory.path(), files);
        assert_eq!(identify(directory.path()).unwrap(), expected);
    }
}

#[test]
fn quantized_weights_are_known_by_config_or_names() {
    let config = |value: Value| value.as_object().cloned().unwrap();
    let nothing: &[&str] = &["model.layers.0.self_attn.q_proj.weight"];
    type Case<'a> = (Map<String, Value>, &'a [&'a str], Option<Quantization>);
    let cases: [Case<'_>; 9] = [
        (Map::new(), nothing, None),
        (config(json!({"quantization_config": null})), nothing, None),
        (
            config(json!({"quantization_config": {"quant_method": "gptq"}})),
            nothing,
            Some(Quantization::Gptq),
        ),
        (
            config(json!({"quantization_config": {"load_in_8bit": true}})),
            nothing,
            Some(Quantization::BitsAndBytes),
        ),
        (
            config(json!({"quantization": {"bits": 4, "group_size": 64}})),
            nothing,
            Some(Quantization::Mlx),
        ),
        (
            Map::new(),
            &["a.weight", "a.weight.quant_state.bitsandbytes__nf4"],
            Some(Quantization::BitsAndBytes),
        ),
        (
            Map::new(),
            &["a.qweight", "a.qzeros", "a.g_idx"],
            Some(Quantization::Gptq),
        ),
        (
            Map::new(),
            &["a.qweight", "a.qzeros", "a.scales"],
            Some(Quantization::Awq),
        ),
        (
            Map::new(),
            &["a.weight", "a.weight_scale_inv"],
            Some(Quantization::Fp8),
        ),
    ];
    for (config, names, expected) in cases {
        assert_eq!(
            quantization(&config, names.iter().copied()),
            expected,
            "{names:?}"
        );
    }
}

#[test]
fn what_is_no_safetensors_file_is_named_when_it_is_opened() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.safetensors");
    for (bytes, name) in [
        (POINTER.as_bytes(), "a Git LFS pointer"),
        (&zip("archive/data.pkl")[..], "a pickle of PyTorch"),
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(directory.path()).unwrap_err();
        let expected = format!("{} is {name}, not a safetensors file", path.display());
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    }
    fs::remove_file(&path).unwrap();
    let numbers = [1.0];
    let tensors = [TensorToWrite::f32("a", &[1], &numbers)];
    write_safetensors(&path, &tensors, &Default::default()).unwrap();
    assert!(Checkpoint::open(directory.path()).is_ok());
}

#[cfg(unix)]
#[test]
fn links_to_nothing_and_pipes_are_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.safetensors");
    std::os::unix::fs::symlink("/nonexistent/blob", &path).unwrap();
    let error = Checkpoint::open(directory.path()).unwrap_err();
    let expected = format!(
        "{} is a link to /nonexistent/blob, which does not exist",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
    assert!(identify(&path).is_err());
    assert_eq!(identify(Path::new("/dev/null")).unwrap(), Kind::Special);
    let error = Checkpoint::open_file(Path::new("/dev/null")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/dev/null is a pipe, socket or device, not a file"
    );
}
