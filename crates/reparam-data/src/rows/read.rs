//! Reading rows from JSON, tables and lines.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use reparam_formats::nearest;

use super::error::{Result, RowError};
use super::format::RowFormat;
use super::parallel::read_parallel;
use super::sequences::other_names;
use crate::error::DataError;
use crate::source::{
    Column, Dialect, DocumentSource, Faults, Fields, FileDigest, Format, OnError, Records, Skipped,
    check_width, column, json, json_type, parquet, paths, read_data, utf8,
};

#[cfg(test)]
mod tests;

/// The fields of a task's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Every row has them.
    pub required: &'static [&'static str],
    /// A row may have them. If [`Fields`] names one, every row must.
    pub optional: &'static [&'static str],
    /// Known to the task and not read; [`Fields`] may name them.
    pub unread: &'static [&'static str],
}

impl Schema {
    pub(super) fn read(&self) -> impl Iterator<Item = &'static str> {
        self.required.iter().chain(self.optional).copied()
    }

    /// Whether a field is read if it is there.
    pub(super) fn reads(&self, field: &str) -> bool {
        self.read().any(|read| read == field)
    }

    /// Checks that only fields of the task are named.
    fn check(&self, fields: &Fields) -> Result<()> {
        let known: Vec<&str> = self.read().chain(self.unread.iter().copied()).collect();
        Ok(fields.check(known.into_iter())?)
    }
}

/// How to read rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowsOptions {
    /// The format of all files, or `None` to tell each from its name.
    pub format: Option<RowFormat>,
    /// Which column holds which field.
    pub fields: Fields,
}

/// A row's fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub place: DocumentSource,
    pub(super) values: Vec<(&'static str, Value)>,
}

impl Row {
    /// The value of a field; a cell of a table is a string. `None` where it is missing or null.
    #[must_use]
    pub fn value(&self, field: &str) -> Option<&Value> {
        let mut values = self.values.iter();
        let (_, value) = values.find(|(name, _)| *name == field)?;
        (!value.is_null()).then_some(value)
    }

    /// Whether a field was read, be it null.
    pub(super) fn has(&self, field: &str) -> bool {
        self.values.iter().any(|(name, _)| *name == field)
    }

    /// A field that is a text.
    ///
    /// # Errors
    ///
    /// [`RowError::WrongType`] if it is something else.
    pub fn text(&self, field: &'static str) -> Result<Option<String>> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong_type(field, "a string", json_type(other).to_owned())),
        }
    }

    /// The texts of a field that is one or a list of at least one; `None` for each that is null.
    pub(super) fn texts(&self, field: &'static str) -> Result<Vec<Option<String>>> {
        let wrong = |found: String| self.wrong_type(field, "a string or a list of strings", found);
        match self.value(field) {
            Some(Value::Array(list)) if list.is_empty() => Err(wrong("an empty list".to_owned())),
            Some(Value::Array(list)) => list
                .iter()
                .map(|entry| match entry {
                    Value::String(text) => Ok(Some(text.clone())),
                    other => Err(wrong(format!("a list with {}", json_type(other)))),
                })
                .collect(),
            Some(Value::String(text)) => Ok(vec![Some(text.clone())]),
            Some(other) => Err(wrong(json_type(other).to_owned())),
            None => Ok(vec![None]),
        }
    }

    /// A field that is a finite number: in JSON a number, in a table a cell that is one. A blank cell has none.
    ///
    /// # Errors
    ///
    /// [`RowError::WrongType`] if it is something else.
    pub fn number(&self, field: &'static str) -> Result<Option<f64>> {
        let (number, found) = match self.value(field) {
            None => return Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
            Some(Value::String(text)) => (text.trim().parse().ok(), format!("\"{text}\"")),
            Some(other) => (other.as_f64(), json_type(other).to_owned()),
        };
        match number.filter(|number: &f64| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong_type(field, "a finite number", found)),
        }
    }

    pub(super) fn wrong_type(
        &self,
        field: &'static str,
        expected: &'static str,
        found: String,
    ) -> RowError {
        RowError::WrongType {
            place: self.place.clone(),
            field,
            expected,
            found,
        }
    }
}

