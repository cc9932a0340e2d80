//! What a server or the cache calls things, checked before any of it becomes a path.

use crate::checkpoint::sha256_bytes;

/// The longest `ETag` that is looked at, in bytes.
const MAX_ETAG: usize = 256;

/// A full Git commit, as 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit(String);

impl Commit {
    pub(super) fn parse(text: &str) -> Option<Self> {
        is_hexadecimal(text, 40).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What names the content of a file: the digest that the hub gives as `ETag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Etag {
    /// The SHA-256 of a large file.
    Sha256(String),
    /// The hash that Git has of a small file.
    Git(String),
    /// Anything else, by the name that its blob gets.
    Opaque(String),
}

impl Etag {
    /// Reads the value of the header of a file, weak or not; `None` if there is nothing in it.
    pub(super) fn parse(header: &str, file: FileName<'_>) -> Option<Self> {
        let text = header.trim();
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        if text.is_empty() || text.len() > MAX_ETAG {
            return None;
        }
        Some(if is_hexadecimal(text, 64) {
            Self::Sha256(text.to_owned())
        } else if is_hexadecimal(text, 40) {
            Self::Git(text.to_owned())
        } else {
            // Any text can stand here, so a path is made of its digest; that of two files may be the same.
            let named = format!("{}\n{text}", file.as_str());
            Self::Opaque(format!("etag-{}", sha256_bytes(named.as_bytes())))
        })
    }

    /// Returns the name of the blob, a plain file name.
    pub(super) fn blob(&self) -> &str {
        match self {
            Self::Sha256(name) | Self::Git(name) | Self::Opaque(name) => name,
        }
    }
}

/// The path of a file in a repository: plain names, joined by `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileName<'a>(&'a str);

impl<'a> FileName<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.len() <= 255
                // `:` is a drive or a stream on Windows.
                && !part.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
        };
        text.split('/').all(is_plain).then_some(Self(text))
    }

    pub(super) fn as_str(self) -> &'a str {
        self.0
    }

    pub(super) fn parts(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_a_commit() {
        let commit = "0123456789abcdef0123456789ABCDEF01234567";
        assert_eq!(Commit::parse(commit).unwrap().as_str(), commit);
        for text in ["", "main", "../../../../CMT", &commit[1..], &"/".repeat(40)] {
            assert_eq!(Commit::parse(text), None, "{text:?}");
        }
        // 40 bytes of which some are half a character.
        assert_eq!(Commit::parse(&"é".repeat(20)), None);
    }

    #[test]
    fn a_blob_has_a_plain_name_whatever_the_etag_is() {
        let file = FileName::parse("config.json").unwrap();
        let (git, sha) = ("a".repeat(40), "0".repeat(64));
        assert_eq!(
            Etag::parse(&format!("\"{git}\""), file),
            Some(Etag::Git(git))
        );
        assert_eq!(
            Etag::parse(&format!("W/\"{sha}\""), file),
            Some(Etag::Sha256(sha))
        );
        assert_eq!(Etag::parse("\"\"", file), None);
        assert_eq!(Etag::parse(&"x".repeat(1000), file), None);
        let odd = ["\"/etc/passwd\"", "\"../../../PWN\"", "a\\b", "..", "e-1"];
        let mut names: Vec<String> = odd
            .map(|etag| Etag::parse(etag, file).unwrap().blob().to_owned())
            .into();
        for name in &names {
            assert!(name.len() == 69 && name.starts_with("etag-"), "{name}");
            assert!(is_hexadecimal(&name[5..], 64), "{name}");
        }
        let other = FileName::parse("model.safetensors").unwrap();
        names.push(Etag::parse(odd[0], other).unwrap().blob().to_owned());
        names.sort();
        names.dedup();
        assert_eq!(names.len(), odd.len() + 1);
    }

    #[test]
    fn files_stay_in_their_repository() {
        for name in ["config.json", "onnx/model.safetensors", "..a", "名字"] {
            assert_eq!(FileName::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            ".",
            "a\\b",
            "c:x",
            "a\0",
            "a\nb",
        ] {
            assert_eq!(FileName::parse(name), None, "{name:?}");
        }
        assert_eq!(FileName::parse(&"x".repeat(256)), None);
    }
}
