//! What the footer of a Parquet file may say before the library reads it: the library reserves memory for as many children as a
//! column says that it has, and calls itself once a level.
//!
//! The footer is one struct of Thrift's compact protocol. Only its schema is walked here; each field has to be of the type that
//! the format gives it, because the library reads by that type, whatever the file says.

use reparam_formats::file::InputFile;

use super::Said;

/// The last bytes of a file: the length of the footer, then this.
const MAGIC: &[u8; 4] = b"PAR1";

/// The most bytes of a footer, of which the library makes some hundred times as many. Those of 100 000 column chunks have less.
const MAX_FOOTER: usize = 16 << 20;

/// How deep columns and what Thrift nests may be in one another.
const MAX_DEPTH: usize = 64;

/// Checks the footer of a file.
///
/// # Errors
///
/// What is wrong with it, in words.
pub(super) fn check(file: &InputFile) -> Said<()> {
    let cut = || "it is cut short".to_owned();
    let failed = |error: reparam_formats::FormatError| error.to_string();
    let mut end = [0; 8];
    let at = file.len().checked_sub(end.len() as u64).ok_or_else(cut)?;
    file.read_at(&mut end, at).map_err(failed)?;
    let ([a, b, c, d, ..], true) = (end, end.ends_with(MAGIC)) else {
        return Err("it does not end with PAR1".to_owned());
    };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MAX_FOOTER {
        return Err(format!(
            "its footer has {length} bytes, more than {MAX_FOOTER}"
        ));
    }
    let mut footer = vec![0; length];
    let at = at.checked_sub(length as u64).ok_or_else(cut)?;
    file.read_at(&mut footer, at).map_err(failed)?;
    Thrift { rest: &footer }.footer()
}

/// The types of Thrift's compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I32: u8 = 5;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// What a field of a struct has to be.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Byte,
    I32,
    Binary,
    Struct(&'static [(i16, Kind)]),
}

const EMPTY: Kind = Kind::Struct(&[]);
const UNIT: Kind = Kind::Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]);
const TIME: Kind = Kind::Struct(&[(1, Kind::Bool), (2, UNIT)]);

/// The field of a schema's element that says how many children it has.
const CHILDREN: i16 = 5;

/// The fields of a schema's element.
const ELEMENT: &[(i16, Kind)] = &[
    (1, Kind::I32),
    (2, Kind::I32),
    (3, Kind::I32),
    (4, Kind::Binary),
    (CHILDREN, Kind::I32),
    (6, Kind::I32),
    (7, Kind::I32),
    (8, Kind::I32),
    (9, Kind::I32),
    (10, Kind::Struct(LOGICAL)),
];

/// The logical types.
const LOGICAL: &[(i16, Kind)] = &[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Kind::Struct(&[(1, Kind::I32), (2, Kind::I32)])),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, Kind::Struct(&[(1, Kind::Byte), (2, Kind::Bool)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Kind::Struct(&[(1, Kind::Byte)])),
    (17, Kind::Struct(&[(1, Kind::Binary)])),
    (18, Kind::Struct(&[(1, Kind::Binary), (2, Kind::I32)])),
];

/// What is left of a footer.
struct Thrift<'a> {
    rest: &'a [u8],
}

