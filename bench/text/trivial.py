"""Measures what needs no learning, for each task: what a model has to be better than.

    trivial.py [--work DIR]

Classes: always the most frequent one. Entities: none. Questions: none has an answer. Similarity: the overlap of words, of Chinese
characters (Jaccard's). Sequences: the source stands as the target. Needs no data but the splits of prepare.py.
"""

import argparse
import collections
import json
import re
from pathlib import Path

import common
import squad

WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


def classes(train, test):
    best = collections.Counter(row["label"] for row in train).most_common(1)[0][0]
    return common.class_metrics([row["label"] for row in test], [best] * len(test), sorted({row["label"] for row in train}))


def similarity(train, test):
    from scipy.stats import spearmanr

    def overlap(row):
        a, b = (set(WORD.findall(row[side].lower())) for side in ("text", "text_pair"))
        return len(a & b) / max(1, len(a | b))

    return {"spearman": float(spearmanr([row["score"] for row in test], [overlap(row) for row in test]).statistic)}


def sequences(train, test):
    import sacrebleu

    targets = [row["target"] if isinstance(row["target"], list) else [row["target"]] for row in test]
    references = [[of[at] if at < len(of) else None for of in targets] for at in range(max(map(len, targets)))]
    sources = [row["source"] for row in test]
    return {"bleu": sacrebleu.corpus_bleu(sources, references).score, "chrf": sacrebleu.corpus_chrf(sources, references).score}


TASKS = {
    "sms-spam": classes,
    "chinese-sentiment": classes,
    "stsb-en": similarity,
    "stsb-zh": similarity,
    "multi30k": sequences,
    "e2e": sequences,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=common.WORK, help="directory of the splits, see prepare.py")
    chosen = parser.parse_args()
    for task, measure in TASKS.items():
        chosen.task = task
        print(json.dumps({"task": task, **measure(*(common.rows(chosen, part) for part in ("train", "test")))}))
    asked = squad.questions(chosen.work / "squad-small/test.json")
    scores = [squad.score("", question["answers"]) for question in asked]
    exact, f1 = (100 * sum(score[side] for score in scores) / len(scores) for side in (0, 1))
    print(json.dumps({"task": "squad-small", "exact_match": exact, "f1": f1}))


if __name__ == "__main__":
    main()
