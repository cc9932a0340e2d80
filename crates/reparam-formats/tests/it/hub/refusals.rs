//! What a hub refuses, and how that is said.

use reparam_formats::hub::{HubError, HubOptions, resolve_model};

use super::server::{Answer, COMMIT, Server, info, nobody, options};

/// Resolves a model of a hub that gives one answer to everything.
fn resolve_against(answer: Answer, token: Option<&str>) -> (HubError, usize) {
    let cache = tempfile::tempdir().unwrap();
    let hub = Server::start(move |_| answer.clone());
    let mut options = options(&hub, cache.path());
    options.token = token.map(str::to_owned);
    (
        resolve_model("org/none", &options).unwrap_err(),
        hub.requests().len(),
    )
}

#[test]
fn the_hubs_refusals_are_told_apart() {
    let coded = |status, code: &str| Answer::status(status).header("x-error-code", code);
    let (error, n) = resolve_against(Answer::status(401), None);
    assert!(
        matches!(
            error,
            HubError::Denied {
                status: 401,
                had_token: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("token"));
    assert_eq!(n, 1);
    let (error, _) = resolve_against(coded(403, "GatedRepo"), Some("t"));
    assert!(
        matches!(
            error,
            HubError::Denied {
                status: 403,
                had_token: true,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("licence"));
    let (error, _) = resolve_against(coded(401, "RepoNotFound"), Some("t"));
    assert!(matches!(error, HubError::NotFound { .. }), "{error:?}");
    let (error, _) = resolve_against(coded(404, "RepoNotFound"), None);
    assert!(matches!(error, HubError::NotFound { .. }), "{error:?}");
    let (error, _) = resolve_against(coded(404, "RevisionNotFound"), None);
    assert!(
        matches!(&error, HubError::NotInRepository { what: "revision", name, .. } if name == "main")
    );
    let (error, n) = resolve_against(Answer::status(429), None);
    assert!(
        matches!(error, HubError::Status { status: 429, .. }),
        "{error:?}"
    );
    assert_eq!(n, 1);
    let (error, _) = resolve_against(Answer::status(503), None);
    assert!(
        matches!(error, HubError::Status { status: 503, .. }),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("later"));
}

/// A hub that describes `org/odd` and answers all requests for its files in one way.
fn resolve_with_files(answer: Answer) -> HubError {
    let cache = tempfile::tempdir().unwrap();
    let hub = Server::start(move |request| match request.path.starts_with("/api") {
        true => info(&["config.json", "model.safetensors"]),
        false => answer.clone(),
    });
    let error = resolve_model("org/odd", &options(&hub, cache.path())).unwrap_err();
    assert!(!cache.path().join("models--org--odd/refs/main").exists());
    error
}

#[test]
fn refusals_and_oddities_of_files_are_told_apart() {
    let error = resolve_with_files(Answer::status(404));
    assert!(
        matches!(&error, HubError::NotInRepository { what: "file", name, .. } if name == "config.json"),
        "{error:?}"
    );
    let error = resolve_with_files(Answer::status(403));
    assert!(
        matches!(error, HubError::Denied { status: 403, .. }),
        "{error:?}"
    );
    let error = resolve_with_files(Answer::body("{}"));
    assert!(
        matches!(&error, HubError::BadAnswer { detail, .. } if detail.contains("config.json")),
        "{error:?}"
    );
    // The file of another commit than the one that was asked for.
    let other = "f".repeat(40);
    let other = Answer::body("{}")
        .header("etag", "\"e\"")
        .header("x-repo-commit", &other);
    let error = resolve_with_files(other);
    assert!(
        matches!(&error, HubError::BadAnswer { detail, .. } if detail.contains(COMMIT)),
        "{error:?}"
    );
}

#[test]
fn answers_that_are_no_hubs_are_refused() {
    for answer in [
        Answer::body("<html>"),
        Answer::body(r#"{"sha":"../../etc"}"#),
    ] {
        let (error, _) = resolve_against(answer, None);
        assert!(matches!(error, HubError::BadAnswer { .. }), "{error:?}");
    }
    for (files, pickles) in [
        (&["config.json", "pytorch_model.bin"][..], true),
        (&["config.json"][..], false),
    ] {
        let (error, n) = resolve_against(info(files), None);
        assert!(
            matches!(error, HubError::NoSafetensors { has_pickles, .. } if has_pickles == pickles)
        );
        assert_eq!(n, 1);
    }
}

#[test]
fn an_unreachable_hub_is_a_network_error() {
    let cache = tempfile::tempdir().unwrap();
    let mut options = HubOptions::new(cache.path());
    options.endpoint = nobody();
    let error = resolve_model("org/tiny", &options).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("network"));
    for endpoint in ["", "huggingface.co", "not an address", "ftp://hub"] {
        options.endpoint = endpoint.to_owned();
        let error = resolve_model("org/tiny", &options).unwrap_err();
        assert!(matches!(error, HubError::Network { .. }), "{error:?}");
    }
}
