"""Writes `testdata/golden/rows/`: what measures and tokenizers make of tokens with tags, questions and pairs of texts.

- `entities.json`: sentences of random `tags` and `predicted` ones, a case a scheme, with seqeval's `precision`, `recall`, `f1`
  and `accuracy` in its default mode (micro average), and the number of entities of each type that are there (`actual`), that
  are `predicted` and that are `right`. seqeval gets BMES with I for M.
- `answers.json`: an `answer` and the `right` ones with `exact` and `f1` from 0 to 1. The rule is that of SQuAD 2.0's official
  evaluation (see `normalize`, `score`), which torchmetrics confirms where there are answers; with Chinese characters in one of
  two answers, each of them is a word and Chinese punctuation goes, too (see `spread`).
- `spans.json`: questions of `windows`, each with its number of `tokens`, those `before` the context, those of the `context`, and
  the logits of `start` and `end`; the answer to `most` tokens as transformers' pipeline for question answering chooses it (the
  best of the products that numpy makes of two softmaxes, or none if that of the first token is larger in every window):
  `window`, `first` and `last` token of the context, null if none, and `score`.
- `correlations.json`: lists `a` and `b` with scipy's `pearson` and `spearman`.
- `tokenizer/`: a byte-level tokenizer, like RoBERTa's but small.
- `words.json`: `words` encoded by transformers with `is_split_into_words=True`, cut to `max_length`, and the index of each
  word's first piece, by the tokenizer of `../bert/classifier` and the one here (with `add_prefix_space=True`).
- `windows.json`: `question` and `context` encoded by transformers with `truncation="only_second"`, `max_length`, `stride` and
  `return_overflowing_tokens=True`: each window's ids, types, first token of the context and offsets of its tokens.
"""

import re
import string
import warnings
from collections import Counter

from golden_common import GOLDEN, setup, write_json

import numpy
import scipy.stats
import seqeval
import torchmetrics
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torchmetrics.functional.text import squad
from transformers import AutoTokenizer, PreTrainedTokenizerFast

DIRECTORY = GOLDEN / "rows"
TYPES = ["PER", "LOC", "creative-work"]
# Letters of a scheme, those of entities without O, and how often a token is outside.
SCHEMES = {"iob2": "BI", "io": "I", "bioes": "BIES", "bmes": "BMES", "other": "BIX"}


def entities(random, name, letters, n_types, stay):
    """Random walks over tags: with probability `stay` the type of the token before, so that entities are long enough."""
    types = [f"-{kind}" for kind in TYPES[:n_types]] or [""]

    def sentence(length):
        tags, kind = [], ""
        for _ in range(length):
            if random.random() >= stay:
                kind = random.choice(["O", *types])
            tags.append("O" if kind == "O" else random.choice(list(letters)) + kind)
        return [str(tag) for tag in tags]

    rows = []
    for _ in range(30):
        tags = sentence(random.integers(1, 13))
        other = sentence(len(tags))
        predicted = [tag if random.random() < 0.8 else other for tag, other in zip(tags, other)]
        rows.append((tags, predicted))

    def known(tags):
        return [re.sub("^M", "I", tag) for tag in tags]

    actual, predicted = [known(row[0]) for row in rows], [known(row[1]) for row in rows]
    measures = {
        key: float(measure(actual, predicted))
        for key, measure in [("precision", precision_score), ("recall", recall_score), ("f1", f1_score), ("accuracy", accuracy_score)]
    }
    there, found = set(get_entities(actual)), set(get_entities(predicted))
    counts = {
        kind: {
            key: sum(entity[0] == kind for entity in some)
            for key, some in [("actual", there), ("predicted", found), ("right", there & found)]
        }
        for kind in sorted({entity[0] for entity in there | found})
    }
    return {
        "name": name,
        "rows": [{"tags": " ".join(tags), "predicted": " ".join(predicted)} for tags, predicted in rows],
        **measures,
        "types": counts,
    }


def rounded(logits):
    """Numbers that f32 holds exactly, so that a reader in f32 loses nothing."""
    return logits.astype(numpy.float32).astype(numpy.float64)


