//! Pages that say of themselves no more than their bytes can hold: the library reserves memory for as many values as they say.

use parquet::basic::Type as Physical;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::differences::{self, Levels};

/// A reader of a file whose pages are checked.
pub(super) struct Checked<R>(pub(super) R);

impl<R: FileReader> FileReader for Checked<R> {
    fn metadata(&self) -> &ParquetMetaData {
        self.0.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.0.num_row_groups()
    }

    fn get_row_group(&self, group: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        Ok(Box::new(Group(self.0.get_row_group(group)?)))
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

struct Group<'a>(Box<dyn RowGroupReader + 'a>);

impl RowGroupReader for Group<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let pages = self.0.get_column_page_reader(column)?;
        let column = self.metadata().column(column).column_descr();
        let levels = Levels {
            repetition: column.max_rep_level(),
            definition: column.max_def_level(),
        };
        Ok(Box::new(Pages::new(pages, column.physical_type(), levels)))
    }

    fn get_column_bloom_filter(&self, column: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(column)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column.
pub(super) struct Pages {
    pages: Box<dyn PageReader>,
    /// What the values are.
    of: Physical,
    levels: Levels,
}

impl Pages {
    pub(super) fn new(pages: Box<dyn PageReader>, of: Physical, levels: Levels) -> Self {
        Self { pages, of, levels }
    }

    fn check(&self, page: &Page) -> Result<()> {
        let Page::DictionaryPage {
            buf, num_values, ..
        } = page
        else {
            return differences::check(page, self.levels).map_err(ParquetError::General);
        };
        let bytes = buf.len() as u64;
        match u64::from(*num_values) {
            values if values * bits(self.of) > 8 * bytes => Err(ParquetError::General(format!(
                "a dictionary of {bytes} bytes says that it has {values} values"
            ))),
            _ => Ok(()),
        }
    }
}

/// The bits that a value of a dictionary takes at least.
fn bits(of: Physical) -> u64 {
    match of {
        Physical::BOOLEAN => 1,
        Physical::FIXED_LEN_BYTE_ARRAY => 8,
        // The length of each stands before it.
        Physical::INT32 | Physical::FLOAT | Physical::BYTE_ARRAY => 32,
        Physical::INT64 | Physical::DOUBLE => 64,
        Physical::INT96 => 96,
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.iter().try_for_each(|page| self.check(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}
