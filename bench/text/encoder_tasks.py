"""What the tasks of `peft_encoder.py` are: a base with its head, the loss of a batch, the measures on the test set.

Imported libraries read the number of threads from the environment, so they are imported where they are used.
"""

import common
import squad

MODEL = "models/all-MiniLM-L6-v2"
# How many rows are measured at once.
AT_ONCE = 64


class Task:
    """Loads tokenizer and rows. A row to learn is whatever `self.train` holds."""

    TASK_TYPE = None

    def __init__(self, chosen, run):
        from transformers import AutoTokenizer

        self.model_dir = str(chosen.data / MODEL)
        self.tokenizer = AutoTokenizer.from_pretrained(self.model_dir)
        self.length = run["train"]["sequence_length"]
        self.load(chosen, run)

    def load(self, chosen, run):
        self.train, self.test = (common.rows(chosen, part) for part in ("train", "test"))

    def encode(self, texts, **more):
        limits = {"truncation": True, "max_length": self.length, "padding": True, "return_tensors": "pt"}
        return self.tokenizer(texts, **limits, **more)

    def batches(self):
        return (self.test[first : first + AT_ONCE] for first in range(0, len(self.test), AT_ONCE))


class Classes(Task):
    TASK_TYPE = "SEQ_CLS"

    def load(self, chosen, run):
        from transformers import AutoModelForSequenceClassification

        super().load(chosen, run)
        self.labels = sorted({row["label"] for row in self.train})
        self.base = AutoModelForSequenceClassification.from_pretrained(self.model_dir, num_labels=len(self.labels))

    def loss(self, model, rows):
        import torch

        targets = torch.tensor([self.labels.index(row["label"]) for row in rows])
        return model(**self.encode([row["text"] for row in rows]), labels=targets).loss

    def measure(self, model):
        predicted = []
        for rows in self.batches():
            best = model(**self.encode([row["text"] for row in rows])).logits.argmax(1)
            predicted += [self.labels[index] for index in best.tolist()]
        return common.class_metrics([row["label"] for row in self.test], predicted, self.labels)


class Tags(Task):
    """A word has the tag of its first token; the others are not learned."""

    TASK_TYPE = "TOKEN_CLS"

    def load(self, chosen, run):
        from transformers import AutoModelForTokenClassification

        super().load(chosen, run)
        self.tags = sorted({tag for row in self.train for tag in row["tags"]})
        self.base = AutoModelForTokenClassification.from_pretrained(self.model_dir, num_labels=len(self.tags))

    def words(self, rows):
        """The tokens of rows, and for each row the place of each word's first token."""
        encoded = self.encode([row["tokens"] for row in rows], is_split_into_words=True)
        places = []
        for at in range(len(rows)):
            first = {}
            for place, word in enumerate(encoded.word_ids(at)):
                if word is not None:
                    first.setdefault(word, place)
            places.append(first)
        return encoded, places

    def loss(self, model, rows):
        import torch

        encoded, places = self.words(rows)
        targets = torch.full_like(encoded["input_ids"], -100)
        for at, (row, first) in enumerate(zip(rows, places)):
            for word, place in first.items():
                targets[at, place] = self.tags.index(row["tags"][word])
        return model(**encoded, labels=targets).loss

    def measure(self, model):
        from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

        predicted = []
        for rows in self.batches():
            encoded, places = self.words(rows)
            best = model(**encoded).logits.argmax(2)
            for at, (row, first) in enumerate(zip(rows, places)):
                # What was cut off, or has no token, is no entity.
                tags = ["O"] * len(row["tokens"])
                for word, place in first.items():
                    tags[word] = self.tags[best[at, place]]
                predicted.append(tags)
        actual = [row["tags"] for row in self.test]
        measures = {"precision": precision_score, "recall": recall_score, "f1": f1_score, "accuracy": accuracy_score}
        return {name: measure(actual, predicted) for name, measure in measures.items()}


class Answers(Task):
    """Windows of long contexts; one without the answer points at its first token."""

    TASK_TYPE = "QUESTION_ANS"

    def load(self, chosen, run):
        from transformers import AutoModelForQuestionAnswering

        self.stride = run["data"]["stride"]
        self.max_answer = run["data"]["max_answer_tokens"]
        parts = [squad.questions(chosen.work / chosen.task / f"{part}.json") for part in ("train", "test")]
        self.train = [window for question in parts[0] for window in self.windows(question)]
        self.test = parts[1]
        self.base = AutoModelForQuestionAnswering.from_pretrained(self.model_dir)

    def windows(self, question):
        return squad.windows(self.tokenizer, question, self.length, self.stride)

    def forward(self, model, windows, **more):
        inputs = self.tokenizer.pad([window["inputs"] for window in windows], return_tensors="pt")
        # PeftModelForQuestionAnswering of PEFT 0.21 forgets token_type_ids.
        return model.base_model(**inputs, **more)

    def loss(self, model, windows):
        import torch

        starts, ends = (torch.tensor([window["target"][side] for window in windows]) for side in (0, 1))
        return self.forward(model, windows, start_positions=starts, end_positions=ends).loss

    def measure(self, model):
        exact, f1 = 0.0, 0.0
        for question in self.test:
            windows = self.windows(question)
            out = self.forward(model, windows)
            answer = squad.best(question, windows, out.start_logits, out.end_logits, self.max_answer)
            scores = squad.score(answer, question["answers"])
            exact, f1 = exact + scores[0], f1 + scores[1]
        return {"exact_match": 100 * exact / len(self.test), "f1": 100 * f1 / len(self.test)}


class Vectors(Task):
    """The mean of the last states; the cosine of two texts shall be their score."""

    TASK_TYPE = "FEATURE_EXTRACTION"

    def load(self, chosen, run):
        from transformers import AutoModel

        super().load(chosen, run)
        assert run["data"]["loss"] == "cosine", run["data"]["loss"]
        self.base = AutoModel.from_pretrained(self.model_dir)

    def cosines(self, model, rows):
        import torch

        encoded = self.encode([row[side] for side in ("text", "text_pair") for row in rows])
        states = model(**encoded).last_hidden_state
        mask = encoded["attention_mask"].unsqueeze(2)
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.cosine_similarity(mean[: len(rows)], mean[len(rows) :])

    def loss(self, model, rows):
        import torch

        scores = torch.tensor([row["score"] for row in rows])
        return torch.nn.functional.mse_loss(self.cosines(model, rows), scores)

    def measure(self, model):
        from scipy.stats import pearsonr, spearmanr

        cosines = [cosine for rows in self.batches() for cosine in self.cosines(model, rows).tolist()]
        scores = [row["score"] for row in self.test]
        return {"spearman": spearmanr(scores, cosines).statistic, "pearson": pearsonr(scores, cosines).statistic}


TASKS = {
    "sms-spam": Classes,
    "chinese-sentiment": Classes,
    "ner-en": Tags,
    "squad-small": Answers,
    "stsb-en": Vectors,
}
