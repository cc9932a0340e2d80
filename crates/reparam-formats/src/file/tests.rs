//! Tests of opening and reading inputs.

use std::time::{Duration, SystemTime};

use super::*;

/// A file of some age, so that the next write is seen whatever the resolution of the system's clock.
fn aged(path: &Path, bytes: &[u8]) -> InputFile {
    fs::write(path, bytes).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    let before = SystemTime::now() - Duration::from_secs(60);
    file.set_modified(before).unwrap();
    InputFile::open(path).unwrap()
}

#[test]
fn bytes_are_read_by_position() {
    let scratch = tempfile::tempdir().unwrap();
    let file = aged(&scratch.path().join("a"), b"0123456789");
    let mut four = [0; 4];
    file.read_at(&mut four, 3).unwrap();
    assert_eq!((&four, file.len()), (b"3456", 10));
    assert_eq!(file.read_all().unwrap(), b"0123456789");
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    file.pieces(1, 9, 3, |piece| pieces.push(piece.to_vec()))
        .unwrap();
    assert_eq!(pieces, [&b"123"[..], b"456", b"78"]);
    // More than there is, of a file that is what it was.
    let error = file.read_at(&mut four, 8).unwrap_err();
    assert!(matches!(error, FormatError::Io { .. }), "{error}");
}

#[test]
fn a_replaced_file_keeps_its_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a");
    let file = aged(&path, b"old bytes");
    fs::write(scratch.path().join("b"), b"new").unwrap();
    fs::rename(scratch.path().join("b"), &path).unwrap();
    assert_eq!(file.read_all().unwrap(), b"old bytes");
    assert_eq!(read(&path).unwrap(), b"new");
    fs::remove_file(&path).unwrap();
    assert_eq!(file.read_all().unwrap(), b"old bytes");
}

#[test]
fn a_file_that_is_changed_in_place_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a");
    let cut = aged(&path, b"old bytes");
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(4))
        .unwrap();
    // Where bytes are missing, and where they are still there.
    for offset in [4, 0] {
        let error = cut.read_at(&mut [0; 4], offset).unwrap_err();
        assert!(
            matches!(
                error,
                FormatError::Shortened {
                    before: 9,
                    now: 4,
                    ..
                }
            ),
            "{error}"
        );
    }
    for other in [&b"NEW BYTES"[..], b"more bytes"] {
        let file = aged(&path, b"old bytes");
        fs::write(&path, other).unwrap();
        let error = file.read_all().unwrap_err();
        assert!(matches!(error, FormatError::Changed { .. }), "{error}");
    }
}

#[test]
fn text_is_utf8() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a");
    fs::write(&path, "né").unwrap();
    assert_eq!(read_text(&path).unwrap(), "né");
    fs::write(&path, b"n\xe9").unwrap();
    let error = read_text(&path).unwrap_err();
    assert!(
        matches!(error, FormatError::NotText { offset: 1, .. }),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn links_to_nothing_are_named() {
    use std::os::unix::fs::symlink;
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    symlink("nowhere", at("link")).unwrap();
    symlink("nowhere", at("folder")).unwrap();
    for (path, link) in [("link", "link"), ("folder/file", "folder")] {
        for error in [
            read(&at(path)).unwrap_err(),
            is_there(&at(path)).unwrap_err(),
        ] {
            let text = error.to_string();
            let expected = format!(
                "{} is a link to nowhere, which does not exist",
                at(link).display()
            );
            assert_eq!(text, expected);
        }
    }
    fs::write(at("file"), "x").unwrap();
    symlink("file", at("good")).unwrap();
    assert_eq!(read(&at("good")).unwrap(), b"x");
    assert!(is_there(&at("good")).unwrap());
    for absent in ["no", "no/no", "file/no"] {
        assert!(!is_there(&at(absent)).unwrap());
        let error = read(&at(absent)).unwrap_err();
        assert!(matches!(error, FormatError::NoSuchFile { .. }), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_no_file_is_refused_at_once() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    for (path, expected) in [
        (at("pipe"), Kind::Special),
        (at("socket"), Kind::Special),
        (at("folder"), Kind::Directory),
        ("/dev/zero".into(), Kind::Special),
    ] {
        let error = read(&path).unwrap_err();
        assert!(error.hint().is_some());
        assert!(
            matches!(error, FormatError::AnotherKind { ref kind, .. } if *kind == expected),
            "{error}"
        );
    }
}
