//! SHA-256 of files and tensors, for the record of where a run's numbers came from.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Checkpoint;
use crate::FormatError;
use crate::file::InputFile;

/// Returns the SHA-256 of a file's bytes, in lower-case hexadecimal.
///
/// # Errors
///
/// Those of reading the file.
pub fn sha256_file(path: &Path) -> Result<String, FormatError> {
    let file = InputFile::open(path)?;
    let mut hasher = Sha256::new();
    file.pieces(0, file.len(), 1 << 20, |bytes| hasher.update(bytes))?;
    Ok(hexadecimal(&hasher.finalize()))
}

/// Returns the SHA-256 of some bytes, in lower-case hexadecimal.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Checkpoint {
    /// Returns the SHA-256 of each tensor's stored bytes, by name.
    ///
    /// Only the numbers count: the digests are the same however the tensors are spread over files.
    ///
    /// # Errors
    ///
    /// Those of [`InputFile::read_at`].
    pub fn sha256_tensors(&self) -> Result<BTreeMap<String, String>, FormatError> {
        self.tensors()
            .map(|(name, tensor)| {
                let mut hasher = Sha256::new();
                tensor.pieces(|bytes| hasher.update(bytes))?;
                Ok((name.to_owned(), hexadecimal(&hasher.finalize())))
            })
            .collect()
    }
}
