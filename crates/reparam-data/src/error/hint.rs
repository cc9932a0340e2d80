//! What to do about an error.

use std::path::Path;

use reparam_formats::identify::Kind;

use super::{DataError, Unlearnable, list};
use crate::source::paths::looks_like_id;
use crate::source::{Format, expanded_name, known_fields};

/// What files of directories and patterns are read.
const READABLE: &str = "files are read that end in .txt, .text, .md, .jsonl, .json, .csv, .tsv, .tab (also with .gz or .zst \
     behind it) or .parquet";

impl DataError {
    /// What the user can do about it, if there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Fields(error) => error.hint(),
            Self::Text(error) => return error.hint(),
            Self::TextOfConversation { .. } => "remove `text`: the template makes the text of a conversation".to_owned(),
            Self::NoConversations { .. } => "choose another format, or train a causal language model".to_owned(),
            Self::Chat { error, .. } | Self::ChatTemplate(error) => return error.hint(),
            Self::NothingOfResponse { .. } => "leave the row out with on_error = \"skip\", or do less to texts".to_owned(),
            Self::FieldsOfNoForm { .. } => format!("name the fields of one of these: {}", known_fields(None)),
            Self::Template { .. } => {
                "write fields in braces, as in \"Question: {question}\\nAnswer: {answer}\"; a brace itself is written twice"
                    .to_owned()
            }
            Self::TemplateAndFormat { .. } => {
                "keep one of the two; beside a template, format says how rows are written: jsonl, csv, tsv".to_owned()
            }
            Self::NoPaths => "name at least one file".to_owned(),
            Self::NotFound { nearest: Some(name), .. } => format!("did you mean `{name}`?"),
            Self::NotFound { path, .. } if path.starts_with("~") => {
                "`~` is not expanded here; write the whole path".to_owned()
            }
            Self::NotFound { path, .. } if looks_like_id(path) => {
                format!("to train on the data set of the hub, write hf://datasets/{}", path.display())
            }
            Self::NotFound { missing_directory: Some(directory), .. } => {
                format!("the directory {} does not exist", directory.display())
            }
            Self::IsDirectory { .. } => "list the files in it one by one".to_owned(),
            Self::File(error) => return error.hint(),
            Self::NoFiles { .. } => format!("{}; name a file itself to read it whatever its name", READABLE),
            Self::Pattern { .. } => "`*` stands for any letters, `**` for any directories, `[ab]` for one of a set".to_owned(),
            Self::OtherKind { kind: Kind::Parquet, .. } => {
                "set format (or --format) to parquet, or let its name end in .parquet".to_owned()
            }
            Self::OtherKind { kind, .. } => return kind.hint().map(str::to_owned),
            Self::NotText { .. } => "name a file of text: .txt, .jsonl, .json, .csv or .tsv".to_owned(),
            Self::Damaged { compression, .. } if *compression == "zstd" => {
                "download or write it again (`zstd -t FILE` checks it); one that was written with --long is read once it is unpacked"
                    .to_owned()
            }
            Self::Damaged { .. } => "download or write it again; `gzip -t FILE` checks it".to_owned(),
            Self::Parquet { .. } => {
                "download it again if it is damaged; write it with compression snappy, zstd or gzip if it says that another is \
                 disabled, as in pandas: to_parquet(FILE, compression=\"zstd\")"
                    .to_owned()
            }
            Self::ExpandedTooLarge { .. } => {
                "unpack it, or write it as JSON Lines, of which one line at a time is in memory".to_owned()
            }
            Self::NoMemory { .. } => "write it as JSON Lines, of which one line at a time is in memory".to_owned(),
            Self::InvalidUtf8 { path, encoding: Some(encoding), .. } if expanded_name(path) != *path => {
                format!("unpack the file and convert it to UTF-8 with iconv -f {encoding} -t UTF-8")
            }
            Self::InvalidUtf8 { path, encoding: Some(encoding), .. } => {
                let to = match path.extension() {
                    // The name says how the file is written.
                    Some(extension) => path.with_extension(format!("utf8.{}", extension.display())),
                    None => path.with_extension("utf8"),
                };
                let [path, to] = [path, &to].map(|path| quoted(path));
                format!("convert the file to UTF-8: iconv -f {encoding} -t UTF-8 {path} > {to}")
            }
            Self::InvalidUtf8 { .. } => {
                "the file must be UTF-8; find out its encoding and convert it with `iconv`".to_owned()
            }
            Self::NoRows { path } if Format::of_name(path) == Some(Format::Parquet) => {
                "put some rows into it or leave it out of the list".to_owned()
            }
            Self::NoRows { .. } => "the first line names the columns, every further line is a row; \
                where no line names them, set fields to their numbers, as in text=2,label=1"
                .to_owned(),
            Self::DuplicateColumn { .. } => "rename one of the two columns".to_owned(),
            Self::Ragged { expected, found, .. } if found > expected => {
                "put a cell that has a comma in it into double quotes, or set format to tsv if cells \
                 stand between tabs"
                    .to_owned()
            }
            Self::Ragged { .. } => "write a missing value as an empty cell".to_owned(),
            Self::Rows { first, .. } => {
                let skip = "leave such rows out with on_error = \"skip\" (--on-error skip)";
                return Some(match first.hint() {
                    Some(hint) => format!("{hint}; or {skip}"),
                    None => skip.to_owned(),
                });
            }
            Self::NothingLeft { first, .. } => return first.hint(),
            Self::Unlearnable { what: Unlearnable::Messages(_), .. } => {
                r#"write each answer with what comes before it as {"prompt": "...", "completion": "..."}"#.to_owned()
            }
            Self::Unlearnable { what: Unlearnable::Preference { has_prompt }, .. } => {
                let field = if *has_prompt { "completion" } else { "text" };
                format!(
                    "to learn the chosen responses alone, set format = \"preference\" and learn = \"chosen\" in [data]; to measure them, set \
                     --fields to {field}=chosen"
                )
            }
            Self::Pair { .. } => {
                "write what both answer as `prompt`, or let both be conversations that begin alike".to_owned()
            }
            Self::LearnOfPairs => {
                "set learn = \"chosen\" in [data] to learn the chosen answers as examples, without the rejected ones; to measure the chosen \
                 answers, set --fields to completion=chosen"
                    .to_owned()
            }
            Self::LearnWithoutPairs => "remove `learn`, or set format = \"preference\"".to_owned(),
            Self::InvalidJson { .. } => {
                "write one whole JSON object on each line, or in a .json file one array of objects".to_owned()
            }
            Self::OpenQuote { .. } | Self::TextAfterQuote { .. } => {
                "close the cell with a double quote; a quote inside it is written twice".to_owned()
            }
            Self::NotAnObject { .. } => {
                r#"write it as {"text": "..."} or {"prompt": "...", "completion": "..."}"#.to_owned()
            }
            Self::MissingField { nearest: Some(key), field, .. } => {
                format!("rename the field `{key}` to `{field}`")
            }
            Self::MissingField { field, .. } => {
                format!("each row of a file has the same form, so it needs a field `{field}`")
            }
            Self::UnknownFields { nearest: Some((key, field)), .. } => {
                format!("rename the field `{key}` to `{field}`, or set fields (or --fields) to {field}={key}")
            }
            Self::UnknownFields { format, keys, .. } => {
                let key = keys.first().map_or("review", String::as_str);
                format!(
                    "a row has one of these: {}; say which column is which with fields (or --fields), as in text={key}",
                    known_fields(*format)
                )
            }
            Self::AmbiguousFields { formats, .. } => match &formats[..] {
                [first, second, ..] if first != second => {
                    format!("set format to `{first}` or `{second}`")
                }
                _ => "remove the field that is not meant".to_owned(),
            },
            Self::FieldNotString { field, .. } => format!("put the text into `{field}` as one string"),
            Self::EmptyResponse { .. } => {
                "there is nothing to learn from it; write the response".to_owned()
            }
            Self::UnknownExtension { .. } => {
                format!("set format (or --format) to one of {}", list(&Format::ALL))
            }
            Self::UnknownFormat { .. } => format!("the formats are {}", list(&Format::ALL)),
            Self::NoTurns { key } => format!("remove `{key}`, or give the data as conversations: rows with `messages`"),
            Self::NoPrompts { .. } => {
                "remove it, or give the data as examples with a prompt and a response".to_owned()
            }
            Self::EmptyFile { .. }
            | Self::NoDocuments { .. }
            | Self::EmptyArray { .. }
            | Self::OnlyEmptyDocuments { .. } => {
                "put some text into it or leave it out of the list".to_owned()
            }
            Self::Format(error) => return error.hint(),
            Self::NoTokenizer { others, .. } if !others.is_empty() => format!(
                "{} is there, whose format is not read; load the model with \
                 transformers' AutoTokenizer and call save_pretrained to write one",
                list(others)
            ),
            Self::NoTokenizer { .. } => {
                "copy the tokenizer.json that belongs to the model into its directory".to_owned()
            }
            Self::OlderTokenizer { .. } => {
                "put all files of the tokenizer into the directory, name the right tokenizer_class in tokenizer_config.json, or load the model with transformers' \
                 AutoTokenizer and call save_pretrained, which writes a tokenizer.json"
                    .to_owned()
            }
            Self::InvalidTokenizer { .. } => {
                "the file may be cut short, or written by a newer version of tokenizers; download it again"
                    .to_owned()
            }
            Self::EmptyToken => "write tokens as texts: add_tokens = [\"<tool>\", \"</tool>\"]".to_owned(),
            Self::Dropout { .. } => "set `model.dropout` to null in tokenizer.json".to_owned(),
            Self::UnknownSpecialToken { role, .. } => format!(
                "correct `{role}_token`, or add the token to tokenizer.json and a row to the embedding"
            ),
            Self::UnknownSpecialId { role, .. } => {
                format!("correct `{role}_token_id` in config.json or name `{role}_token` in tokenizer_config.json")
            }
            Self::AddedTokenId { .. } => {
                "tokenizer.json and tokenizer_config.json come from different versions of the model; \
                 download both again"
                    .to_owned()
            }
            Self::TokenIdTaken { .. } => {
                "the vocabulary in tokenizer.json has gaps: give its tokens the ids from 0 on, without one".to_owned()
            }
            Self::NoEos { .. } => {
                "name `eos_token` in tokenizer_config.json or set `eos_token_id` in config.json".to_owned()
            }
            Self::TokenOutsideEmbedding { .. } => {
                "take the token out of the text, use the tokenizer that belongs to the model, or enlarge the \
                 embedding"
                    .to_owned()
            }
            Self::WhiteSpaceRun { .. } => {
                "shorten it in the data".to_owned()
            }
            Self::NoTokens => {
                "it is blank, or data.text takes all its words out: write something into it, or leave it out".to_owned()
            }
            Self::NoRoom { of_template, .. } => {
                format!("set sequence_length to {} or more", of_template + 1)
            }
            Self::NoWindow { before, stride, .. } => {
                format!("shorten the question, or set sequence_length to {} or more", before + stride + 1)
            }
            Self::CorpusTooLarge { .. } => "divide the data among several runs".to_owned(),
            Self::Cache(error) => {
                let choose = "set data.cache to another directory, or to \"off\" to hold tokens in memory";
                return Some(match error.hint() {
                    Some(hint) => format!("{hint}; or {choose}"),
                    None => choose.to_owned(),
                });
            }
            Self::Document { error, .. } => return error.hint(),
            Self::SequenceTooShort { .. } => "set sequence_length to 2 or more".to_owned(),
            Self::LossMaskLength { .. } => "give the mask one entry a token".to_owned(),
            Self::Weights { .. } => "give data.weights a number for each path of data.train, in their order".to_owned(),
            Self::Weight { .. } => "2 takes each document of a path twice, 0.5 half of them; leave a path out instead of giving it 0".to_owned(),
            Self::WeightsOfStreams => "remove data.weights, or carry_state".to_owned(),
            Self::ExamplesTooLong { .. } => {
                "raise train.sequence_length, or set data.too_long: \"truncate\" keeps their beginnings, \"drop\" leaves them out, \"cut\" cuts them"
                    .to_owned()
            }
            Self::PieceTooLong { .. } => "cut the documents to the same sequence_length".to_owned(),
            Self::StreamsOfExamples { .. } => "remove carry_state: a response begins with its prompt, not with what was read before".to_owned(),
            Self::TooFewForStreams { .. } => "lower batch_size or gradient_accumulation, whose product is the streams, or eval_fraction".to_owned(),
            Self::NothingToLearn { masked: true, .. } => {
                "the loss masks leave no token to predict; check them, or lengthen sequence_length".to_owned()
            }
            Self::NothingToLearn { .. } => {
                "a document needs at least two tokens: the first is not predicted".to_owned()
            }
            Self::NoBlocks => "give at least one document".to_owned(),
            Self::ZeroBatchSize => "set batch_size to 1 or more".to_owned(),
            Self::EvalFraction { .. } => "use 0.05 to hold out 5 %, or 0 for none".to_owned(),
            Self::TooFewToSplit { .. } => {
                "give an evaluation file of its own, or shorten sequence_length".to_owned()
            }
            Self::NotFound { .. }
            | Self::Interrupted(_)
            | Self::Unreadable { .. }
            | Self::InvalidTokenizerConfig { .. }
            | Self::UnsupportedDecoder { .. }
            | Self::Encode { .. }
            | Self::Decode { .. }
            | Self::TokenIdTooLarge { .. } => return None,
        };
        Some(hint)
    }
}

