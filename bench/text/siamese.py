"""Trains vectors of sentences by a bidirectional LSTM from nothing, in PyTorch: the settings are those of the run file of the task.

    siamese.py --task stsb-zh [--seed 0] [--data DIR] [--threads 2] [--steps N]

Both sentences of a pair go through one net: embedding, LSTM, the mean over the states. The square of the difference between the
cosine of both and the score is learned. Words in lower case and marks, of Chinese single characters, of at most as many a sentence as the run file
says, padded to the longest of a batch and packed; a word of the training set is a token, every other is the same one. AdamW
without decay, the schedule of the run file, gradients bounded to norm 1. The model after the last step is measured: Spearman.
"""

import time

import common
from lstm import UNKNOWN, WORD, states_of

AT_ONCE = 64


def main():
    chosen = common.arguments(__doc__, ["stsb-zh"])
    import torch
    import transformers
    from scipy.stats import spearmanr

    run = common.settings(chosen)
    sizes, training = run["model"]["config"], run["train"]
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    train, test = (common.rows(chosen, part) for part in ("train", "test"))
    start = time.perf_counter()

    def words(text):
        return WORD.findall(text.lower())[: training["sequence_length"]]

    known = sorted({word for row in train for side in ("text", "text_pair") for word in words(row[side])})
    ids = {word: at for at, word in enumerate(known, UNKNOWN + 1)}

    class Sentences(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(len(ids) + 1, sizes["embedding_size"])
            self.lstm = torch.nn.LSTM(sizes["embedding_size"], sizes["hidden_size"], batch_first=True, bidirectional=True)

        def forward(self, texts):
            texts = [[ids.get(word, UNKNOWN) for word in words(text)] for text in texts]
            states, lengths = states_of(self.embedding, self.lstm, texts)
            return states.sum(1) / lengths.unsqueeze(1)

    model = Sentences()

    def cosines(rows):
        sides = (model([row[side] for row in rows]) for side in ("text", "text_pair"))
        return torch.nn.functional.cosine_similarity(*sides)

    optimizer = torch.optim.AdamW(model.parameters(), lr=run["optimizer"]["learning_rate"], weight_decay=0.0)
    batch_size, epochs = training["batch_size"], training["epochs"]
    steps = -(-len(train) // batch_size) * epochs
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, -(-steps // 10), steps)
    limit = common.steps_of(chosen, train, batch_size, epochs)
    for batch in common.batches(train, batch_size, chosen.seed, limit):
        scores = torch.tensor([row["score"] for row in batch])
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(cosines(batch), scores).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run["optimizer"]["clip_grad_norm"])
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        found = [x for first in range(0, len(test), AT_ONCE) for x in cosines(test[first : first + AT_ONCE]).tolist()]
    metrics = {"spearman": spearmanr(found, [row["score"] for row in test]).statistic}
    size = sum(parameter.numel() for parameter in model.parameters())
    common.report("siamese", chosen, metrics, seconds, ["torch", "transformers", "scipy"], train=len(train), steps=limit, words=len(ids), parameters=size)


if __name__ == "__main__":
    main()
