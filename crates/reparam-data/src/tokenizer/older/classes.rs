//! What transformers' classes make of their files: a line each.

use serde_json::{Value, json};

use super::json::{
    Part, SPACE, byte_level, from_pieces, metaspace, normalizers, pre_tokenizers, replace,
    replace_regex, template,
};
use super::spm::Algorithm;
use super::{Made, Model, Older, Result};

/// A class of tokenizers.
pub(super) struct Class {
    /// Its names, without `Fast`.
    pub(super) names: &'static [&'static str],
    /// The `model_type`s that have it where no class is named.
    pub(super) model_types: &'static [&'static str],
    /// Its files; the first has to be there.
    pub(super) files: &'static [&'static str],
    /// Makes the parts of `tokenizer.json`.
    pub(super) make: fn(&Older<'_, '_>) -> Result<Made>,
}

/// The classes that are known.
pub(super) const CLASSES: [Class; 9] = [
    Class {
        names: &["LlamaTokenizer", "CodeLlamaTokenizer"],
        model_types: &["llama", "mistral", "phi3"],
        files: &["tokenizer.model"],
        make: llama,
    },
    Class {
        names: &["GemmaTokenizer"],
        model_types: &["gemma", "gemma2", "gemma3_text"],
        files: &["tokenizer.model"],
        make: gemma,
    },
    Class {
        names: &["T5Tokenizer", "MT5Tokenizer"],
        model_types: &["t5", "mt5"],
        files: &["spiece.model"],
        make: t5,
    },
    Class {
        names: &["XLMRobertaTokenizer"],
        model_types: &["xlm-roberta"],
        files: &["sentencepiece.bpe.model"],
        make: xlm_roberta,
    },
    Class {
        names: &["DebertaV2Tokenizer"],
        model_types: &["deberta-v2"],
        files: &["spm.model"],
        make: deberta_v2,
    },
    Class {
        names: &["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"],
        model_types: &["bert", "distilbert", "electra"],
        files: &["vocab.txt"],
        make: bert,
    },
    Class {
        names: &["GPT2Tokenizer", "CodeGenTokenizer"],
        model_types: &["gpt2", "gpt_neo", "gptj", "opt", "phi", "starcoder2"],
        files: &["vocab.json", "merges.txt"],
        make: gpt2,
    },
    Class {
        names: &["RobertaTokenizer", "BartTokenizer"],
        model_types: &["roberta", "bart"],
        files: &["vocab.json", "merges.txt"],
        make: roberta,
    },
    Class {
        names: &["Qwen2Tokenizer"],
        model_types: &["qwen2", "qwen3"],
        files: &["vocab.json", "merges.txt"],
        make: qwen2,
    },
];

/// How Qwen divides a text into words.
const QWEN_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn llama(of: &Older<'_, '_>) -> Result<Made> {
    let spm = of.spm(Algorithm::Bpe)?;
    let adds_space = of.flag("add_prefix_space", true)?;
    let legacy = of.flag("legacy", false)?;
    let special = [
        ("unk_token", "<unk>"),
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
    ];
    let mut made = Made::new(
        Model::pieces_and_merges(&spm, None),
        &spm,
        of.roles(&special)?,
    );
    if legacy {
        // As SentencePiece: a space before a text, and before what follows a special token.
        let mut parts = Vec::new();
        if adds_space {
            parts.push(json!({"type": "Prepend", "prepend": SPACE}));
        }
        parts.push(replace(" ", SPACE));
        made.normalizer = normalizers(parts);
    } else {
        made.pre_tokenizer = metaspace(if adds_space { "first" } else { "never" }, false);
    }
    made.decoder = from_pieces(adds_space);
    of.around(made)
}

fn gemma(of: &Older<'_, '_>) -> Result<Made> {
    let spm = of.spm(Algorithm::Bpe)?;
    let special = [
        ("unk_token", "<unk>"),
        ("bos_token", "<bos>"),
        ("eos_token", "<eos>"),
        ("pad_token", "<pad>"),
        ("mask_token", "<mask>"),
    ];
    let roles = of.roles(&special)?;
    let unk = roles.token("unk_token");
    let mut made = Made::new(Model::pieces_and_merges(&spm, Some(unk)), &spm, roles);
    made.normalizer = replace(" ", SPACE);
    made.pre_tokenizer = json!({
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false,
    });
    made.decoder = from_pieces(false);
    of.around(made)
}

fn t5(of: &Older<'_, '_>) -> Result<Made> {
    let spm = of.spm(Algorithm::Unigram)?;
    let special = [
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
        ("pad_token", "<pad>"),
    ];
    let mut roles = of.roles(&special)?;
    let mut pieces = spm.scored();
    // The last one comes first.
    for id in (0..of.size("extra_ids", 100)?).rev() {
        let token = format!("<extra_id_{id}>");
        roles.0.push(("extra", token.clone()));
        pieces.push((token, 0.0));
    }
    let mut made = Made::new(Model::scores(pieces, 2), &spm, roles);
    made.normalizer = normalizers(spm.precompiled());
    made.pre_tokenizer = words("always");
    made.decoder = metaspace("always", true);
    let end = made.part(of, "eos_token")?;
    let written = template(&[Part::A, end], &[Part::A, end, Part::B, end], false);
    made.post_processor = written;
    Ok(made)
}

