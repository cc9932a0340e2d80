//! Addresses: what is asked for, where a redirect leads, and whose host may see the token.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;

/// What stands for something else in a path: all but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The address of a hub.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    text: String,
    uri: Uri,
}

impl Endpoint {
    /// Reads an address that begins with `https://` or `http://`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('/').to_owned();
        let uri = text.parse().ok().filter(is_http)?;
        Some(Self { text, uri })
    }

    /// Returns the address of what these parts of a path name.
    pub(super) fn at<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Option<Uri> {
        let mut text = self.text.clone();
        for part in parts {
            text.push('/');
            text.extend(utf8_percent_encode(part, RESERVED));
        }
        text.parse().ok()
    }

    /// Returns whether an address has this one's scheme, host and port.
    pub(super) fn is_origin_of(&self, uri: &Uri) -> bool {
        let origin = |uri: &Uri| {
            let scheme = uri.scheme_str()?.to_ascii_lowercase();
            let port = uri.port_u16().unwrap_or(match scheme.as_str() {
                "https" => 443,
                _ => 80,
            });
            Some((scheme, uri.host()?.to_ascii_lowercase(), port))
        };
        origin(uri) == origin(&self.uri)
    }
}

/// Returns where a redirect leads; `None` if that is nowhere or not an address, names a user, or gives up encryption.
pub(super) fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let location = location.split('#').next().unwrap_or_default();
    // A scheme ends before anything else begins; a query may have an address in it.
    let mark = location.find([':', '/', '?']);
    let has_scheme = mark.is_some_and(|mark| location[mark..].starts_with(':'));
    let has_host = has_scheme || location.starts_with("//");
    let uri: Uri = if location.is_empty() {
        return None;
    } else if has_scheme {
        location.parse()
    } else if has_host {
        format!("{scheme}:{location}").parse()
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}").parse()
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path()).parse()
    } else {
        let (directory, _) = from.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{directory}/{location}").parse()
    }
    .ok()?;
    let keeps_encryption = uri.scheme_str() == Some("https") || scheme == "http";
    let names_user = has_host && uri.authority()?.as_str().contains('@');
    (is_http(&uri) && keeps_encryption && !names_user).then_some(uri)
}

fn is_http(uri: &Uri) -> bool {
    uri.host().is_some_and(|host| !host.is_empty())
        && matches!(uri.scheme_str(), Some("http" | "https"))
}

/// Returns an address as it may be shown: without a query, which may be a signature, and without a password.
pub(super) fn public(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let host = uri.host().unwrap_or_default();
    let port = uri
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}://{host}{port}{}", uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_stay_parts() {
        let hub = Endpoint::parse("https://mirror.org/hf/").unwrap();
        let uri = hub.at(["org/x", "refs/pr/1", "a b?#%", "名"]).unwrap();
        assert_eq!(
            uri.to_string(),
            "https://mirror.org/hf/org%2Fx/refs%2Fpr%2F1/a%20b%3F%23%25/%E5%90%8D"
        );
        for text in [
            "",
            "huggingface.co",
            "not an address",
            "ftp://hub",
            "http://",
        ] {
            assert!(Endpoint::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = Endpoint::parse("https://Hub.org").unwrap();
        for (text, same) in [
            ("https://hub.org/x", true),
            ("https://hub.org:443/x", true),
            ("https://hub.org:444/x", false),
            ("http://hub.org/x", false),
            ("https://hub.org.evil.com/x", false),
            ("https://cdn.hub.org/x", false),
        ] {
            assert_eq!(hub.is_origin_of(&text.parse().unwrap()), same, "{text}");
        }
    }

    #[test]
    fn redirects_lead_to_addresses_alone() {
        let from = "https://hub.org/a/b?q".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.org/x?sign=1", Some("https://cdn.org/x?sign=1")),
            ("//cdn.org/x", Some("https://cdn.org/x")),
            ("/x/y?z", Some("https://hub.org/x/y?z")),
            ("c", Some("https://hub.org/a/c")),
            ("?r", Some("https://hub.org/a/b?r")),
            (
                "/login?next=https://hub.org/x",
                Some("https://hub.org/login?next=https://hub.org/x"),
            ),
            ("c?next=//x", Some("https://hub.org/a/c?next=//x")),
            ("", None),
            ("#part", None),
            ("http://cdn.org/x", None),
            ("file:///etc/passwd", None),
            ("https://user:secret@cdn.org/", None),
            ("//user:secret@cdn.org/x", None),
            ("cdn.org:443", None),
            ("https://", None),
            ("https://a b/", None),
        ] {
            let found = redirected(&from, location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
        let plain = "http://127.0.0.1:1/a".parse().unwrap();
        assert!(redirected(&plain, "http://localhost:2/b").is_some());
    }

    #[test]
    fn signatures_and_passwords_are_not_shown() {
        let uri = "https://me:secret@cdn.org:8443/x?signature=secret";
        assert_eq!(public(&uri.parse().unwrap()), "https://cdn.org:8443/x");
    }
}
