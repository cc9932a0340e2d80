"""Trains word vectors with gensim: the settings are those of `word-vectors.toml`, whose run reparam trains.

    word_vectors.py --task word-vectors [--seed 0] [--data DIR] [--threads 2]

Skip-gram with negative sampling; the learning rate and the batches are gensim's own. Measured by Spearman's correlation with WordSim353 over the pairs of which both words are known,
in lower case.
"""

import time
import common


def pairs(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            a, b, score = line.split("\t")
            yield a.lower(), b.lower(), float(score)


def main():
    chosen = common.arguments(__doc__, ["word-vectors"], has_steps=False)
    from gensim.models import Word2Vec
    from scipy.stats import spearmanr

    run = common.settings(chosen)
    model, data = run["model"], run["data"]
    folder = chosen.work / chosen.task
    start = time.perf_counter()
    lines = (folder / "train.txt").read_text(encoding="utf-8").lower().splitlines()
    # The data set has its words apart already.
    texts = [[word for word in line.split() if word[0].isalnum()] for line in lines]
    trained = Word2Vec(
        texts, sg=1, vector_size=model["config"]["vector_size"], min_count=model["tokenizer"]["min_count"], window=data["window"],
        negative=data["negatives"], sample=data["subsample"], epochs=run["train"]["epochs"], seed=chosen.seed, workers=chosen.threads,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    known = [row for row in pairs(folder / "wordsim353.tsv") if row[0] in trained.wv and row[1] in trained.wv]
    found = [trained.wv.similarity(a, b) for a, b, _ in known]
    metrics = {"spearman": spearmanr(found, [score for _, _, score in known]).statistic, "pairs": len(known)}
    common.report("word_vectors", chosen, metrics, seconds, ["gensim"], words=len(trained.wv))


if __name__ == "__main__":
    main()