/// The rows of a list of files, each read or in error.
#[derive(Debug)]
pub struct Rows<T> {
    /// One entry a row, in the order of the paths and, in a file, of its rows.
    pub rows: Vec<Result<T>>,
    /// One digest a file, in the order in which they were read.
    pub files: Vec<FileDigest>,
    /// Files of directories and patterns that were left out, for their names do not say that they hold rows.
    pub left_out: Vec<PathBuf>,
}

impl<T> Rows<T> {
    /// Makes something of each row that was read.
    pub fn and_then<U>(self, mut make: impl FnMut(T) -> Result<U>) -> Rows<U> {
        let rows = self
            .rows
            .into_iter()
            .map(|row| row.and_then(&mut make))
            .collect();
        Rows {
            rows,
            files: self.files,
            left_out: self.left_out,
        }
    }

    /// Returns the rows that were read, and how many were not.
    ///
    /// # Errors
    ///
    /// With [`OnError::Stop`] the error of the first row that has one, with all others of its kind;
    /// [`RowError::NothingLeft`] if every row has one.
    pub fn settle(self, on_error: OnError) -> Result<(Vec<T>, Skipped)> {
        let (rows, skipped) = self.settled(on_error)?;
        Ok((rows.rows.into_iter().flatten().collect(), skipped))
    }

    /// [`settle`](Self::settle), with the files that the rows are of.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn settled(self, on_error: OnError) -> Result<(Self, Skipped)> {
        let n_rows = self.rows.len();
        let mut read = Vec::with_capacity(n_rows);
        let mut faults = Faults::new(on_error);
        for row in self.rows {
            match row {
                Ok(row) => read.push(Ok(row)),
                Err(error) => faults.add(error)?,
            }
        }
        let nothing_left = |_, first| RowError::NothingLeft {
            rows: n_rows,
            first: Box::new(first),
        };
        let skipped = faults.finish(read.len(), nothing_left)?;
        let rows = Self {
            rows: read,
            files: self.files,
            left_out: self.left_out,
        };
        Ok((rows, skipped))
    }
}

/// Reads the rows of `paths` in order. Fields that the schema does not have are ignored; blank lines are no rows, except
/// with [`RowFormat::Lines`]. With [`RowFormat::Parallel`], paths come in pairs, each of sources and of their targets.
///
/// # Errors
///
/// Of a file as a whole: that it cannot be read, is not UTF-8, has no rows, or a header without a required column; JSON that
/// is broken inside of an array, and quotes of CSV that do not match, for behind them rows would be lost in silence; parallel
/// files without a second one, or with more lines than it.
/// What is wrong with one row is in its place in [`Rows::rows`]: a line that is no JSON object, a record that is too short
/// or too long, a field that is missing.
///
/// # Cost
///
/// One file at a time is in memory beside the rows.
pub fn read_rows(paths: &[PathBuf], schema: &Schema, options: &RowsOptions) -> Result<Rows<Row>> {
    schema.check(&options.fields)?;
    if let Some(format) = options.format {
        format.check(schema, None)?;
    }
    if options.format == Some(RowFormat::Parallel) {
        return read_parallel(paths, schema);
    }
    let is_data = |path: &Path| match options.format {
        None => RowFormat::of(path).is_some_and(|format| format.lacks(schema).is_none()),
        // Where lines are meant, so is every text.
        Some(format) => Format::of_name(path).is_some() || RowFormat::of(path) == Some(format),
    };
    let found = paths::find(paths, is_data)?;
    let mut rows = Rows {
        rows: Vec::new(),
        files: Vec::with_capacity(found.files.len()),
        left_out: found.left_out,
    };
    for path in &found.files {
        let format = options.format.or_else(|| RowFormat::of(path));
        let format = format.ok_or_else(|| RowError::NoFormat {
            path: path.clone(),
            known: RowFormat::of_schema(schema),
        })?;
        format.check(schema, Some(path))?;
        let fields = &options.fields;
        let mut file = File {
            path,
            text: "",
            schema,
            fields,
        };
        if format == RowFormat::Parquet {
            let digest = file.parquet(&mut rows.rows)?;
            rows.files.push(digest);
            continue;
        }
        let (bytes, digest) = read_data(path)?;
        rows.files.push(digest);
        file.text = utf8(path, &bytes)?;
        if file.text.is_empty() {
            return Err(DataError::EmptyFile { path: path.clone() }.into());
        }
        match format {
            RowFormat::Jsonl if file.is_squad() => file.questions(&mut rows.rows)?,
            RowFormat::Jsonl => file.objects(&mut rows.rows)?,
            RowFormat::Csv => file.table(Dialect::of_csv(file.text), &mut rows.rows)?,
            RowFormat::Tsv => file.table(Dialect::TSV, &mut rows.rows)?,
            RowFormat::Lines => file.lines(&mut rows.rows),
            RowFormat::Conll => file.sentences(&mut rows.rows)?,
            RowFormat::Squad => file.questions(&mut rows.rows)?,
            RowFormat::Bars => file.bars(&mut rows.rows)?,
            // Read above; no name says the other, and where it is chosen, files are read in pairs.
            RowFormat::Parquet | RowFormat::Parallel => {}
        }
    }
    Ok(rows)
}

