//! What a file is, by its first bytes.

use super::{ImageKind, Kind};

/// Beginnings that belong to one format alone.
const MAGIC: [(&[u8], Kind); 20] = [
    (
        b"version https://git-lfs.github.com/spec/",
        Kind::LfsPointer,
    ),
    (b"version https://hawser.github.com/spec/", Kind::LfsPointer),
    (b"GGUF", Kind::Gguf),
    (b"\x93NUMPY", Kind::Numpy),
    (b"\x1f\x8b", Kind::Gzip),
    (b"\xfd7zXZ\0", Kind::Xz),
    (b"\x28\xb5\x2f\xfd", Kind::Zstd),
    (b"7z\xbc\xaf\x27\x1c", Kind::SevenZip),
    (b"PAR1", Kind::Parquet),
    (b"ARROW1", Kind::Arrow),
    (b"\xff\xff\xff\xff\x10\0\0\0", Kind::Arrow),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind::Office),
    (b"%PDF-", Kind::Pdf),
    (b"SQLite format 3\0", Kind::Sqlite),
    (b"\x89HDF\r\n\x1a\n", Kind::Hdf5),
    (b"\x89PNG\r\n\x1a\n", Kind::Image(ImageKind::Png)),
    (b"\xff\xd8\xff", Kind::Image(ImageKind::Jpeg)),
    (b"GIF8", Kind::Image(ImageKind::Gif)),
    (b"II*\0", Kind::Image(ImageKind::Tiff)),
    (b"MM\0*", Kind::Image(ImageKind::Tiff)),
];

/// Returns what a file is whose first bytes these are, or `None` if they are those of a text or of nothing known.
///
/// [`HEAD_BYTES`](super::HEAD_BYTES) are enough; fewer may do. Formats of text (JSON, tables) are left to
/// [`kind_of_text`], with the exception of a Git LFS pointer, which is never what was meant.
///
/// ```
/// use reparam_formats::identify::{Kind, kind_of_bytes};
///
/// assert_eq!(kind_of_bytes(b"PAR1\x15\x04\x15"), Some(Kind::Parquet));
/// assert_eq!(kind_of_bytes("Once upon a time".as_bytes()), None);
/// ```
pub fn kind_of_bytes(head: &[u8]) -> Option<Kind> {
    let known = MAGIC.iter().find(|(magic, _)| head.starts_with(magic));
    // A text may begin with the letters of `PAR1`, `GIF8` or `GGUF`; what follows them in such a file is never text.
    let is_certain = |magic: &[u8], kind: &Kind| {
        matches!(kind, Kind::LfsPointer | Kind::Pdf)
            || !magic.is_ascii()
            || !is_text(&head[..head.len().min(64)])
    };
    if let Some((magic, kind)) = known
        && is_certain(magic, kind)
    {
        return Some(kind.clone());
    }
    // After the level of compression come the digits of pi.
    if head.starts_with(b"BZh") && head.get(4..10) == Some(b"1AY&SY") {
        return Some(Kind::Bzip2);
    }
    let word = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Some(kind_of_zip(head));
    }
    if head.get(8) == Some(&b'{') && word(0).is_some_and(|length| length < 1 << 32) {
        return Some(Kind::Safetensors);
    }
    if matches!(head, [0x80, 2..=5, rest @ ..] if !rest.is_empty()) {
        return Some(Kind::Pickle);
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some(Kind::Image(ImageKind::Webp));
    }
    // The reserved bytes of the header are zero.
    if head.starts_with(b"BM") && head.get(6..10) == Some(&[0; 4]) {
        return Some(Kind::Image(ImageKind::Bmp));
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(Kind::Tar);
    }
    is_sentencepiece(head).then_some(Kind::SentencePiece)
}

/// Returns what a ZIP archive is by the name of its first entry.
fn kind_of_zip(head: &[u8]) -> Kind {
    let length = match head.get(26..28) {
        Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
        _ => 0,
    };
    let name = head.get(30..30 + length).unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    // `torch.save` names the folder after the file.
    let is_torch = name.ends_with("/data.pkl") || name.ends_with("/.format_version");
    if is_torch || name.ends_with("/byteorder") {
        Kind::PyTorch
    } else if name.ends_with(".npy") {
        Kind::Npz
    } else if name == "[Content_Types].xml" || name == "mimetype" || name == "_rels/.rels" {
        Kind::Office
    } else {
        Kind::Zip
    }
}

/// Whether this is a serialized `ModelProto` of SentencePiece: it begins with a piece, a message of a string and a score.
fn is_sentencepiece(head: &[u8]) -> bool {
    let &[0x0a, message, 0x0a, length, ref rest @ ..] = head else {
        return false;
    };
    // The score is field 2, a fixed 32-bit number.
    let end = usize::from(length);
    usize::from(message) >= end + 7 && rest.get(end) == Some(&0x15)
}

/// Returns what a text is whose beginning this is; `None` if it is no text in UTF-8.
///
/// It is a guess from the first lines, to describe a file and not to choose how it is read.
pub fn kind_of_text(head: &[u8]) -> Option<Kind> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if !is_text(text.as_bytes()) {
        return None;
    }
    let text = text.trim_start();
    let lower: String = text.chars().take(16).collect::<String>().to_lowercase();
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        return Some(Kind::Html);
    }
    if text.starts_with('{') || text.starts_with('[') {
        let first = text.lines().next().unwrap_or_default().trim_end();
        let is_whole = serde_json::from_str::<serde::de::IgnoredAny>(first).is_ok();
        let is_line = first.starts_with('{') && is_whole && text.lines().count() > 1;
        return Some(if is_line { Kind::JsonLines } else { Kind::Json });
    }
    let separators = ['\t', ';', ','].into_iter();
    let table = separators.filter(|separator| is_table(text, *separator));
    Some(table.map(Kind::Table).next().unwrap_or(Kind::Text))
}

/// Whether the first lines all have the same number of this separator, outside of quotes.
fn is_table(text: &str, separator: char) -> bool {
    let count = |line: &str| {
        let mut quoted = false;
        let mut count = 0;
        for character in line.chars() {
            quoted ^= character == '"';
            count += usize::from(character == separator && !quoted);
        }
        count
    };
    // The last line may be cut.
    let lines: Vec<&str> = text.lines().take(6).collect();
    let whole = match lines.len() {
        6 => &lines[..5],
        _ if text.ends_with('\n') || lines.len() < 2 => &lines[..],
        n => &lines[..n - 1],
    };
    let Some(columns) = whole.first().map(|line| count(line)) else {
        return false;
    };
    columns > 0 && lines.len() > 1 && whole.iter().all(|line| count(line) == columns)
}

/// Whether bytes have no control characters but white space.
fn is_text(bytes: &[u8]) -> bool {
    let is_control = |byte: &u8| *byte < 0x20 && !b"\t\n\r\x0c".contains(byte) || *byte == 0x7f;
    !bytes.iter().any(is_control)
}
