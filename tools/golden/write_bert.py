"""Writes `testdata/golden/bert/`: a tiny random BERT, how its tokenizer cuts rows, and what it computes.

- `classifier/`: a BertForSequenceClassification as transformers saves it, with a WordPiece tokenizer and three labels.
- `rows.json`: rows (`text`, `text_pair` or null) cut by `truncation="longest_first"` to `max_length` tokens on `side`, with
  the ids and the types of their tokens, and whether that is less than without cutting.
- `batch.json`: the rows of one batch with their classes, and the mean losses: `loss` of classes that exclude one another
  (cross-entropy, rows), `loss_several` of several (binary cross-entropy, rows times classes; a row's classes are its own and
  the class 0). All in evaluation mode, without dropout.
- `batch.safetensors`: `input_ids`, `token_type_ids` [N] and `bounds` [R + 1] of the rows one behind the other; `logits`
  [R, 3]; `hidden` [N, d], the last hidden states; `gradient.NAME` of `loss` for every parameter, `gradient_several.NAME` of
  `loss_several` for the parameters of the pooler and the classifier.
- `body/`: the same model without its head, as the class BertModel saves it, and the tokenizer.
- `masked/`: the same body as a BertForMaskedLM, and the tokenizer.
- `adapter/`: an adapter of `body/` as PEFT saves it, LoRA on queries and values with a new head of two labels beside it
  (`modules_to_save`); `adapter.safetensors` has its `logits` [R, 2] for the rows of the batch.

Weights are normal with standard deviation 0.2, biases too, norm weights 1 plus that.
"""

import shutil

from golden_common import GOLDEN, flatten, randomize, setup, write_json, write_tensors

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

DIRECTORY = GOLDEN / "bert"
LABELS = ["ham", "spam", "unsure"]
WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a an the you have won free prize call now see me at five six home tonight is it ok "
    "this please send text to win un ##sure ##s ##ed ##ing ! ? . , ' 1 2 3 ##0 ##5"
).split()
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
}
LONG = "please call me now, see you at home tonight ! is it ok ? send text to win the free prize"
ROWS = [
    ("you have won a FREE prize!", None, 1),
    ("see you at five", "is it ok?", 0),
    ("", None, 2),
    ("", "", 0),
    (LONG, None, 1),
    (LONG, "call me", 2),
    ("ok", LONG, 0),
    ("winning 15 prizes", LONG + " " + LONG, 1),
]
# Eleven leaves eight tokens of a pair, seven an odd number of one, four only one.
LENGTHS = [24, 11, 10, 7, 4]


def tokenizer():
    inner = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, WORDS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=names, model_max_length=24, **SPECIAL)


def cut(tokenizer, text, pair, max_length, side):
    tokenizer.truncation_side = side
    # As a batch of one, because a single call takes an empty second text for none.
    texts = ([text],) if pair is None else ([text], [pair])
    whole = tokenizer(*texts)
    encoded = tokenizer(*texts, truncation="longest_first", max_length=max_length)
    return {
        "text": text,
        "text_pair": pair,
        "max_length": max_length,
        "side": side,
        "ids": encoded["input_ids"][0],
        "type_ids": encoded["token_type_ids"][0],
        "truncated": len(whole["input_ids"][0]) > len(encoded["input_ids"][0]),
    }


def model():
    config = BertConfig(**SHAPE, id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)})
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.2)
            if name.endswith("LayerNorm.weight"):
                parameter.add_(1.0)
    return model.eval()


def masked(tiny):
    """The model with the head of a masked language model."""
    model = BertForMaskedLM(BertConfig(**SHAPE))
    with torch.no_grad():
        for name, parameter in model.cls.named_parameters():
            parameter.normal_(0.0, 0.2)
            if name.endswith("LayerNorm.weight"):
                parameter.add_(1.0)
    body = {name: value for name, value in tiny.bert.state_dict().items() if not name.startswith("pooler.")}
    model.bert.load_state_dict(body)
    model.tie_weights()
    return model


def gradients(model, loss, prefix, keep):
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {
        f"{prefix}.{name}": parameter.grad.clone() for name, parameter in model.named_parameters() if keep(name)
    }


def main():
    setup(21)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    words = tokenizer()
    words.save_pretrained(DIRECTORY / "classifier")
    tiny = model()
    tiny.save_pretrained(DIRECTORY / "classifier")
    rows = [
        cut(words, text, pair, length, side)
        for side in ("right", "left")
        for length in LENGTHS
        for text, pair, _ in ROWS
    ]
    write_json(DIRECTORY / "rows.json", {"rows": rows})

    batch = [cut(words, text, pair, 24, "right") for text, pair, _ in ROWS]
    classes = torch.tensor([row[2] for row in ROWS])
    logits, hidden = [], []
    for row in batch:
        inputs = {"input_ids": torch.tensor([row["ids"]]), "token_type_ids": torch.tensor([row["type_ids"]])}
        output = tiny(**inputs, output_hidden_states=True)
        logits.append(output.logits[0])
        hidden.append(output.hidden_states[-1][0])
    logits = torch.stack(logits)
    several = torch.nn.functional.one_hot(classes, 3).float()
    several[:, 0] = 1.0
    loss = torch.nn.functional.cross_entropy(logits, classes)
    loss_several = torch.nn.functional.binary_cross_entropy_with_logits(logits, several)
    ids, bounds = flatten([row["ids"] for row in batch])
    types, _ = flatten([row["type_ids"] for row in batch])
    head = ("bert.pooler.", "classifier.")
    write_tensors(
        DIRECTORY / "batch.safetensors",
        {"input_ids": ids, "token_type_ids": types, "bounds": bounds, "logits": logits, "hidden": torch.cat(hidden)}
        | gradients(tiny, loss, "gradient", lambda name: True)
        | gradients(tiny, loss_several, "gradient_several", lambda name: name.startswith(head)),
    )
    write_json(
        DIRECTORY / "batch.json",
        {
            "labels": LABELS,
            "rows": [{"text": text, "text_pair": pair, "class": label} for text, pair, label in ROWS],
            "loss": loss.item(),
            "loss_several": loss_several.item(),
        },
    )

    words.save_pretrained(DIRECTORY / "body")
    # Made anew, because the labels of the classifier are in the configuration of its body.
    body = BertModel(BertConfig(**SHAPE))
    body.load_state_dict(tiny.bert.state_dict())
    body.save_pretrained(DIRECTORY / "body")
    write_adapter(batch)
    setup(22)
    words.save_pretrained(DIRECTORY / "masked")
    masked(tiny).save_pretrained(DIRECTORY / "masked")


def write_adapter(batch):
    base = BertForSequenceClassification.from_pretrained(DIRECTORY / "body", num_labels=2)
    config = LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4, target_modules=["query", "value"])
    model = get_peft_model(base, config).eval()
    randomize(parameter for name, parameter in model.named_parameters() if parameter.requires_grad)
    model.save_pretrained(DIRECTORY / "adapter")
    (DIRECTORY / "adapter" / "README.md").unlink()
    logits = [
        model(input_ids=torch.tensor([row["ids"]]), token_type_ids=torch.tensor([row["type_ids"]])).logits[0]
        for row in batch
    ]
    write_tensors(DIRECTORY / "adapter.safetensors", {"logits": torch.stack(logits)})


if __name__ == "__main__":
    main()
