"""Trains a bidirectional LSTM from nothing to classify texts, or to tag characters, in PyTorch.

    lstm.py --task sms-spam|chinese-sentiment|ner-zh [--seed 0] [--data DIR] [--threads 2] [--steps N]

Words in lower case and marks, of Chinese single characters; those that occur twice in the training set, the rest is one token.
Embedding and LSTM have 128 numbers (a direction); the mean over the words of a text, of a tagger each state, goes to a linear head.
Adam at 1e-3 without decay, batches of 32 texts in a new order each epoch, at most 128 words a text (256 characters of a tagger),
padded to the longest of a batch and packed.
"""

import collections
import re
import time

import common

WIDTH, BATCH, LENGTH, RATE, EPOCHS = 128, 32, 128, 1e-3, 5
UNKNOWN = 0
# A Chinese character, another word, or a mark.
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")


def words(row):
    return row["tokens"][: 2 * LENGTH] if "tokens" in row else WORD.findall(row["text"].lower())[:LENGTH]


def states_of(embedding, lstm, texts):
    """The states of texts, lists of tokens, which are zero behind the end of each, and the lengths."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

    # A text without words is one unknown word.
    texts = [text or [UNKNOWN] for text in texts]
    lengths = torch.tensor([len(text) for text in texts])
    padded = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    packed = pack_padded_sequence(embedding(padded), lengths, batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True)
    return states, lengths


def entity_metrics(test, predicted):
    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

    # What was cut off is no entity.
    predicted = [tags + ["O"] * (len(row["tags"]) - len(tags)) for row, tags in zip(test, predicted)]
    actual = [row["tags"] for row in test]
    measures = {"precision": precision_score, "recall": recall_score, "f1": f1_score, "accuracy": accuracy_score}
    return {name: measure(actual, predicted) for name, measure in measures.items()}


def main():
    chosen = common.arguments(__doc__, ["sms-spam", "chinese-sentiment", "ner-zh"], settable=["data.examples_per_class"])
    import torch
    from torch.nn.utils.rnn import pad_sequence

    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    train, test = (common.rows(chosen, part) for part in ("train", "test"))
    tags = "tags" in train[0]
    labels = sorted({tag for row in train for tag in row["tags"]} if tags else {row["label"] for row in train})
    start = time.perf_counter()
    counts = collections.Counter(word for row in train for word in words(row))
    kept = sorted(word for word, count in counts.items() if count > 1)
    ids = {word: at for at, word in enumerate(kept, UNKNOWN + 1)}

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(len(ids) + 1, WIDTH)
            self.lstm = torch.nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)
            self.head = torch.nn.Linear(2 * WIDTH, len(labels))

        def forward(self, rows):
            texts = [[ids.get(word, UNKNOWN) for word in words(row)] for row in rows]
            states, lengths = states_of(self.embedding, self.lstm, texts)
            if tags:
                return self.head(states)
            return self.head(states.sum(1) / lengths.unsqueeze(1))

    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    loss = torch.nn.CrossEntropyLoss()
    steps = common.steps_of(chosen, train, BATCH, EPOCHS)
    for batch in common.batches(train, BATCH, chosen.seed, steps):
        if tags:
            known = [torch.tensor([labels.index(tag) for tag in row["tags"][: 2 * LENGTH]]) for row in batch]
            targets = pad_sequence(known, batch_first=True, padding_value=-100).flatten()
        else:
            targets = torch.tensor([labels.index(row["label"]) for row in batch])
        optimizer.zero_grad()
        loss(model(batch).reshape(-1, len(labels)), targets).backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    model.eval()
    predicted = []
    with torch.no_grad():
        for first in range(0, len(test), BATCH):
            batch = test[first : first + BATCH]
            best = model(batch).argmax(-1).tolist()
            if tags:
                predicted += [[labels[index] for index in row[: len(words(of))]] for row, of in zip(best, batch)]
            else:
                predicted += [labels[index] for index in best]
    if tags:
        metrics = entity_metrics(test, predicted)
    else:
        metrics = common.class_metrics([row["label"] for row in test], predicted, labels)
    size = sum(parameter.numel() for parameter in model.parameters())
    common.report(
        "lstm", chosen, metrics, seconds, ["torch"], train=len(train), test=len(test), steps=steps, epochs=EPOCHS, words=len(ids), parameters=size
    )


if __name__ == "__main__":
    main()