/// Writes a path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ',');
    if text.chars().all(is_plain) && !text.starts_with('-') {
        return text;
    }
    let text = text.replace('\'', r"'\''");
    // A dash would begin an option.
    let before = if text.starts_with('-') { "./" } else { "" };
    format!("'{before}{text}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iconv_is_given_words_and_writes_what_is_read() {
        for (path, command) in [
            ("data/a.txt", "data/a.txt > data/a.utf8.txt"),
            ("my notes.jsonl", "'my notes.jsonl' > 'my notes.utf8.jsonl'"),
            ("it's.csv", r"'it'\''s.csv' > 'it'\''s.utf8.csv'"),
            ("-a.txt", "'./-a.txt' > './-a.utf8.txt'"),
            ("README", "README > README.utf8"),
        ] {
            let error = DataError::InvalidUtf8 {
                path: path.into(),
                line: 1,
                offset: 0,
                encoding: Some("windows-1252"),
            };
            let hint = error.hint().unwrap();
            assert!(
                hint.ends_with(&format!("iconv -f windows-1252 -t UTF-8 {command}")),
                "{hint}"
            );
        }
    }

    #[test]
    fn chosen_responses_are_learned_as_what_they_are() {
        for (keys, fields) in [
            (&["prompt", "chosen", "rejected"][..], "completion=chosen"),
            (&["chosen", "rejected"], "text=chosen"),
        ] {
            let what = Unlearnable::of(keys).unwrap();
            let place = crate::source::DocumentSource {
                path: std::sync::Arc::from(Path::new("a.jsonl")),
                line: 1,
                item: None,
            };
            let hint = DataError::Unlearnable { place, what }.hint().unwrap();
            assert!(hint.ends_with(fields), "{hint}");
        }
    }
}