ARTICLES = re.compile(r"\b(a|an|the)\b")
EASTERN = re.compile("[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
EASTERN_PUNCTUATION = re.compile(
    "[\u3000-\u3004\u3008-\u303f\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\u00b7\u2010-\u2027]"
)
OWN = re.compile(EASTERN.pattern + "|[\u3000-\u303f\uff01-\uff65]")


def normalize(text):
    """The words of an answer as SQuAD compares them."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return ARTICLES.sub(" ", text).split()


def spread(text):
    """The same with spaces around Chinese characters, and without Chinese punctuation."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    text = ARTICLES.sub(" ", EASTERN_PUNCTUATION.sub("", text))
    return EASTERN.sub(lambda found: f" {found[0]} ", text).split()


def score(answer, right):
    """Exact match and F1 of the best of the right answers."""
    right = [text for text in right if (spread if OWN.search(text) else normalize)(text)] or [""]
    best = (0.0, 0.0)
    for text in right:
        words = spread if OWN.search(answer) or OWN.search(text) else normalize
        a, b = words(answer), words(text)
        common = sum((Counter(a) & Counter(b)).values())
        if not a or not b:
            f1 = float(a == b)
        elif common == 0:
            f1 = 0.0
        else:
            precision, recall = common / len(a), common / len(b)
            f1 = 2 * precision * recall / (precision + recall)
        best = max(best[0], float(a == b)), max(best[1], f1)
    return best


PARTS = (
    "the The a an A cat cat, Cat's cat-like U.S. 1,000 $5.6 _the_ the-cat é’s É naïve Ärger \u00a0 \u2009 “the” (an) 3rd . , - "
    "theatre a\u0301 ΣΑΣ ß İstanbul"
).split(" ")
EASTERN_PARTS = "北京 北京市 《红楼梦》 ，。 2008年 の 東京タワー iPhone 的 a “重阳” ABC （第三）".split()


def answers(random):
    def text(parts, most):
        return " ".join(random.choice(parts, random.integers(0, most + 1)).tolist())

    cases = []
    for number in range(160):
        parts = PARTS if number < 100 else EASTERN_PARTS if number < 130 else EASTERN_PARTS + PARTS
        right = [text(parts, 4) for _ in range(random.integers(0, 4))]
        answer = str(random.choice(right)) if right and random.random() < 0.3 else text(parts, 4)
        if random.random() < 0.2:
            answer = answer.upper().replace(" ", "")
        exact, f1 = score(answer, right)
        if parts is PARTS and right and all(normalize(one) for one in [answer, *right]):
            check = squad(
                [{"prediction_text": answer, "id": "0"}],
                [{"answers": {"text": right, "answer_start": [0] * len(right)}, "id": "0"}],
            )
            assert abs(check["exact_match"].item() - 100 * exact) < 1e-4, (answer, right)
            assert abs(check["f1"].item() - 100 * f1) < 1e-4, (answer, right)
        cases.append({"answer": answer, "right": right, "exact": exact, "f1": f1})
    return cases


def spans(random):
    def softmax(logits, allowed):
        logits = numpy.where(allowed, logits, -numpy.inf)
        logits = numpy.exp(logits - logits.max())
        return logits / logits.sum()

    def case(most, scale, none):
        windows, found, nothing = [], [], []
        for index in range(random.integers(1, 4)):
            before, context, behind = random.integers(1, 6), random.integers(1, 30), random.integers(0, 2)
            tokens = before + context + behind
            logits = rounded(random.normal(0.0, scale, (2, tokens)))
            logits[:, 0] = rounded(logits[:, 0] + none)
            of_context = (numpy.arange(tokens) >= before) & (numpy.arange(tokens) < before + context)
            start, end = (softmax(row, of_context | (numpy.arange(tokens) == 0)) for row in logits)
            nothing.append(start[0] * end[0])
            products = numpy.tril(numpy.triu(numpy.outer(start * of_context, end * of_context)), most - 1)
            first, last = numpy.unravel_index(products.argmax(), products.shape)
            found.append((products.max(), -index, int(first - before), int(last - before)))
            windows.append(
                {
                    "tokens": int(tokens),
                    "before": int(before),
                    "context": int(context),
                    "start": logits[0].tolist(),
                    "end": logits[1].tolist(),
                }
            )
        score, window, first, last = max(found)
        answer = {"window": -window, "first": first, "last": last, "score": float(score)}
        if min(nothing) > score:
            answer = {"window": None, "first": None, "last": None, "score": float(min(nothing))}
        return {"most": most, "windows": windows, **answer}

    return [case(most, scale, none) for most in (1, 4, 30) for scale in (0.5, 3.0) for none in (-1.0, 1.0, 4.0)]


def correlations(random):
    def case(name, a, b):
        a, b = numpy.asarray(a, dtype=float), numpy.asarray(b, dtype=float)
        return {
            "name": name,
            "a": a.tolist(),
            "b": b.tolist(),
            "pearson": float(scipy.stats.pearsonr(a, b)[0]),
            "spearman": float(scipy.stats.spearmanr(a, b)[0]),
        }

    normal = random.normal(size=(4, 40))
    return [
        case("normal", normal[0], normal[0] + normal[1]),
        case("ties", numpy.round(2 * normal[0]), numpy.round(2 * normal[2])),
        case("scores", random.integers(0, 26, 60) / 5, random.random(60)),
        case("two", [1, 2], [5, 3]),
        case("a_large_mean", 1e6 + normal[2], normal[2] + normal[3]),
        case("large_and_small", 1e200 * normal[1], 1e-200 * (normal[1] ** 3)),
        case("one_differs", [0.0] * 9 + [1.0], numpy.arange(10)),
    ]


TEXT = (
    "The cat isn't here; it's 12:45 o'clock in naïve São Paulo. «Déjà vu!» — 北京 is 2,150 km away 😀 from the cat's home. "
    "Did the theatre's cats go there? They did, and the others went home, too."
)


def byte_level():
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator([TEXT], trainer)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "sep_token": "</s>", "cls_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=["input_ids", "attention_mask"], **names)


SENTENCES = [
    TEXT.split(),
    ["you", "have", "won", "15", "prizes", "!"],
    ["sure", "", "ok", "\u200d", "😀", "unsure", "\ufe0f"],
    list("北京is"),
    ["see-you", "New York", " at", "it's", "</s>", "[SEP]", "a.b"],
    [],
]


def words(name, tokenizer, tokens, max_length, side):
    tokenizer.truncation_side = side
    encoded = tokenizer(tokens, is_split_into_words=True, truncation=True, max_length=max_length, return_token_type_ids=True)
    of_words = encoded.word_ids()
    return {
        "tokenizer": name,
        "words": tokens,
        "max_length": max_length,
        "side": side,
        "ids": encoded["input_ids"],
        "type_ids": encoded["token_type_ids"],
        "first": [of_words.index(word) if word in of_words else None for word in range(len(tokens))],
    }


def windows(name, tokenizer, question, context, max_length, stride, side):
    tokenizer.truncation_side = side
    encoded = tokenizer(
        # As a batch of one, because a single call takes an empty second text for none.
        [question],
        [context],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    found = []
    for index, offsets in enumerate(encoded["offset_mapping"]):
        texts = encoded.sequence_ids(index)
        of_context = [at for at, text in enumerate(texts) if text == 1]
        found.append(
            {
                "ids": encoded["input_ids"][index],
                "type_ids": encoded["token_type_ids"][index],
                "first": of_context[0] if of_context else None,
                "offsets": [at for token in of_context for at in offsets[token]],
            }
        )
    return {
        "tokenizer": name,
        "question": question,
        "context": context,
        "max_length": max_length,
        "stride": stride,
        "side": side,
        "windows": found,
    }


def main():
    setup(21)
    warnings.filterwarnings("ignore")
    random = numpy.random.default_rng(21)
    tools = {"seqeval": getattr(seqeval, "__version__", "1.2.2"), "torchmetrics": torchmetrics.__version__, "scipy": scipy.__version__}
    cases = [
        entities(random, f"{scheme}_{n_types}_types", letters, n_types, stay)
        for scheme, letters in SCHEMES.items()
        for n_types, stay in [(3, 0.7), (1, 0.5), (0, 0.5)]
        # A letter that seqeval does not know, without a type, gives an entity the beginning of an earlier one.
        if n_types > 0 or scheme != "other"
    ]
    write_json(DIRECTORY / "entities.json", {"tools": tools, "cases": cases})
    write_json(DIRECTORY / "answers.json", {"tools": tools, "cases": answers(random)})
    write_json(DIRECTORY / "correlations.json", {"tools": tools, "cases": correlations(random)})
    write_json(DIRECTORY / "spans.json", {"tools": tools, "cases": spans(random)})
    byte_level().save_pretrained(DIRECTORY / "tokenizer")
    tokenizers = {
        "bert": AutoTokenizer.from_pretrained(str(GOLDEN / "bert" / "classifier")),
        "byte_level": AutoTokenizer.from_pretrained(str(DIRECTORY / "tokenizer")),
    }
    encoded = [
        words(name, tokenizer, tokens, max_length, side)
        for name, tokenizer in tokenizers.items()
        for tokens in SENTENCES
        for max_length, side in [(512, "right"), (12, "right"), (9, "left")]
    ]
    write_json(DIRECTORY / "words.json", {"rows": encoded})
    texts = [("Did the cats go?", TEXT), ("it ?", "see you at five"), ("is it ok ?", ""), ("", "  two\n\nlines  😀 ")]
    encoded = [
        windows(name, tokenizer, question, context, max_length, stride, side)
        for name, tokenizer in tokenizers.items()
        for question, context in texts
        for max_length, stride, side in [(384, 128, "right"), (30, 8, "right"), (27, 0, "right"), (30, 6, "left")]
    ]
    write_json(DIRECTORY / "windows.json", {"rows": encoded})


if __name__ == "__main__":
    main()