impl Thrift<'_> {
    /// Reads up to the end of the schema, which only the version stands before.
    fn footer(mut self) -> Said<()> {
        let mut last = 0;
        loop {
            match self.field(&mut last)? {
                Some((I32, 1)) => drop(self.varint()?),
                Some((LIST, 2)) => return self.schema(),
                _ => return Err("its footer has no schema".to_owned()),
            }
        }
    }

    /// Walks the elements of the schema, each of which stands before its children.
    fn schema(&mut self) -> Said<()> {
        let (kind, size) = self.list()?;
        if kind != STRUCT || size > self.rest.len() {
            return Err("its schema is no list of columns".to_owned());
        }
        // The children that are still to come, of each element above.
        let mut open: Vec<usize> = Vec::new();
        for read in 0..size {
            while open.pop_if(|children| *children == 0).is_some() {}
            if let Some(children) = open.last_mut() {
                *children -= 1;
            }
            let children = self.fields(ELEMENT, 0)?;
            let left = size - read - 1;
            if usize::try_from(children).is_ok_and(|children| children <= left) {
                open.push(children as usize);
            } else {
                return Err(format!(
                    "a column says that it has {children} children, and {left} columns are left"
                ));
            }
            if open.len() > MAX_DEPTH {
                return Err(format!("its columns are nested more than {MAX_DEPTH} deep"));
            }
        }
        Ok(())
    }

    /// Reads the fields of a struct, and returns the number of children that it says.
    fn fields(&mut self, known: &[(i16, Kind)], depth: usize) -> Said<i64> {
        let (mut last, mut children) = (0, 0);
        while let Some((found, id)) = self.field(&mut last)? {
            let kind = known.iter().find(|(known, _)| *known == id);
            match (kind.map(|(_, kind)| *kind), found) {
                (None, found) => self.skip(found, depth)?,
                (Some(Kind::Bool), TRUE | FALSE) => {}
                (Some(Kind::Byte), BYTE) | (Some(Kind::Binary), BINARY) => {
                    self.skip(found, depth)?;
                }
                (Some(Kind::I32), I32) => {
                    let value = self.varint()?;
                    if depth == 0 && id == CHILDREN {
                        // Zigzag: the sign is the last bit.
                        children = (value >> 1) as i64 ^ -((value & 1) as i64);
                    }
                }
                (Some(Kind::Struct(known)), STRUCT) => drop(self.fields(known, depth + 1)?),
                _ => return Err(format!("field {id} of a column is of another type")),
            }
        }
        Ok(children)
    }

    /// Reads the head of a field: its type and its number, counted on from the last one.
    fn field(&mut self, last: &mut i16) -> Said<Option<(u8, i16)>> {
        let byte = self.byte()?;
        if byte & 0xf == 0 {
            return Ok(None);
        }
        // Without a distance, numbers could repeat.
        let distance = i16::from(byte >> 4);
        let id = last.checked_add(distance).filter(|_| distance > 0);
        *last = id.ok_or("the fields of its footer are in no order")?;
        Ok(Some((byte & 0xf, *last)))
    }

    fn list(&mut self) -> Said<(u8, usize)> {
        let head = self.byte()?;
        let size = match head >> 4 {
            15 => usize::try_from(self.varint()?).map_err(|error| error.to_string())?,
            size => usize::from(size),
        };
        Ok((head & 0xf, size))
    }

    /// Passes over a value of a type as the library does.
    fn skip(&mut self, kind: u8, depth: usize) -> Said<()> {
        if depth >= MAX_DEPTH {
            return Err("its footer is nested too deep".to_owned());
        }
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.byte().map(drop),
            // I16, I32, I64.
            4..=6 => self.varint().map(drop),
            // Double.
            7 => self.pass(8),
            BINARY => {
                let length = self.varint()?;
                self.pass(usize::try_from(length).unwrap_or(usize::MAX))
            }
            // A list or a set. Each element of another type than a truth value has a byte.
            LIST | 10 => {
                let (kind, size) = self.list()?;
                match kind {
                    TRUE | FALSE => Ok(()),
                    kind => (0..size).try_for_each(|_| self.skip(kind, depth + 1)),
                }
            }
            STRUCT => {
                let mut last = 0;
                while let Some((kind, _)) = self.field(&mut last)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            kind => Err(format!("its footer has a value of the type {kind}")),
        }
    }

    fn byte(&mut self) -> Said<u8> {
        let (first, rest) = self.rest.split_first().ok_or("its footer is cut short")?;
        self.rest = rest;
        Ok(*first)
    }

    fn pass(&mut self, length: usize) -> Said<()> {
        self.rest = self.rest.get(length..).ok_or("its footer is cut short")?;
        Ok(())
    }

    fn varint(&mut self) -> Said<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number of its footer has more than 64 bits".to_owned())
    }
}
