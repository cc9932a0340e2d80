//! Files that say more than they hold.

use std::fs;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::super::differences::Levels;
use super::super::pages::Pages;
use super::*;

/// A number as Thrift writes it.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn zigzag(value: i32) -> Vec<u8> {
    varint(u64::from((value << 1 ^ value >> 31) as u32))
}

/// An element of a schema: its name, and how many children it says that it has.
fn element(children: i32) -> Vec<u8> {
    [&[0x35, 0, 0x18, 1, b'a', 0x15][..], &zigzag(children), &[0]].concat()
}

/// What is wrong with a file whose footer has these elements.
fn refusal(elements: &[Vec<u8>]) -> String {
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    footer.extend(varint(elements.len() as u64));
    footer.extend(elements.concat());
    footer.push(0);
    refusal_of(&footer)
}

fn refusal_of(footer: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    let length = (footer.len() as u32).to_le_bytes();
    fs::write(&path, [b"PAR1", footer, &length, b"PAR1"].concat()).unwrap();
    match read(&path, |_| true) {
        Err(DataError::Parquet { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_column_has_no_more_children_than_there_are_columns() {
    for children in [2, 1 << 30, i32::MAX, -1, i32::MIN] {
        assert_eq!(
            refusal(&[element(1), element(children), element(0)]),
            format!("a column says that it has {children} children, and 1 columns are left")
        );
    }
    // The same where the library would read another number than is written there: it goes by the field alone.
    let other = [&[0x35, 0, 0x18, 1, b'a', 0x18][..], &varint(3), b"abc\0"].concat();
    assert_eq!(
        refusal(&[element(1), other]),
        "field 5 of a column is of another type"
    );
    // A number without a distance could come twice, and the second would count.
    let twice = [&element(0)[..7], &[0x05, 10], &zigzag(i32::MAX), &[0]].concat();
    assert!(refusal(&[twice]).contains("in no order"));
}

#[test]
fn columns_are_not_nested_without_end() {
    let nested = |depth: usize| {
        let mut elements = vec![element(1); depth];
        elements.push(element(0));
        refusal(&elements)
    };
    assert!(nested(64).contains("nested more than 64 deep"));
    assert!(nested(100_000).contains("nested more than 64 deep"));
    // Up to there the footer is read on, and lacks the rest.
    assert!(!nested(63).contains("nested"), "{}", nested(63));
    // What is nested in a field that is not known.
    let unknown = [&[0x15, 2, 0x19, 0x1c, 0xfc][..], &[0x1c; 1000]].concat();
    assert!(refusal_of(&unknown).contains("nested too deep"));
}

#[test]
fn a_footer_is_all_there_and_small() {
    assert!(refusal_of(&[0x15, 2, 0x19, 0xfc, 0xff]).contains("cut short"));
    assert!(refusal_of(&[0]).contains("no schema"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    let says = (20_u32 << 20).to_le_bytes();
    fs::write(&path, [b"PAR1", &says[..], b"PAR1"].concat()).unwrap();
    let error = read(&path, |_| true).unwrap_err();
    assert!(
        error.to_string().contains("its footer has 20971520 bytes"),
        "{error}"
    );
}

/// One page.
struct One(Option<Page>);

impl Iterator for One {
    type Item = parquet::errors::Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for One {
    fn get_next_page(&mut self) -> parquet::errors::Result<Option<Page>> {
        Ok(self.0.take())
    }

    fn peek_next_page(&mut self) -> parquet::errors::Result<Option<PageMetadata>> {
        Ok(None)
    }

    fn skip_next_page(&mut self) -> parquet::errors::Result<()> {
        Ok(())
    }
}

fn is_refused(page: Page, of: parquet::basic::Type) -> bool {
    let levels = Levels {
        repetition: 0,
        definition: 1,
    };
    let mut pages = Pages::new(Box::new(One(Some(page))), of, levels);
    pages.get_next_page().is_err()
}

#[test]
fn a_dictionary_has_no_more_values_than_its_bytes() {
    use parquet::basic::Type;
    for (of, most) in [
        (Type::BOOLEAN, 96),
        (Type::FIXED_LEN_BYTE_ARRAY, 12),
        (Type::INT32, 3),
        (Type::BYTE_ARRAY, 3),
        (Type::DOUBLE, 1),
        (Type::INT96, 1),
    ] {
        let dictionary = |num_values| Page::DictionaryPage {
            buf: vec![0; 12].into(),
            num_values,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        assert!(!is_refused(dictionary(most), of), "{of}");
        for values in [most + 1, 1 << 31, u32::MAX] {
            assert!(is_refused(dictionary(values), of), "{of} {values}");
        }
    }
}

#[test]
fn differences_are_as_many_as_the_page_says() {
    // One level, then so many lengths that are all 1, in blocks of 128.
    let page = |count: u64, num_values: u32, encoding| {
        let levels = [&4_u32.to_le_bytes()[..], &[2, 1, 0, 0]].concat();
        let blocks =
            [0, 0, 0, 0, 0].repeat((count.saturating_sub(1).min(1000) as usize).div_ceil(128));
        let stream = [&[0x80, 1, 4][..], &varint(count), &[2], &blocks].concat();
        let streams = match encoding {
            Encoding::DELTA_BYTE_ARRAY => stream.repeat(2),
            _ => stream,
        };
        Page::DataPage {
            buf: [levels, streams].concat().into(),
            num_values,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        }
    };
    let of = parquet::basic::Type::BYTE_ARRAY;
    for encoding in [
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
        Encoding::DELTA_BYTE_ARRAY,
    ] {
        for count in [0, 1, 2, 128, 129, 130, 400] {
            let page = page(count, count as u32, encoding);
            assert!(!is_refused(page, of), "{encoding} {count}");
        }
        assert!(is_refused(page(400, 399, encoding), of), "{encoding}");
        for count in [1 << 20, 1 << 31, 1 << 40] {
            let page = page(count, u32::MAX, encoding);
            assert!(is_refused(page, of), "{encoding} {count}");
        }
    }
}

/// Every text of a file is read in all encodings that writers use for texts.
#[test]
fn texts_in_all_encodings_are_read() {
    let texts: Vec<String> = (0..3000)
        .map(|row| format!("{}{}", "row ".repeat(row % 17), row * row))
        .collect();
    let values: Vec<ByteArray> = texts.iter().map(|text| text.as_str().into()).collect();
    let directory = tempfile::tempdir().unwrap();
    for (number, (encoding, version)) in [
        (None, WriterVersion::PARQUET_1_0),
        (Some(Encoding::PLAIN), WriterVersion::PARQUET_1_0),
        (
            Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
            WriterVersion::PARQUET_1_0,
        ),
        (Some(Encoding::DELTA_BYTE_ARRAY), WriterVersion::PARQUET_1_0),
        (
            Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
            WriterVersion::PARQUET_2_0,
        ),
        (Some(Encoding::DELTA_BYTE_ARRAY), WriterVersion::PARQUET_2_0),
    ]
    .into_iter()
    .enumerate()
    {
        let schema = parse_message_type("message m { optional binary text (UTF8); }").unwrap();
        let properties = WriterProperties::builder().set_writer_version(version);
        let properties = match encoding {
            None => properties,
            Some(encoding) => properties
                .set_dictionary_enabled(false)
                .set_encoding(encoding),
        };
        let path = directory.path().join(format!("{number}.parquet"));
        let file = fs::File::create(&path).unwrap();
        let properties = Arc::new(properties.set_data_page_row_count_limit(700).build());
        let mut writer = SerializedFileWriter::new(file, Arc::new(schema), properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let levels = vec![1; values.len()];
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let (rows, _) = read(&path, |_| true).unwrap();
        let found: Vec<&str> = rows
            .iter()
            .map(|row| row["text"].as_str().unwrap())
            .collect();
        assert_eq!(found, texts, "{encoding:?} {version:?}");
    }
}
