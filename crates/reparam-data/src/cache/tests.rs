use std::sync::Mutex;
use std::thread;

use super::*;
use crate::dataset::{Dataset, DatasetOptions, Split};
use crate::order::Size;
use crate::pack::{PackingStrategy, TooLong};
use crate::source::OnError;
use crate::tokenizer::SpecialIds;
use crate::watch::Progress;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

fn tokenizer() -> TextTokenizer {
    TextTokenizer::from_model_dir(&assets().join("stories260K"), &SpecialIds::default()).unwrap()
}

fn options(cache: Option<Cache>) -> DatasetOptions {
    DatasetOptions {
        read: ReadOptions {
            on_error: OnError::Skip,
            ..ReadOptions::default()
        },
        train_on_prompt: false,
        sequence_length: 32,
        packing: PackingStrategy::BestFitDecreasing,
        streams: None,
        too_long: TooLong::Cut,
        cache,
        weights: None,
    }
}

/// Texts, examples, a long text that is encoded in parts, a row that is left out and a file of Windows.
fn files(directory: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(assets().join("tinyshakespeare.txt")).unwrap();
    let line = |n: usize, text: &str| {
        serde_json::json!({"prompt": format!("{n}: "), "completion": text}).to_string()
    };
    let lines = text.split("\n\n").take(400).enumerate();
    let mut examples: Vec<String> = lines.map(|(n, text)| line(n, text)).collect();
    examples.insert(7, "no row".to_owned());
    let documents: Vec<String> = text
        .split("\n\n")
        .skip(400)
        .take(300)
        .map(|text| serde_json::json!({ "text": text }).to_string())
        .collect();
    let files = [
        ("a.jsonl", examples.join("\n")),
        ("b.jsonl", documents.join("\n")),
        ("long.txt", text.repeat(3)),
        ("windows.txt", "a story\r\nof <s> two lines\r\n".to_owned()),
    ];
    let files = files.map(|(name, content)| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        path
    });
    files.into()
}

/// What is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn at(&self, _: Phase, done: u64, total: u64) {
        assert!(done <= total, "{done} of {total}");
    }

    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

fn split(paths: &[PathBuf], options: &DatasetOptions) -> Result<(Split, Vec<String>)> {
    let (notes, never) = (Notes::default(), Default::default());
    let watch = Watch::new(&never).with_progress(&notes);
    let size = Size {
        fraction: 0.1,
        max: u64::MAX,
    };
    let split = Dataset::build_split(paths, &tokenizer(), options, (size, 7), watch)?;
    Ok((split, notes.0.into_inner().unwrap()))
}

/// The entries of a cache, and all other names but locks.
fn entries(directory: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let all = fs::read_dir(directory).unwrap();
    let all = all.map(|entry| entry.unwrap().path());
    let all = all.filter(|path| path.extension().is_none_or(|extension| extension != LOCK));
    all.partition(|path| path.extension().is_some_and(|extension| extension == ENTRY))
}

#[test]
fn nothing_depends_on_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let place = directory.path().join("some/cache");
    for (name, base) in [
        ("blocks", options(None)),
        (
            "prompts",
            DatasetOptions {
                train_on_prompt: true,
                ..options(None)
            },
        ),
        (
            "sequential",
            DatasetOptions {
                packing: PackingStrategy::Sequential,
                sequence_length: 500,
                ..options(None)
            },
        ),
    ] {
        let cached = DatasetOptions {
            cache: Some(Cache::All(place.clone())),
            ..base.clone()
        };
        let expected = split(&paths, &base).unwrap();
        assert_eq!(expected.0.train.read.skipped.count, 1);
        assert_eq!(expected.1.len(), 2, "{:?}", expected.1);
        for start in ["first", "second"] {
            let found = split(&paths, &cached).unwrap();
            assert!(found == expected, "{name}, {start} start");
            let all: Vec<usize> = (0..found.0.train.blocks.len()).collect();
            let batches = [&found, &expected].map(|(split, _)| split.train.batch(&all).unwrap());
            assert!(batches[0] == batches[1], "{name}, {start} start");
        }
    }
    // How blocks are made of tokens does not change these.
    assert_eq!(entries(&place).0.len(), 1);
    // Streams, without examples.
    let streams = DatasetOptions {
        streams: Some(3),
        ..options(None)
    };
    let cached = DatasetOptions {
        cache: Some(Cache::All(place.clone())),
        ..streams.clone()
    };
    assert!(split(&paths[1..], &streams).unwrap() == split(&paths[1..], &cached).unwrap());
}

