"""Questions of a file of SQuAD: their windows, the best answer of logits, and SQuAD's measures."""

import collections
import json
import re
import string


def questions(path):
    """All questions of a file, with the texts of their answers and the place of the first."""
    found = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question["answers"]
                first = answers[0]["answer_start"] if answers else None
                found.append(
                    {
                        "question": question["question"],
                        "context": paragraph["context"],
                        "answers": [answer["text"] for answer in answers],
                        "span": (first, first + len(answers[0]["text"])) if answers else None,
                    }
                )
    return found


def windows(tokenizer, question, length, stride):
    """Windows of a context: inputs, the first token and the characters of its part, the tokens that the answer begins and ends with."""
    encoded = tokenizer(
        question["question"],
        question["context"],
        truncation="only_second",
        max_length=length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    made = []
    for at, ids in enumerate(encoded["input_ids"]):
        texts = encoded.sequence_ids(at)
        part = [token for token, text in enumerate(texts) if text == 1]
        offsets = encoded["offset_mapping"][at]
        inputs = {"input_ids": ids, "attention_mask": encoded["attention_mask"][at], "token_type_ids": encoded["token_type_ids"][at]}
        target = (0, 0)
        if question["span"] is not None:
            begin, end = question["span"]
            inside = [token for token in part if offsets[token][1] > begin and offsets[token][0] < end]
            # All of the answer is in the window, or none of it is learned there.
            if inside and offsets[inside[0]][0] <= begin and offsets[inside[-1]][1] >= end:
                target = (inside[0], inside[-1])
        made.append({"inputs": inputs, "part": part, "offsets": offsets, "target": target})
    return made


def best(question, windows, starts, ends, max_tokens):
    """The text with the largest p(start) p(end) over all windows, or none if the first token has more in each of them."""
    import torch

    answer, best_score, none = "", -1.0, 1.0
    for window, start, end in zip(windows, starts, ends):
        tokens = [0, *window["part"]]
        start, end = (torch.softmax(logits[tokens].double(), 0) for logits in (start, end))
        none = min(none, float(start[0] * end[0]))
        # An answer ends where it begins or up to `max_tokens` behind.
        products = torch.outer(start[1:], end[1:]).triu().tril(max_tokens - 1)
        if products.numel() == 0:
            continue
        score, index = products.flatten().max(0)
        if score > best_score:
            first, last = divmod(int(index), products.shape[1])
            characters = window["offsets"]
            begin, stop = characters[window["part"][first]][0], characters[window["part"][last]][1]
            answer, best_score = question["context"][begin:stop], float(score)
    return "" if none > best_score else answer


def words(text):
    """The words that SQuAD compares: lower case, without punctuation and articles."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def score(answer, right):
    """Exact match and F1, the larger of all right answers; without one, an empty text is right."""
    found = words(answer)
    exact, f1 = 0.0, 0.0
    for expected in [words(text) for text in right if words(text)] or [[]]:
        exact = max(exact, float(found == expected))
        common = sum((collections.Counter(found) & collections.Counter(expected)).values())
        if not found or not expected:
            f1 = max(f1, float(found == expected))
        elif common:
            f1 = max(f1, 2 * common / (len(found) + len(expected)))
    return exact, f1
