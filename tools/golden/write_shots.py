"""Writes `testdata/golden/shots.json`: labels of rows scored by stories260K after solved examples, by lm-evaluation-harness.

Each case is a task of its own (`output_type: multiple_choice`, the first examples of the file in their order) that
`simple_evaluate` runs with `HFLM` on the CPU in f32. Recorded of each row: the prompt, and of each label its tokens
(`_encode_pair`), how many tokens of the prompt are read, and the summed log-likelihood; of all rows `acc` and `acc_norm`.
"""

from golden_common import BASE, GOLDEN, load_base, load_tokenizer, setup, write_json

import lm_eval
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

EXAMPLES = [
    ("Lily went to the park and had a lot of fun.", 1),
    ("The dog was sad because he lost his ball.", 0),
    ("Tim got a big hug and smiled.", 1),
    ("The little bird fell and was hurt.", 0),
]
ROWS = [
    ("The cat was happy in the sun.", 1),
    ("Mom was very sad and she cried.", 0),
    ("He did not like the rain.", 0),
    ("They all played and laughed.", 1),
]
# Name, examples in a prompt, what stands before the label and between both, what is said for the labels, the most tokens.
CASES = [
    ("two_shots", 2, "{{text}}\nIt is", " ", ["sad", "happy and glad"], None),
    ("no_shots", 0, "{{text}}\nIt is", " ", ["sad", "happy and glad"], None),
    ("no_space", 3, "Story: {{text}} Feeling:", "", ["bad", "good"], None),
    ("cut", 4, "{{text}}\nIt is", " ", ["sad", "happy and glad"], 40),
]


def case(model, tokenizer, name, shots, text, between, words, most):
    def rows(pairs):
        return Dataset.from_list([{"text": text, "label": label} for text, label in pairs])

    task = ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda **_: {"test": rows(ROWS), "train": rows(EXAMPLES)},
            "test_split": "test",
            "fewshot_split": "train",
            "fewshot_config": {"sampler": "first_n"},
            "num_fewshot": shots,
            "output_type": "multiple_choice",
            "doc_to_text": text,
            "doc_to_choice": words,
            "doc_to_target": "label",
            "target_delimiter": between,
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
    )
    task.set_config(key="num_fewshot", value=shots)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=most, device="cpu")
    found = lm_eval.simple_evaluate(lm, tasks=[task], log_samples=True, bootstrap_iters=0, verbosity="ERROR")
    scored = []
    for sample in sorted(found["samples"][name], key=lambda sample: sample["doc_id"]):
        labels = []
        for pair, [(log_likelihood, _)] in zip(sample["arguments"], sample["resps"], strict=True):
            context, tokens = lm._encode_pair(*pair)
            read = min(len(context), lm.max_length + 1 - len(tokens))
            labels.append({"tokens": tokens, "context": context[-read:], "log_likelihood": log_likelihood})
        scored.append({"prompt": sample["arguments"][0][0], "labels": labels})
    metrics = found["results"][name]
    return {
        "name": name,
        "shots": shots,
        "template": text.replace("{{text}}", "{text}") + between + "{label}",
        "words": words,
        "sequence_length": most,
        "rows": scored,
        "accuracy": metrics["acc,none"],
        "accuracy_norm": metrics["acc_norm,none"],
    }


def main():
    setup(7)
    model, tokenizer = load_base(), load_tokenizer()
    cases = [case(model, tokenizer, *settings) for settings in CASES]
    content = {
        "model": BASE,
        "lm_eval": lm_eval.__version__,
        "examples": EXAMPLES,
        "texts": ROWS,
        "cases": cases,
    }
    write_json(GOLDEN / "shots.json", content)


if __name__ == "__main__":
    main()
