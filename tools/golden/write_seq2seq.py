"""Writes `testdata/golden/seq2seq/`: tiny random encoder-decoders as transformers saves them, and what they compute.

Each `FAMILY/` is a model directory (no tokenizer) in f32. `FAMILY.safetensors` has `source` [N_s] with `source_bounds` and
`labels` [N_t] with `bounds` of three pairs, each computed alone; `decoder_input`: the labels shifted right as the model does it;
`logits` [N_t, vocabulary]; `loss` and `smoothed`: the sums over labelled tokens of torch's cross-entropy without and with
`label_smoothing=0.1`; and under `grad.` the gradient of the latter for every trained parameter. A tied table is one parameter.

`cases.json` has for every family `generation`: settings under the keys of `generation_config.json`, a source, the tokens after the
start token, and with beams the score; and `linears`: the modules that PEFT's `all-linear` adapts. `buckets` are those of T5's
relative positions -200..200, `[bidirectional, causal]`.

The script fails unless generation with weights in f64 gives the same tokens, unless transformers' `LabelSmoother` gives the mean that torch
gives, and unless a saved model computes the same after it is loaded.

Weights are normal with standard deviation 0.5 (tables of BART, mBART and Marian 0.2), biases and the bias of logits too, norm weights 1 plus that.
"""

import copy
import shutil

from golden_common import GOLDEN, seq2seq_tensors, setup, write_json, write_tensors

import peft
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.trainer_pt_utils import LabelSmoother

DIRECTORY = GOLDEN / "seq2seq"
VOCABULARY = 48
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 8,
    "d_kv": 3,
    "d_ff": 10,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
WIDE = {
    "vocab_size": VOCABULARY,
    "d_model": 8,
    "encoder_ffn_dim": 10,
    "decoder_ffn_dim": 12,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 32,
}
LAST = VOCABULARY - 1
CONFIGS = {
    "t5": transformers.T5Config(**T5),
    "t5-v1_1": transformers.T5Config(
        **T5, num_decoder_layers=1, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
    "bart": transformers.BartConfig(**WIDE, encoder_layers=2, decoder_layers=1),
    "mbart": transformers.MBartConfig(
        **WIDE, encoder_layers=1, decoder_layers=1, scale_embedding=True, decoder_start_token_id=12
    ),
    "marian": transformers.MarianConfig(
        **WIDE,
        encoder_layers=2,
        decoder_layers=1,
        activation_function="swish",
        scale_embedding=True,
        decoder_start_token_id=LAST,
        pad_token_id=LAST,
    ),
}
SOURCES = [9, 5, 14]
TARGETS = [6, 3, 11]
GREEDY = {"num_beams": 1, "do_sample": False}
# So that targets end at all lengths.
ENDS = [15, 17, 22, 30, 45]
# The keys of generation_config.json.
SETTINGS = [
    {**GREEDY, "max_new_tokens": 12},
    {**GREEDY, "max_length": 16, "no_repeat_ngram_size": 2},
    {**GREEDY, "max_new_tokens": 12, "repetition_penalty": 1.7, "min_length": 6},
    {"num_beams": 3, "max_new_tokens": 12, "length_penalty": 0.6},
    {"num_beams": 3, "max_new_tokens": 12, "length_penalty": 0.6, "eos_token_id": ENDS, "min_new_tokens": 4},
    {"num_beams": 4, "max_new_tokens": 12, "length_penalty": 1.0, "eos_token_id": ENDS, "early_stopping": True},
    {"num_beams": 4, "max_new_tokens": 14, "length_penalty": 2.0, "eos_token_id": ENDS, "early_stopping": "never"},
    {"num_beams": 4, "max_new_tokens": 12, "length_penalty": 2.0, "eos_token_id": ENDS, "no_repeat_ngram_size": 1},
    {"num_beams": 3, "max_length": 14, "no_repeat_ngram_size": 2, "length_penalty": 1.0, "min_new_tokens": 5},
    {"num_beams": 4, "max_length": 10, "forced_bos_token_id": 7, "forced_eos_token_id": 9, "length_penalty": 2.0},
    {
        "num_beams": 4,
        "max_new_tokens": 10,
        "bad_words_ids": [[5], [11], [23], [8, 13], [30, 31]],
        "renormalize_logits": True,
        "early_stopping": True,
        "repetition_penalty": 1.3,
    },
    {"num_beams": 3, "max_new_tokens": 12, "length_penalty": -0.5, "eos_token_id": ENDS, "early_stopping": "never"},
]


def build(family):
    """A model of this family with random weights."""
    model = transformers.AutoModelForSeq2SeqLM.from_config(CONFIGS[family], attn_implementation="eager")
    if family == "t5-v1_1":
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            # Large tables would have the last token come again and again.
            parameter.normal_(0.0, 0.2 if name == "model.shared.weight" else 0.5)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1.0)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_(0.0, 0.5)
            model.final_logits_bias[0, model.config.eos_token_id] += 1.0
    return model.eval()