#[test]
fn an_entry_is_made_once_and_for_what_it_follows_from() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let place = directory.path().join("cache");
    let base = options(Some(Cache::All(place.clone())));
    let build = |paths: &[PathBuf], tokenizer: &TextTokenizer, options: &DatasetOptions| {
        Dataset::build(paths, tokenizer, options, Watch::never()).unwrap()
    };
    let first = build(&paths, &tokenizer(), &base);
    let (one, others) = entries(&place);
    assert_eq!((one.len(), others.len()), (1, 0));
    let modified = fs::metadata(&one[0]).unwrap().modified().unwrap();
    assert!(build(&paths, &tokenizer(), &base) == first);
    assert_eq!(fs::metadata(&one[0]).unwrap().modified().unwrap(), modified);
    let others: [(&[PathBuf], TextTokenizer, DatasetOptions); 3] = [
        (&paths[1..], tokenizer(), base.clone()),
        (
            &paths,
            tokenizer().with_embedding_rows(100_000),
            base.clone(),
        ),
        (&paths, tokenizer(), {
            let mut other = base.clone();
            other.read.text.lowercase = true;
            other
        }),
    ];
    for (n, (paths, tokenizer, options)) in others.iter().enumerate() {
        build(paths, tokenizer, options);
        assert_eq!(entries(&place).0.len(), n + 2);
    }
    // Another content under the same name.
    fs::write(&paths[3], "another text").unwrap();
    let changed = build(&paths, &tokenizer(), &base);
    assert_eq!(entries(&place).0.len(), 5);
    assert!(changed != first);
}

#[test]
fn a_damaged_entry_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let place = directory.path().join("cache");
    let cached = options(Some(Cache::All(place.clone())));
    // In memory, because the entry is written over.
    let expected = split(&paths, &options(None)).unwrap();
    split(&paths, &cached).unwrap();
    let entry = entries(&place).0.remove(0);
    let whole = fs::read(&entry).unwrap();
    let length = whole.len();
    let flips = [
        0,
        20,
        50,
        60,
        85,
        100,
        length / 2,
        length - 2000,
        length - 3,
    ];
    let flipped = flips.map(|place| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        bytes
    });
    let cut = [
        &whole[..length - 1],
        &whole[..50],
        &[],
        &[&whole[..], b"x"].concat(),
    ]
    .map(<[u8]>::to_vec);
    // A process that was killed left a part of another one.
    let name = entry.file_name().unwrap().to_str().unwrap();
    let left = place.join(format!(".{}.aB3dE6.tmp", &name[..40]));
    for bytes in flipped.into_iter().chain(cut) {
        fs::write(&entry, bytes).unwrap();
        fs::write(&left, "half").unwrap();
        let found = split(&paths, &cached).unwrap();
        assert!(found.0 == expected.0);
        assert_eq!(found.1.len(), expected.1.len() + 1, "{:?}", found.1);
        assert!(found.1.iter().any(|note| note.contains("is made anew")));
        assert!(fs::read(&entry).unwrap() == whole);
        assert_eq!(entries(&place).1, [] as [PathBuf; 0]);
    }
}

#[test]
fn several_may_want_the_same_entry_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let place = directory.path().join("cache");
    let expected = split(&paths, &options(None)).unwrap().0;
    let cached = options(Some(Cache::All(place.clone())));
    thread::scope(|scope| {
        let threads = (0..4).map(|_| scope.spawn(|| split(&paths, &cached).unwrap().0));
        for thread in threads.collect::<Vec<_>>() {
            assert!(thread.join().unwrap() == expected);
        }
    });
    assert_eq!(entries(&place).0.len(), 1);
}

