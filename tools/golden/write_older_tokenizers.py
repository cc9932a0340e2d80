"""Writes `testdata/golden/older_tokenizers/`: tokenizers of the time before `tokenizer.json`, and the ids of transformers.

Each `NAME/` has the files that a checkpoint had: a model of SentencePiece, a vocabulary with merges, or a list of words, and
`tokenizer_config.json`. `texts.json` has texts in ten scripts and hard ones, `NAME.ids.json` their ids, special tokens included, and those of a pair.

All are small, and trained here on the texts themselves and a few lines more.
"""

import io
import json
import shutil

from golden_common import GOLDEN, write_json

import sentencepiece
import tokenizers
import transformers

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Hello  world,   it's 2024 and we'll see: 3.14159!",
    " leading and trailing ",
    "tabs\tand\nlines\r\nof\n\n\ntext",
    "",
    " ",
    "Füße, naïve façade, Ærøskøbing, İstanbul",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "Η γρήγορη καφετιά αλεπού πηδάει.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول",
    "השועל החום המהיר קופץ מעל הכלב העצלן",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है",
    "敏捷的棕色狐狸跳过了懒狗。",
    "素早い茶色の狐がのろまな犬を飛び越える",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "சுறுசுறுப்பான பழுப்பு நரி",
    "emoji 🙂👩‍👩‍👧 and ½ ﬁne Ⅷ ①",
    "def f(x):\n    return x ** 2  # comment",
    "<s> is no token here, nor is [MASK], </s>",
    "a\u00a0b\u3000c\u200bd\ufeffe",
    "e\u0301 and é, ``quoted'' text",
    "1,234,567.89 12345678901234567890",
    "ALLCAPS and camelCaseWords_with_underscores",
]


def sentencepiece_model(algorithm, size, **more):
    """Trains a small model; returns its bytes."""
    lines = [line for text in TEXTS for line in text.splitlines() if line.strip()] * 3
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type=algorithm, vocab_size=size, minloglevel=2,
        hard_vocab_limit=False, **more,
    )  # fmt: skip
    return out.getvalue()


def byte_level(size, special):
    """Trains a small byte-level BPE; returns its vocabulary and its merges."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [" ".join(pair) for pair in model["merges"]]


def words():
    """A list of words and parts of words, as BERT has it."""
    tokenizer = tokenizers.BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(TEXTS * 3, vocab_size=500, min_frequency=1, show_progress=False)
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


def text_files(directory, files):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        (directory / name).write_bytes(data)


def merged(size, special):
    vocabulary, merges = byte_level(size, special)
    return {"vocab.json": json.dumps(vocabulary, ensure_ascii=False), "merges.txt": "\n".join(["#version: 0.2", *merges, ""])}


def main():
    out = GOLDEN / "older_tokenizers"
    out.mkdir(parents=True, exist_ok=True)
    # The table of the usual normalization is large, so only one model has it.
    plain = {"normalization_rule_name": "identity"}
    bpe = sentencepiece_model("bpe", 700, byte_fallback=True, character_coverage=0.98, **plain)
    gemma = sentencepiece_model(
        "bpe", 700, byte_fallback=True, character_coverage=0.98, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
        eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>", user_defined_symbols=["<mask>", "<start_of_turn>"],
        remove_extra_whitespaces=False, add_dummy_prefix=False, **plain,
    )  # fmt: skip
    unigram = sentencepiece_model("unigram", 500, **plain)
    t5 = sentencepiece_model("unigram", 500, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    deberta = sentencepiece_model(
        "unigram", 500, pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
        unk_piece="[UNK]", **plain,
    )  # fmt: skip
    vocab_words = "\n".join([*words(), ""])
    cases = {
        "llama": ("LlamaTokenizer", {"add_bos_token": True, "legacy": False}, {"tokenizer.model": bpe}),
        "llama_legacy": ("LlamaTokenizerFast", {"add_bos_token": True, "add_eos_token": True, "legacy": True}, {"tokenizer.model": bpe}),
        "gemma": ("GemmaTokenizer", {"add_bos_token": True}, {"tokenizer.model": gemma}),
        "t5": ("T5Tokenizer", {"extra_ids": 4}, {"spiece.model": t5}),
        "xlm_roberta": ("XLMRobertaTokenizer", {}, {"sentencepiece.bpe.model": unigram}),
        "deberta_v2": ("DebertaV2Tokenizer", {"do_lower_case": False}, {"spm.model": deberta}),
        "bert": ("BertTokenizer", {"do_lower_case": True}, {"vocab.txt": vocab_words}),
        "bert_cased": ("BertTokenizer", {"do_lower_case": False, "tokenize_chinese_chars": False}, {"vocab.txt": vocab_words}),
        "gpt2": ("GPT2Tokenizer", {}, merged(600, ["<|endoftext|>"])),
        "opt": (
            "GPT2Tokenizer",
            {"add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"},
            merged(600, ["</s>", "<pad>"]),
        ),
        "roberta": ("RobertaTokenizer", {}, merged(600, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])),
        "qwen2": ("Qwen2Tokenizer", {"pad_token": "<|endoftext|>"}, merged(600, ["<|endoftext|>"])),
    }  # fmt: skip
    for name, (kind, config, files) in cases.items():
        directory = out / name
        config = {"tokenizer_class": kind, **config}
        text_files(directory, {**files, "tokenizer_config.json": json.dumps(config, indent=2) + "\n"})
        kind = getattr(transformers, kind)
        tokenizer = kind.from_pretrained(directory)
        if config.get("legacy"):
            # As SentencePiece and transformers 4; transformers 5 adds no space before a text that begins with one.
            parts = tokenizers.normalizers
            tokenizer._tokenizer.normalizer = parts.Sequence([parts.Prepend("\u2581"), parts.Replace(" ", "\u2581")])
            tokenizer._tokenizer.pre_tokenizer = None
        ids = [tokenizer(text)["input_ids"] for text in TEXTS]
        pair = tokenizer(TEXTS[0], TEXTS[8])["input_ids"]
        decoded = [tokenizer.decode(of, skip_special_tokens=True, clean_up_tokenization_spaces=False) for of in ids]
        write_json(out / f"{name}.ids.json", {"ids": ids, "pair": pair, "decoded": decoded})
    (out / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
