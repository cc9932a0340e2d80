//! The names of the files of tokenizers.

/// The file of a tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// What older tokenizers have beside their vocabulary: tokens with their ids.
pub const ADDED_TOKENS_FILE: &str = "added_tokens.json";

/// The files that a tokenizer is made of where there is no `tokenizer.json`: models of SentencePiece, vocabularies with merges, lists of
/// words.
pub const OLDER_TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
];