/// A file that is being read.
pub(super) struct File<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) schema: &'a Schema,
    pub(super) fields: &'a Fields,
}

impl File<'_> {
    /// Whether a field must be there.
    pub(super) fn demands(&self, field: &str) -> bool {
        self.schema.required.contains(&field) || self.fields.names(field)
    }

    /// Whether a field may have this name, too.
    fn is_other_name(&self, field: &str, name: &str) -> bool {
        !self.fields.names(field) && other_names(field).contains(&name)
    }

    /// The key of a field in an object or a header: what was chosen, else its own name, else the only other name of it that
    /// is there.
    fn key<'b>(&'b self, field: &'b str, is_there: impl Fn(&str) -> bool) -> &'b str {
        let key = self.fields.key(field);
        if self.fields.names(field) || is_there(key) {
            return key;
        }
        let mut others = other_names(field).iter().filter(|name| is_there(name));
        match (others.next(), others.next()) {
            (Some(name), None) => name,
            // Nobody knows which of two is meant.
            _ => key,
        }
    }

    pub(super) fn no_column(
        &self,
        place: &DocumentSource,
        field: &'static str,
        column: &str,
        columns: &[&str],
    ) -> RowError {
        RowError::NoColumn {
            place: place.clone(),
            field,
            column: column.to_owned(),
            columns: columns
                .iter()
                .take(10)
                .map(|name| (*name).to_owned())
                .collect(),
            nearest: nearest(column, columns.iter().copied()).map(str::to_owned),
        }
    }

    /// Whether the value of a key, or what is in it, is that of a field.
    fn is_field(&self, key: &str) -> bool {
        self.schema.read().any(|field| {
            let of_field = self.fields.key(field);
            let is_around = of_field
                .split_once('.')
                .is_some_and(|(outer, _)| outer == key);
            of_field == key || is_around || self.is_other_name(field, key)
        })
    }

    fn parquet(&self, rows: &mut Vec<Result<Row>>) -> Result<FileDigest> {
        let is_wanted = |key: &str| self.is_field(key);
        Ok(parquet::rows(self.path, is_wanted, |object, place| {
            let row = object.map_err(RowError::from);
            rows.push(row.and_then(|object| self.object(object, place)));
            Ok(())
        })?)
    }

    fn objects(&self, rows: &mut Vec<Result<Row>>) -> Result<()> {
        let is_field = |key: &str| self.is_field(key);
        json::objects(self.path, self.text, is_field, |object, place| {
            rows.push(
                object
                    .map_err(RowError::from)
                    .and_then(|object| self.object(object, place)),
            );
            Ok(())
        })?;
        Ok(())
    }

    pub(super) fn object(
        &self,
        mut object: Map<String, Value>,
        place: DocumentSource,
    ) -> Result<Row> {
        let mut values = Vec::new();
        for field in self.schema.read() {
            let key = self.key(field, |key| object.contains_key(key));
            match take(&mut object, key) {
                None if self.demands(field) => {
                    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
                    return Err(self.no_column(&place, field, key, &keys));
                }
                Some(value) => values.push((field, value)),
                None => {}
            }
        }
        Ok(Row { place, values })
    }

    fn table(&self, dialect: Dialect, rows: &mut Vec<Result<Row>>) -> Result<()> {
        let path: Arc<Path> = Arc::from(self.path);
        let place = |line| DocumentSource {
            path: Arc::clone(&path),
            line,
            item: None,
        };
        let mut records = Records::new(self.path, self.text, dialect);
        let first_row = rows.len();
        let mut columns: Option<(usize, Vec<(&'static str, usize)>)> = None;
        while let Some((line, record)) = records.next()? {
            let (width, found) = match &columns {
                Some(columns) => columns,
                None => {
                    let header: Vec<&str> = record.iter().map(str::trim).collect();
                    let found = self.columns(&header, &place(line))?;
                    let columns = columns.insert((header.len(), found));
                    if !self.fields.numbered() {
                        continue;
                    }
                    columns
                }
            };
            let place = place(line);
            rows.push(match check_width(record, *width, &place) {
                Ok(()) => {
                    let cell = |column: usize| record.get(column).unwrap_or_default().to_owned();
                    let values = found
                        .iter()
                        .map(|(field, column)| (*field, Value::String(cell(*column))));
                    let values = values.collect();
                    Ok(Row { place, values })
                }
                Err(error) => Err(error.into()),
            });
        }
        if rows.len() == first_row {
            return Err(DataError::NoRows {
                path: self.path.to_owned(),
            }
            .into());
        }
        Ok(())
    }

    /// Finds the column of each field in the header, or in the first record of a table without one.
    fn columns(
        &self,
        header: &[&str],
        place: &DocumentSource,
    ) -> Result<Vec<(&'static str, usize)>> {
        let mut columns = Vec::new();
        for field in self.schema.read() {
            let missing = |name: &str| {
                let found: Vec<String> = match self.fields.numbered() {
                    true => vec![format!("{} columns", header.len())],
                    false => header.iter().map(|name| (*name).to_owned()).collect(),
                };
                let found: Vec<&str> = found.iter().map(String::as_str).collect();
                self.no_column(place, field, name, &found)
            };
            match self.fields.table_column(field) {
                Some(Column::Number(number)) if number < header.len() => {
                    columns.push((field, number));
                }
                Some(Column::Number(_)) => return Err(missing(self.fields.key(field))),
                Some(Column::Name(_)) => {
                    let name = self.key(field, |key| header.contains(&key));
                    match column(header, name, place)? {
                        Some(column) => columns.push((field, column)),
                        None if self.demands(field) => return Err(missing(name)),
                        None => {}
                    }
                }
                None if self.demands(field) => return Err(missing(field)),
                None => {}
            }
        }
        Ok(columns)
    }

    fn lines(&self, rows: &mut Vec<Result<Row>>) {
        let path: Arc<Path> = Arc::from(self.path);
        // It is the one column that there is, whatever `fields` says of tables.
        let mut fields = RowFormat::LINE.into_iter();
        let Some(field) = fields.find(|field| self.schema.reads(field)) else {
            return;
        };
        for (content, line) in self.text.lines().zip(1..) {
            let place = DocumentSource {
                path: Arc::clone(&path),
                line,
                item: None,
            };
            rows.push(Ok(Row {
                place,
                values: vec![(field, Value::from(content))],
            }));
        }
    }
}

/// Takes the value of a key; with a dot in it, also that of an object in the object: `translation.de`.
fn take(object: &mut Map<String, Value>, key: &str) -> Option<Value> {
    if let Some(value) = object.get_mut(key) {
        // Another field may be the same one.
        return Some(value.clone());
    }
    let (outer, inner) = key.split_once('.')?;
    take(object.get_mut(outer)?.as_object_mut()?, inner)
}
