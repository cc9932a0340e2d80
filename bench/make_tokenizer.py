"""Gives a model directory of random weights a tokenizer that is trained on a file of instructions.

    make_tokenizer.py --model DIR --data FILE --out DIR

With one token a byte, texts would be four times as long as they are with the tokenizer of a published model. The new
directory links to the weights and the config of the old one. Byte-level BPE; the control tokens keep their ids.
"""

import argparse
from pathlib import Path

import instructions
from make_model import SPECIAL_TOKENS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, PreTrainedTokenizerFast


def train(texts, size):
    """A byte-level BPE of at most `size` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL_TOKENS[0], eos_token=SPECIAL_TOKENS[0],
        unk_token=SPECIAL_TOKENS[0],
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory that make_model.py has made")
    parser.add_argument("--data", type=Path, required=True, help="JSON or JSON Lines of instructions and answers")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    arguments = parser.parse_args()

    texts = [prompt + response for prompt, response in instructions.read(arguments.data)]
    size = AutoConfig.from_pretrained(str(arguments.model)).vocab_size
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(texts, size).save_pretrained(arguments.out)
    for file in arguments.model.iterdir():
        if not (arguments.out / file.name).exists():
            (arguments.out / file.name).symlink_to(file.absolute())
    print(f"{arguments.out}: a tokenizer of {len(texts)} texts")


if __name__ == "__main__":
    main()