#[test]
fn a_cache_that_cannot_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let place = directory.path().join("file");
    fs::write(&place, "no directory").unwrap();
    let error = split(&paths, &options(Some(Cache::All(place.clone())))).unwrap_err();
    assert!(matches!(error, DataError::Cache(_)), "{error:?}");
    assert!(error.hint().unwrap().contains("data.cache"), "{error}");
    // Small files need none.
    let large = options(Some(Cache::Large(place.clone())));
    let expected = split(&paths, &options(None)).unwrap();
    assert!(split(&paths, &large).unwrap() == expected);
    // Large ones need none either.
    let many = directory.path().join("many.jsonl");
    let line = format!("{{\"text\": \"{}\"}}\n", "a".repeat(1 << 20));
    fs::write(&many, line.repeat(65)).unwrap();
    assert!(fs::metadata(&many).unwrap().len() > Cache::LARGE);
    let files = find_of(&many);
    let cache = Cache::Large(place);
    let texts = Texts::read(
        &[many],
        &tokenizer(),
        &ReadOptions::default(),
        Some(&cache),
        Watch::never(),
    );
    assert_eq!(texts.unwrap().corpus.n_documents(), 65);
    assert_eq!(files.files.len(), 1);
}

fn find_of(path: &Path) -> Files {
    crate::source::find(&[path.to_owned()]).unwrap()
}

#[test]
fn an_entry_that_changes_under_a_run_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let place = directory.path().join("cache");
    let cached = options(Some(Cache::All(place.clone())));
    let dataset = Dataset::build(&paths, &tokenizer(), &cached, Watch::never()).unwrap();
    dataset.batch(&[0, 1]).unwrap();
    let entry = &entries(&place).0[0];
    let bytes = fs::read(entry).unwrap();
    fs::write(entry, &bytes[..bytes.len() - 1]).unwrap();
    let error = dataset.batch(&[0, 1]).unwrap_err();
    assert!(
        matches!(error, DataError::File(FormatError::Shortened { .. })),
        "{error:?}"
    );
}

#[test]
fn what_is_compressed_counts_as_what_it_expands_to() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = |name: &str| {
        let path = directory.path().join(name);
        fs::write(&path, [0; 100]).unwrap();
        find_of(&path).expanded_bytes(Cache::EXPANSION)
    };
    for name in ["a.txt", "a.jsonl", "a.csv"] {
        assert_eq!(bytes(name), 100, "{name}");
    }
    for name in ["a.jsonl.gz", "a.csv.zst", "a.parquet"] {
        assert_eq!(bytes(name), 1600, "{name}");
    }
}

#[test]
fn temporary_files_of_processes_that_have_ended_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let place = directory.path().join("cache");
    fs::create_dir(&place).unwrap();
    let write = |name: &str, letter: &str| {
        let (key, part) = (letter.repeat(64), letter.repeat(40));
        let lock = place.join(format!("{key}.{LOCK}"));
        fs::write(&lock, "").unwrap();
        let left = place.join(format!(".{part}.{name}.tmp"));
        fs::write(&left, "half").unwrap();
        (lock, left)
    };
    let (lock, held) = write("aB3dE6", "a");
    let (_, free) = write("aB3dE7", "b");
    let unknown = place.join(format!(".{}.aB3dE8.tmp", "c".repeat(40)));
    fs::write(&unknown, "half").unwrap();
    let lock = File::options().write(true).open(lock).unwrap();
    lock.try_lock().unwrap();
    let cached = options(Some(Cache::All(place.clone())));
    split(&paths, &cached).unwrap();
    assert!(held.exists() && unknown.exists() && !free.exists());
    // Afterwards its lock can be taken again.
    drop(lock);
    fs::remove_file(&entries(&place).0[0]).unwrap();
    split(&paths, &cached).unwrap();
    assert!(!held.exists());
}

#[test]
fn an_entry_has_no_token_that_the_model_has_no_row_for() {
    let directory = tempfile::tempdir().unwrap();
    let paths = files(directory.path());
    let place = directory.path().join("cache");
    let read = |tokenizer: &TextTokenizer| {
        let cache = Cache::All(place.clone());
        let options = options(None).read;
        Texts::read(&paths, tokenizer, &options, Some(&cache), Watch::never())
    };
    read(&tokenizer()).unwrap();
    let entry = entries(&place).0.remove(0);
    let key = entry.file_stem().unwrap().to_str().unwrap();
    let open = |most| entry::open(&entry, key, most, true).map(|texts| texts.is_some());
    let tokenizer = tokenizer();
    assert_eq!(open(tokenizer.max_usable_id()), Ok(true));
    let fewer = tokenizer.with_embedding_rows(100);
    assert_eq!(fewer.max_usable_id(), 99);
    assert!(
        open(fewer.max_usable_id())
            .unwrap_err()
            .contains("none above 99")
    );
}
