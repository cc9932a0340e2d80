"""Makes an encoder of random weights in a published shape, with a tokenizer, and the rows that it is trained on.

    make_encoder.py --out DIR [--shape minilm] [--texts FILE] [--rows 512]

A row is a speech of the plays in `assets/tinyshakespeare.txt`, so lengths are those of a real text; its label is whether it
asks something. The tokenizer is a WordPiece trained on all of them. DIR gets a model in Hugging Face layout, and
`rows.jsonl`. What a step costs depends on shapes and lengths, not on what the weights have learnt.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from make_model import SEED
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Of sentence-transformers/all-MiniLM-L6-v2 and google-bert/bert-base-uncased; their vocabulary is 30,522, too.
SHAPES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
VOCABULARY = 30522
TEXT = Path(__file__).resolve().parent.parent / "assets" / "tinyshakespeare.txt"


def speeches(path):
    """What is said, without the names of those who say it."""
    parts = (part.partition(":\n") for part in path.read_text(encoding="utf-8").split("\n\n"))
    return [" ".join(said.split()) for _, _, said in parts if said.strip()]


def wordpiece(texts):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--shape", choices=SHAPES, default="minilm", help="default minilm")
    parser.add_argument("--texts", type=Path, default=TEXT, help="plays (default assets/tinyshakespeare.txt)")
    parser.add_argument("--rows", type=int, default=512, help="rows that are drawn (default 512)")
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    texts = speeches(arguments.texts)
    BertModel(BertConfig(vocab_size=VOCABULARY, **SHAPES[arguments.shape])).save_pretrained(arguments.out)
    wordpiece(texts).save_pretrained(arguments.out)
    chosen = random.Random(SEED).sample(texts, min(arguments.rows, len(texts)))
    rows = [{"text": text, "label": "question" if "?" in text else "statement"} for text in chosen]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (arguments.out / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{arguments.out}: {arguments.shape}, {len(rows)} rows")


if __name__ == "__main__":
    main()
