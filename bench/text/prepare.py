"""Writes the splits that both sides read, one folder a task, from the data sets as they were published.

    prepare.py [--data DIR] [--work DIR]

- `sms-spam`, `chinese-sentiment`: `train.jsonl` and `test.jsonl` with `text` and `label`. They have no split of their own: a row
  is in the test set if the first four bytes of SHA-256 of its text, as a big-endian number, divide by five. Any program can
  repeat that, and duplicates, of which SMS Spam has several hundred, are on one side.
- `ner-en`: WNUT 2017's own parts, `tokens` and `tags`. `ner-zh`: those of the resumes, a character a token, BMES told as BIOES.
- `squad-small`: `train.json` and `test.json` in SQuAD's form, as they are.
- `stsb-en`, `stsb-zh`: the benchmark's own parts, `text`, `text_pair` and `score`, divided by 5 so that a cosine can be equal to it.
- `multi30k`: English `source`, German `target`, the test set of 2016. `e2e`: what is known of a place, and a sentence that says it;
  a row of the test set has all sentences of its place.
- `shakespeare`: the built-in plays, the last tenth to test, and two tokenizers that are trained on the rest.
- `word-vectors`: the valid and test parts of WikiText-2, a line a paragraph, without headings.
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path


def write(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(lines)} rows", file=sys.stderr)


def is_test(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 5 == 0


def split(rows, out):
    write(out / "train.jsonl", (row for row in rows if not is_test(row["text"])))
    write(out / "test.jsonl", (row for row in rows if is_test(row["text"])))


def sms_spam(data, out):
    lines = (data / "text/sms-spam/SMSSpamCollection").read_text(encoding="utf-8").split("\n")
    cells = [line.split("\t", 1) for line in lines[1:] if line]
    split([{"text": text, "label": label} for label, text in cells], out)


def chinese_sentiment(data, out):
    with (data / "text/chinese-sentiment/waimai_10k.csv").open(encoding="utf-8", newline="") as file:
        names = {"0": "negative", "1": "positive"}
        rows = [{"text": row["review"], "label": names[row["label"]]} for row in csv.DictReader(file)]
    split(rows, out)


def sentences(path, separator="\t"):
    sentence = []
    for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
        if line.strip():
            sentence.append(line.rstrip("\r").split(separator))
        elif sentence:
            yield {"tokens": [token for token, _ in sentence], "tags": [tag for _, tag in sentence]}
            sentence = []


def ner_en(data, out):
    files = {"train": "wnut17train.conll", "dev": "emerging.dev.conll", "test": "emerging.test.annotated"}
    for part, name in files.items():
        write(out / f"{part}.jsonl", sentences(data / "text/ner-en" / name))


def ner_zh(data, out):
    # Middle of an entity: M there, I in BIOES.
    for part in ("train", "dev", "test"):
        rows = list(sentences(data / f"text/ner-zh/{part}.char.bmes", " "))
        for row in rows:
            row["tags"] = ["I" + tag[1:] if tag.startswith("M-") else tag for tag in row["tags"]]
        write(out / f"{part}.jsonl", rows)


def squad_small(data, out):
    for part in ("train", "test"):
        shutil.copyfile(data / f"text/squad-small/squad2-{part}.json", out / f"{part}.json")
        print(out / f"{part}.json", file=sys.stderr)


def stsb(language):
    def make(data, out):
        for part in ("train", "dev", "test"):
            with (data / f"text/stsb-multi-mt/stsb-{language}-{part}.csv").open(encoding="utf-8", newline="") as file:
                rows = [{"text": a, "text_pair": b, "score": float(score) / 5} for a, b, score in csv.reader(file)]
            write(out / f"{part}.jsonl", rows)

    return make


def multi30k(data, out):
    for part, name in {"train": "train", "dev": "val", "test": "test_2016_flickr"}.items():
        sides = []
        for language in ("en", "de"):
            with gzip.open(data / f"text/multi30k/{name}.{language}.gz", "rt", encoding="utf-8") as file:
                sides.append(file.read().splitlines())
        write(out / f"{part}.jsonl", ({"source": a.strip(), "target": b.strip()} for a, b in zip(*sides, strict=True)))


def e2e(data, out):
    for part, name in {"train": "train", "dev": "valid", "test": "test"}.items():
        lines = (data / f"text/e2e-lora-format/{name}.txt").read_text(encoding="utf-8").splitlines()
        rows = [[side.strip() for side in line.split("||", 1)] for line in lines if line.strip()]
        if part != "train":
            places = {}
            for source, target in rows:
                places.setdefault(source, []).append(target)
            rows = list(places.items())
        write(out / f"{part}.jsonl", ({"source": source, "target": target} for source, target in rows))


def shakespeare(data, out):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    text = (Path(__file__).resolve().parent.parent.parent / "assets/tinyshakespeare.txt").read_text(encoding="utf-8")
    cut = text.rindex("\n\n", 0, len(text) * 9 // 10) + 2
    for part, said in {"train": text[:cut], "test": text[cut:]}.items():
        (out / f"{part}.txt").write_text(said, encoding="utf-8")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator([text[:cut]], trainers.BpeTrainer(vocab_size=2000, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>").save_pretrained(out / "bpe")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    words.train_from_iterator([text[:cut]], trainers.WordPieceTrainer(vocab_size=2000, special_tokens=list(names.values()), show_progress=False))
    ends = [(name, words.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(out / "wordpiece")


def word_vectors(data, out):
    parts = [(data / f"text/wikitext2-valid-test/{part}.txt").read_text(encoding="utf-8").splitlines() for part in ("valid", "test")]
    lines = [line.strip() for part in parts for line in part if line.strip() and not line.strip().startswith("=")]
    (out / "train.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    shutil.copyfile(data / "text/word-vectors/wordsim353.tsv", out / "wordsim353.tsv")


def into(make):
    """Makes the folder first, and under another name, so that a folder that is there is whole."""

    def prepare(data, out):
        partial = out.with_name(out.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(data, partial)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)

    return prepare


TASKS = {
    "sms-spam": into(sms_spam),
    "chinese-sentiment": into(chinese_sentiment),
    "ner-en": into(ner_en),
    "ner-zh": into(ner_zh),
    "squad-small": into(squad_small),
    "stsb-en": into(stsb("en")),
    "stsb-zh": into(stsb("zh")),
    "multi30k": into(multi30k),
    "e2e": into(e2e),
    "shakespeare": into(shakespeare),
    "word-vectors": into(word_vectors),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("REPARAM_DATA"), help="directory of the data sets ($REPARAM_DATA)")
    parser.add_argument("--work", type=Path, default=Path(__file__).resolve().parent / ".data")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("say where the data sets are: --data or REPARAM_DATA")
    for name, task in TASKS.items():
        task(chosen.data, chosen.work / name)


if __name__ == "__main__":
    main()
