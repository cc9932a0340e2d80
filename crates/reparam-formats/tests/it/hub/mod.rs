//! The hub client against small hubs on this machine.

mod datasets;
mod download;
mod hostile;
mod refusals;
mod server;

use std::fs;

use reparam_formats::hub::{HubError, HubOptions, resolve_model};

#[test]
fn directories_are_used_as_they_are_and_mistyped_ones_are_guessed() {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("stories260K");
    fs::create_dir(&model).unwrap();
    fs::create_dir(scratch.path().join("unrelated")).unwrap();
    let mut options = HubOptions::new(scratch.path().join("cache"));
    options.offline = true;
    assert_eq!(
        resolve_model(model.to_str().unwrap(), &options).unwrap(),
        model
    );

    let mistyped = scratch.path().join("stories26K");
    match resolve_model(mistyped.to_str().unwrap(), &options) {
        Err(error @ HubError::NoSuchModel { .. }) => {
            assert!(
                error.hint().unwrap().contains(model.to_str().unwrap()),
                "{error:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    for path in [
        "./no",
        "../no",
        "a/b/c",
        "no\\where",
        "~/no",
        "/no/such",
        "no/",
        "..",
    ] {
        let result = resolve_model(path, &options);
        let is_right = path == ".." || matches!(result, Err(HubError::NoSuchModel { .. }));
        assert!(is_right, "{path}: {result:?}");
    }
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let result = resolve_model(file.to_str().unwrap(), &options);
    assert!(
        matches!(result, Err(HubError::NoSuchModel { .. })),
        "{result:?}"
    );
    for id in [
        "",
        "org/",
        "a b",
        "org/na:me",
        "-x/y",
        "x/y-",
        "a--b",
        "org/a..b",
    ] {
        let result = resolve_model(id, &options);
        assert!(
            matches!(
                result,
                Err(HubError::InvalidId { .. } | HubError::NoSuchModel { .. })
            ),
            "{id}: {result:?}"
        );
    }
    for id in ["gpt2", "org/name", "Qwen/Qwen2.5-0.5B", "a_b/c.d"] {
        let result = resolve_model(id, &options);
        assert!(
            matches!(result, Err(HubError::NotCached { .. })),
            "{id}: {result:?}"
        );
    }
    for revision in ["", "../x", "a b", "a//b", "."] {
        options.revision = revision.to_owned();
        let result = resolve_model("org/name", &options);
        assert!(
            matches!(result, Err(HubError::InvalidRevision { .. })),
            "{revision}: {result:?}"
        );
    }
}
