use super::*;
use crate::source::Format;

/// A directory with these files, all empty.
fn directory(names: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in names {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    directory
}

const NAMES: [&str; 9] = [
    "b.txt",
    "a.jsonl",
    "sub/c.CSV",
    "sub/deep/d.md",
    ".hidden.txt",
    ".git/e.txt",
    "README",
    "sub/x.docx",
    "[1].txt",
];

/// What is found below a directory, and what is left out.
fn found(directory: &Path, paths: &[&str]) -> (Vec<String>, Vec<String>) {
    let paths: Vec<PathBuf> = paths.iter().map(|path| directory.join(path)).collect();
    let files = find(&paths, |path| Format::of_name(path).is_some()).unwrap();
    let names = |paths: Vec<PathBuf>| {
        let names = paths
            .iter()
            .map(|path| path.strip_prefix(directory).unwrap());
        names.map(|name| name.display().to_string()).collect()
    };
    (names(files.files), names(files.left_out))
}

#[test]
fn directories_and_patterns_stand_for_files_in_order() {
    let directory = directory(&NAMES);
    let all = ["[1].txt", "a.jsonl", "b.txt", "sub/c.CSV", "sub/deep/d.md"];
    let cases: [(&[&str], &[&str], &[&str]); 7] = [
        (&[""], &all, &["README", "sub/x.docx"]),
        (&["sub"], &["sub/c.CSV", "sub/deep/d.md"], &["sub/x.docx"]),
        (&["*.txt"], &["[1].txt", "b.txt"], &[]),
        (&["**/*.md"], &["sub/deep/d.md"], &[]),
        (&["sub/*"], &["sub/c.CSV"], &["sub/x.docx"]),
        // A file is taken by its name, whatever is in it and however often.
        (
            &["[1].txt", "README", ".hidden.txt"],
            &["[1].txt", "README", ".hidden.txt"],
            &[],
        ),
        (
            &["b.txt", "b.txt", "?.*"],
            &["b.txt", "b.txt", "a.jsonl"],
            &[],
        ),
    ];
    for (paths, files, left_out) in cases {
        let (found, others) = found(directory.path(), paths);
        assert_eq!(
            (&found[..], &others[..]),
            (&files.map_owned()[..], &left_out.map_owned()[..]),
            "{paths:?}"
        );
    }
}

#[test]
fn a_file_is_the_same_with_a_point_before_it() {
    let directory = directory(&["a.txt", "sub/b.txt"]);
    let root = directory.path();
    let paths = [root.join("a.txt"), root.join("."), root.join("./sub/*")];
    let files = find(&paths, |path| Format::of_name(path).is_some()).unwrap();
    let names: Vec<_> = files.files.iter().map(|path| path.file_name()).collect();
    assert_eq!(names, [Some("a.txt".as_ref()), Some("b.txt".as_ref())]);
    assert_eq!(key(Path::new("./data/a.txt")), key(Path::new("data/a.txt")));
}

trait Owned {
    fn map_owned(&self) -> Vec<String>;
}

impl Owned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|name| (*name).to_owned()).collect()
    }
}

#[test]
fn nothing_found_is_an_error_that_says_what_is_there() {
    let directory = directory(&["x.docx", ".a.txt"]);
    let error = |path: &str| {
        let path = directory.path().join(path);
        let error = find(&[path], |path| Format::of_name(path).is_some()).unwrap_err();
        let root = format!("{}/", directory.path().display());
        (
            error.to_string().replace(&root, ""),
            error.hint().unwrap_or_default(),
        )
    };
    let (message, hint) = error(".");
    assert!(
        message.ends_with("has no file that can be read, but ./x.docx"),
        "{message}"
    );
    assert!(hint.contains(".jsonl"), "{hint}");
    assert_eq!(error("*.txt").0, "no file matches *.txt");
    assert_eq!(
        error("a[").0,
        "a[ is no pattern of file names: invalid range pattern"
    );
    let missing = find(&[directory.path().join("a.txt")], |_| true);
    assert!(matches!(missing, Err(DataError::NotFound { .. })));
    assert!(matches!(find(&[], |_| true), Err(DataError::NoPaths)));
}

#[cfg(unix)]
#[test]
fn a_circle_of_links_is_an_error() {
    let directory = directory(&["sub/a.txt"]);
    std::os::unix::fs::symlink(directory.path(), directory.path().join("sub/up")).unwrap();
    let error = find(&[directory.path().to_owned()], |_| true).unwrap_err();
    assert!(matches!(error, DataError::Unreadable { .. }), "{error}");
}

#[test]
fn ids_of_data_sets_are_told_from_paths() {
    for (path, expected) in [
        ("openai/gsm8k", true),
        ("tatsu-lab/alpaca", true),
        ("data/train.txt", false),
        ("./data", false),
        ("../a", false),
        ("a/b/c", false),
        ("data", false),
    ] {
        assert_eq!(looks_like_id(Path::new(path)), expected, "{path}");
    }
}
