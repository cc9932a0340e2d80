//! Pages whose numbers are written as differences: how many there are, such a page says behind its levels, and the library
//! reserves memory for the lengths of as many texts.

use parquet::basic::Encoding;
use parquet::column::page::Page;

use super::Said;

/// The values that a byte of a page has at most: a block of 256 equal ones takes 5 bytes, as writers write them.
const A_BYTE: u64 = 64;

/// The most values of a page, whose lengths are in memory together.
const MAX: u64 = 1 << 26;

/// The levels of a column: the deepest repetition and the deepest definition.
#[derive(Clone, Copy)]
pub(super) struct Levels {
    pub(super) repetition: i16,
    pub(super) definition: i16,
}

/// Checks a page of texts.
///
/// # Errors
///
/// What is wrong with it, in words.
pub(super) fn check(page: &Page, levels: Levels) -> Said<()> {
    let streams = match page.encoding() {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
        // The lengths of what is as in the text before, then those of the rest.
        Encoding::DELTA_BYTE_ARRAY => 2,
        _ => return Ok(()),
    };
    let most = (page.buffer().len() as u64).saturating_mul(A_BYTE).min(MAX);
    let most = most.min(page.num_values().into());
    let mut rest = values(page, levels)?;
    for _ in 0..streams {
        rest = behind(rest, most)?;
    }
    Ok(())
}

fn cut() -> String {
    "a page is cut short".to_owned()
}

/// The bytes of a data page behind its levels.
fn values(page: &Page, levels: Levels) -> Said<&[u8]> {
    match page {
        Page::DictionaryPage { buf, .. } => Ok(buf),
        Page::DataPageV2 {
            buf,
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } => {
            let length = def_levels_byte_len.checked_add(*rep_levels_byte_len);
            let values = length.and_then(|length| buf.get(length as usize..));
            values.ok_or_else(cut)
        }
        Page::DataPage {
            buf,
            num_values,
            def_level_encoding,
            rep_level_encoding,
            ..
        } => {
            let mut rest = &buf[..];
            for (most, encoding) in [
                (levels.repetition, *rep_level_encoding),
                (levels.definition, *def_level_encoding),
            ] {
                let length = match (most, encoding) {
                    (..=0, _) => continue,
                    (_, Encoding::RLE) => {
                        let (length, behind) = rest.split_first_chunk().ok_or_else(cut)?;
                        rest = behind;
                        u32::from_le_bytes(*length) as usize
                    }
                    #[expect(deprecated, reason = "old files have them")]
                    (most, Encoding::BIT_PACKED) => {
                        let bits = u64::from(most.unsigned_abs().ilog2() + 1);
                        (u64::from(*num_values) * bits).div_ceil(8) as usize
                    }
                    (_, other) => return Err(format!("a page has levels written as {other}")),
                };
                rest = rest.get(length..).ok_or_else(cut)?;
            }
            Ok(rest)
        }
    }
}

/// Returns what stands behind a stream of numbers, of which there may be so many.
fn behind(mut rest: &[u8], most: u64) -> Said<&[u8]> {
    let (block, parts) = (varint(&mut rest)?, varint(&mut rest)?);
    let count = varint(&mut rest)?;
    if count > most {
        return Err(format!(
            "a page has the lengths of {count} texts by its own word, and room for {most}"
        ));
    }
    let _first = varint(&mut rest)?;
    let in_part = block.checked_div(parts).filter(|values| *values > 0);
    let in_part = in_part.ok_or("a page has blocks without numbers")?;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        let _least = varint(&mut rest)?;
        let parts = usize::try_from(parts).map_err(|_| cut())?;
        let (widths, behind) = rest.split_at_checked(parts).ok_or_else(cut)?;
        let mut length = 0_u64;
        for width in widths {
            // The widths of parts that nothing is in say nothing.
            if left == 0 {
                break;
            }
            let bits = in_part.checked_mul(u64::from(*width)).ok_or_else(cut)?;
            length = length.checked_add(bits / 8).ok_or_else(cut)?;
            left = left.saturating_sub(in_part);
        }
        let length = usize::try_from(length).map_err(|_| cut())?;
        rest = behind.get(length..).ok_or_else(cut)?;
    }
    Ok(rest)
}

fn varint(rest: &mut &[u8]) -> Said<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or_else(cut)?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number of a page has more than 64 bits".to_owned())
}