def pairs(config):
    """Sources, and labels that end with the end of text; one label is not learned from."""
    # What is below 3 means something somewhere, and so does the last token.
    rows = [torch.randint(3, LAST, (length,)) for length in SOURCES]
    labels = [torch.randint(3, LAST, (length,)) for length in TARGETS]
    for row in labels:
        row[-1] = config.eos_token_id
    # transformers would take another than the last label of mBART's for the first token.
    if config.model_type != "mbart":
        labels[0][2] = -100
    return rows, labels


def computed(model, rows, labels):
    """The tensors of one golden file."""
    logits = torch.cat([model(input_ids=row[None], labels=label[None]).logits[0] for row, label in zip(rows, labels)])
    shifted = [model.prepare_decoder_input_ids_from_labels(label[None])[0] for label in labels]
    tensors = seq2seq_tensors(model, rows, labels, shifted, logits)
    targets = torch.cat(labels)
    mean = LabelSmoother(epsilon=0.1)({"logits": logits[None]}, targets[None])
    assert abs(mean - tensors["smoothed"] / (targets != -100).sum()) < 1e-5
    return tensors


def generated(model, settings, source):
    """The tokens after the start token, and the score of a beam."""
    special = {name: getattr(model.config, name) for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id")}
    config = transformers.GenerationConfig(**{**special, **settings})
    # Nothing but the settings: a model's own would be filled in.
    model.generation_config = transformers.GenerationConfig()
    output = model.generate(source[None], config, return_dict_in_generate=True, output_scores=True)
    score = output.sequences_scores[0].item() if settings["num_beams"] > 1 else None
    return output.sequences[0, 1:].tolist(), score


def generations(model, rows):
    """Every setting on two sources, with a check against f64."""
    wide = copy.deepcopy(model).double()
    cases = []
    for settings in SETTINGS:
        for row in rows[:2]:
            tokens, score = generated(model, settings, row)
            again, _ = generated(wide, settings, row)
            assert tokens == again, (settings, tokens, again)
            cases.append({"settings": settings, "source": row.tolist(), "tokens": tokens, "score": score})
    return cases


def linears(model):
    """The modules that PEFT adapts with `all-linear`."""
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_2_SEQ_LM")
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    names = [name for name, _ in adapted.named_parameters() if ".lora_A." in name]
    return sorted(name.removeprefix("base_model.model.").split(".lora_A.")[0] for name in names)


def buckets():
    """T5's buckets of the distances -200..200."""
    distances = torch.arange(-200, 201)
    bucket = T5Attention._relative_position_bucket
    return [bucket(distances, bidirectional=both, num_buckets=32, max_distance=128).tolist() for both in (True, False)]


def main():
    setup(41)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    cases = {"buckets": buckets()}
    for family, config in CONFIGS.items():
        model = build(family)
        rows, labels = pairs(config)
        tensors = computed(model, rows, labels)
        model.save_pretrained(DIRECTORY / family)
        loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(DIRECTORY / family, attn_implementation="eager")
        again = loaded(input_ids=rows[0][None], labels=labels[0][None]).logits[0]
        assert torch.equal(again, tensors["logits"][: len(again)]), family
        write_tensors(DIRECTORY / f"{family}.safetensors", tensors)
        cases[family] = {"generation": generations(model, rows), "linears": linears(model)}
    write_json(DIRECTORY / "cases.json", cases)


if __name__ == "__main__":
    main()
