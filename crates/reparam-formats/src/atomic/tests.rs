use std::io::ErrorKind;

use super::*;

/// Returns the names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("notes.txt");
    write_file_atomic(&path, b"first, and long").unwrap();
    write_file_atomic(&path, b"second").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(names(scratch.path()), ["notes.txt"]);
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_other() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("notes.txt");
    write_file_atomic(&path, b"old").unwrap();
    // Each kind of the system's errors, in the middle of writing.
    for kind in [
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::PermissionDenied,
        ErrorKind::TimedOut,
    ] {
        let error = write_with(&path, |writer| {
            writer.write_all(b"new")?;
            writer.flush()?;
            Err(kind.into())
        })
        .unwrap_err();
        let is_right = match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                matches!(error, FormatError::DiskFull { .. })
            }
            ErrorKind::TimedOut => matches!(error, FormatError::Io { .. }),
            _ => matches!(error, FormatError::Permission { .. }),
        };
        assert!(is_right, "{kind:?} became {error:?}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(scratch.path()), ["notes.txt"]);
    }
}

#[test]
fn a_missing_parent_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let error = write_file_atomic(&scratch.path().join("no/file"), b"").unwrap_err();
    assert!(matches!(error, FormatError::Io { .. }), "{error:?}");
}

#[cfg(unix)]
#[test]
fn the_file_is_as_readable_as_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = tempfile::tempdir().unwrap();
    let (plain, atomic) = (scratch.path().join("plain"), scratch.path().join("atomic"));
    fs::write(&plain, b"").unwrap();
    write_file_atomic(&atomic, b"").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&atomic), mode(&plain));
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_is_a_permission_error() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = tempfile::tempdir().unwrap();
    let locked = scratch.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    // The administrator may write anywhere; then both have to succeed.
    let may_write = fs::write(locked.join("probe"), b"").is_ok();
    match write_file_atomic(&locked.join("file"), b"") {
        Ok(()) => assert!(may_write),
        Err(error) => {
            assert!(
                !may_write && matches!(error, FormatError::Permission { .. }),
                "{error:?}"
            );
            assert!(error.hint().is_some());
        }
    }
}

#[test]
fn a_directory_appears_at_commit_only() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("a/b/step-1");
    let directory = AtomicDirectory::create(&target).unwrap();
    fs::create_dir(directory.path().join("inner")).unwrap();
    fs::write(directory.path().join("inner/file"), b"1").unwrap();
    assert!(!target.exists());
    directory.commit().unwrap();
    assert_eq!(fs::read(target.join("inner/file")).unwrap(), b"1");
    assert_eq!(names(target.parent().unwrap()), ["step-1"]);
}

#[test]
fn a_dropped_directory_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("step-1");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("file"), b"old").unwrap();
    let directory = AtomicDirectory::create(&target).unwrap();
    fs::write(directory.path().join("file"), b"new").unwrap();
    drop(directory);
    assert_eq!(names(scratch.path()), ["step-1"]);
    assert_eq!(fs::read(target.join("file")).unwrap(), b"old");
}

#[test]
fn a_commit_replaces_and_keeps_what_is_not_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("adapter");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("weights"), b"old").unwrap();
    fs::write(target.join("README.md"), b"mine").unwrap();
    let directory = AtomicDirectory::create(&target).unwrap();
    fs::write(directory.path().join("weights"), b"new").unwrap();
    directory.commit().unwrap();
    assert_eq!(names(scratch.path()), ["adapter"]);
    assert_eq!(fs::read(target.join("weights")).unwrap(), b"new");
    assert_eq!(fs::read(target.join("README.md")).unwrap(), b"mine");
}

#[test]
fn a_file_in_the_place_of_a_directory_is_not_touched() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("adapter");
    fs::write(&target, b"a file").unwrap();
    let error = AtomicDirectory::create(&target).unwrap_err();
    assert!(
        matches!(error, FormatError::NotADirectory { .. }),
        "{error:?}"
    );
    assert_eq!(fs::read(&target).unwrap(), b"a file");
}

#[cfg(unix)]
#[test]
fn a_link_to_a_directory_stays_a_link() {
    let scratch = tempfile::tempdir().unwrap();
    let real = scratch.path().join("disk/real");
    fs::create_dir_all(&real).unwrap();
    let link = scratch.path().join("adapter");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let directory = AtomicDirectory::create(&link).unwrap();
    fs::write(directory.path().join("file"), b"new").unwrap();
    directory.commit().unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(real.join("file")).unwrap(), b"new");
}

#[test]
fn exchanging_by_renames_swaps() {
    let scratch = tempfile::tempdir().unwrap();
    let (new, old) = (scratch.path().join("new"), scratch.path().join("old"));
    for (path, text) in [(&new, "new"), (&old, "old")] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), text).unwrap();
    }
    exchange_by_renames(&new, &old).unwrap();
    assert_eq!(fs::read(old.join("file")).unwrap(), b"new");
    assert_eq!(fs::read(new.join("file")).unwrap(), b"old");
    assert_eq!(names(scratch.path()), ["new", "old"]);
    // The second rename fails; the first is undone.
    fs::remove_dir_all(&new).unwrap();
    exchange_by_renames(&new, &old).unwrap_err();
    assert_eq!(names(scratch.path()), ["old"]);
}

#[test]
fn leftovers_of_a_killed_process_are_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    // What is left behind where nothing is dropped.
    let directory = AtomicDirectory::create(&at("step-000001")).unwrap();
    fs::write(directory.path().join("half"), "x").unwrap();
    let left = directory.temporary.keep();
    assert!(target_of(left.file_name().unwrap().to_str().unwrap()) == Some("step-000001"));
    fs::write(at(".config.toml.a1B2c3.tmp"), "half").unwrap();
    // Swapped in two steps and killed between them, and before.
    fs::create_dir(at(".adapter.a1B2c3.tmp.old")).unwrap();
    fs::write(at(".adapter.a1B2c3.tmp.old").join("old"), "old").unwrap();
    fs::create_dir(at(".adapter.a1B2c3.tmp")).unwrap();
    fs::create_dir(at("model")).unwrap();
    fs::create_dir(at(".model.a1B2c3.tmp.old")).unwrap();
    // Those of others.
    let foreign = [
        ".other.a1B2c3.tmp",
        ".config.toml.tmp",
        ".config.toml.a1-2c3.tmp",
        "config.toml",
        ".adapter",
    ];
    for name in foreign {
        fs::write(at(name), "kept").unwrap();
    }
    remove_leftovers(scratch.path(), |name| name != "other").unwrap();
    let mut expected: Vec<&str> = foreign.to_vec();
    expected.extend(["adapter", "model"]);
    expected.sort_unstable();
    assert_eq!(names(scratch.path()), expected);
    assert_eq!(
        fs::read_to_string(at("adapter").join("old")).unwrap(),
        "old"
    );
    remove_leftovers(&at("nowhere"), |_| true).unwrap();
}
