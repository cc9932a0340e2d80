//! SHA-256 of files and tensors, for the record of where a run's numbers came from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Checkpoint;
use crate::FormatError;

/// Returns the SHA-256 of a file's bytes, in lower-case hexadecimal.
///
/// # Errors
///
/// Those of reading the file.
pub fn sha256_file(path: &Path) -> Result<String, FormatError> {
    let failed = |source| FormatError::io("read", path, source);
    let file = File::open(path).map_err(failed)?;
    sha256_reader(BufReader::with_capacity(1 << 20, file)).map_err(failed)
}

/// Returns the SHA-256 of some bytes, in lower-case hexadecimal.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Returns the SHA-256 of all that a reader gives.
pub(crate) fn sha256_reader<R: Read>(mut reader: R) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut reader, &mut hasher)?;
    Ok(hexadecimal(&hasher.finalize()))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Checkpoint {
    /// Returns the SHA-256 of each tensor's stored bytes, by name.
    ///
    /// Only the numbers count: the digests are the same however the tensors are spread over files.
    pub fn sha256_tensors(&self) -> BTreeMap<String, String> {
        self.tensors()
            .map(|(name, view)| (name.to_owned(), sha256_bytes(view.bytes)))
            .collect()
    }
}
