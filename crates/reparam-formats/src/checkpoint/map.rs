//! The one memory map of this crate.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::FormatError;

/// Maps a file into memory, read-only.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, FormatError> {
    let failed = |source| FormatError::io("read", path, source);
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(FormatError::NoSuchFile {
            path: path.to_path_buf(),
        });
    }
    #[expect(
        unsafe_code,
        reason = "a checkpoint larger than memory can only be read by mapping it"
    )]
    // SAFETY: The map is private and read-only, and is only ever seen as `&[u8]`, for which every
    // byte value is valid. What the type system cannot rule out is another process that shortens
    // or rewrites the file while it is mapped. The writers of this crate never do: they replace
    // files by rename, which leaves the mapped one as it is.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(failed)
}