fn xlm_roberta(of: &Older<'_, '_>) -> Result<Made> {
    let spm = of.spm(Algorithm::Unigram)?;
    let special = [
        ("bos_token", "<s>"),
        ("pad_token", "<pad>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
        ("mask_token", "<mask>"),
    ];
    let roles = of.roles(&special)?;
    // fairseq's order: four special tokens, all pieces but the first three, and the mask.
    let mut pieces: Vec<(String, f64)> = special[..4]
        .iter()
        .map(|(role, _)| (roles.token(role), 0.0))
        .collect();
    pieces.extend(spm.scored().into_iter().skip(3));
    pieces.push((roles.token("mask_token"), 0.0));
    let scheme = match of.flag("add_prefix_space", true)? {
        true => "always",
        false => "never",
    };
    let mut made = Made::new(Model::scores(pieces, 3), &spm, roles);
    made.normalizer = normalizers(spm.precompiled());
    made.pre_tokenizer = words(scheme);
    made.decoder = metaspace(scheme, true);
    let (bos, end) = (made.part(of, "bos_token")?, made.part(of, "eos_token")?);
    let pair = [bos, Part::A, end, end, Part::B, end];
    let written = template(&pair[..3], &pair, false);
    made.post_processor = written;
    Ok(made)
}

fn deberta_v2(of: &Older<'_, '_>) -> Result<Made> {
    let spm = of.spm(Algorithm::Unigram)?;
    let special = [
        ("cls_token", "[CLS]"),
        ("sep_token", "[SEP]"),
        ("unk_token", "[UNK]"),
        ("pad_token", "[PAD]"),
        ("mask_token", "[MASK]"),
    ];
    let roles = of.roles(&special)?;
    let pieces = spm.scored();
    let unk = (roles.token("unk_token"), 0.0);
    let unk = pieces.iter().position(|piece| *piece == unk);
    let scheme = match of.flag("add_prefix_space", true)? {
        true => "always",
        false => "first",
    };
    let mut made = Made::new(Model::scores(pieces, unk.unwrap_or(1)), &spm, roles);
    let mut parts = Vec::new();
    if of.flag("do_lower_case", false)? {
        parts.push(json!({"type": "Lowercase"}));
    }
    parts.extend([
        replace_regex(r"\s{2,}|[\n\r\t]", " "),
        json!({"type": "NFC"}),
        json!({"type": "Strip", "strip_left": false, "strip_right": true}),
    ]);
    made.normalizer = normalizers(parts);
    let mut parts = Vec::new();
    if of.flag("split_by_punct", false)? {
        parts.push(json!({"type": "Punctuation", "behavior": "Isolated"}));
    }
    parts.push(metaspace(scheme, true));
    made.pre_tokenizer = pre_tokenizers(parts);
    made.decoder = metaspace(scheme, true);
    made.between(of)
}

fn bert(of: &Older<'_, '_>) -> Result<Made> {
    let special = [
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ];
    let roles = of.roles(&special)?;
    let model = Model::words(of.lines("vocab.txt")?, roles.token("unk_token"));
    let mut made = Made::with(model, roles);
    made.normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": of.flag("tokenize_chinese_chars", true)?,
        "strip_accents": of.setting("strip_accents").filter(|value| value.is_boolean()),
        "lowercase": of.flag("do_lower_case", true)?,
    });
    made.pre_tokenizer = json!({"type": "BertPreTokenizer"});
    made.decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    made.between(of)
}

fn gpt2(of: &Older<'_, '_>) -> Result<Made> {
    let end = "<|endoftext|>";
    let special = [("unk_token", end), ("bos_token", end), ("eos_token", end)];
    let mut made = Made::with(of.merged()?, of.roles(&special)?);
    made.pre_tokenizer = byte_level(of.flag("add_prefix_space", false)?, true);
    made.decoder = byte_level(true, true);
    of.around(made)
}

fn roberta(of: &Older<'_, '_>) -> Result<Made> {
    let special = [
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("sep_token", "</s>"),
        ("cls_token", "<s>"),
        ("unk_token", "<unk>"),
        ("pad_token", "<pad>"),
        ("mask_token", "<mask>"),
    ];
    let roles = of.roles(&special)?;
    let mut made = Made::with(of.merged()?, roles);
    let adds_space = of.flag("add_prefix_space", false)?;
    made.pre_tokenizer = byte_level(adds_space, true);
    made.decoder = byte_level(true, true);
    made.post_processor = json!({
        "type": "RobertaProcessing",
        "sep": made.of_role("sep_token"),
        "cls": made.of_role("cls_token"),
        "trim_offsets": of.flag("trim_offsets", true)?,
        "add_prefix_space": adds_space,
    });
    Ok(made)
}

fn qwen2(of: &Older<'_, '_>) -> Result<Made> {
    let end = "<|endoftext|>";
    let special = [("unk_token", end), ("eos_token", end), ("pad_token", end)];
    let mut made = Made::with(of.merged()?, of.roles(&special)?);
    made.normalizer = json!({"type": "NFC"});
    let words = json!({
        "type": "Split", "pattern": {"Regex": QWEN_WORDS}, "behavior": "Isolated", "invert": false,
    });
    let bytes = byte_level(of.flag("add_prefix_space", false)?, false);
    made.pre_tokenizer = pre_tokenizers(vec![words, bytes]);
    made.decoder = byte_level(true, true);
    of.around(made)
}

/// Words, each with the space before it.
fn words(scheme: &str) -> Value {
    pre_tokenizers(vec![
        json!({"type": "WhitespaceSplit"}),
        metaspace(scheme, true),
    ])
}
