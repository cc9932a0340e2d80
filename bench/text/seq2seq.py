"""Trains an encoder-decoder from nothing with transformers: the settings are those of the run file of the task beside this program.

    seq2seq.py --task multi30k|e2e [--seed 0] [--data DIR] [--threads 2] [--steps N]

BART in the sizes of the run file, a byte-level BPE trained on both sides of the training set, AdamW with the schedule of the run
file, warm-up over the first tenth, gradients bounded to norm 1; unlike reparam it also learns the token that begins a target. Batches in a new order each epoch, padded to their longest row. The test set is written greedily
and measured by sacreBLEU: BLEU with 13a, chrF.
"""

import time

import common

MARKS = ["<s>", "<pad>", "</s>", "<unk>"]
AT_ONCE, MOST = 64, 100


def tokenizer_of(texts, size):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False))
    ends = [(mark, tokenizer.token_to_id(mark)) for mark in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def main():
    chosen = common.arguments(__doc__, ["multi30k", "e2e"])
    import sacrebleu
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    run = common.settings(chosen)
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    train, test = (common.rows(chosen, part) for part in ("train", "test"))
    start = time.perf_counter()
    texts = [row[side] for row in train for side in ("source", "target")]
    tokenizer = tokenizer_of(texts, run["model"]["tokenizer"]["vocab_size"])
    ids = {name: tokenizer.convert_tokens_to_ids(mark) for name, mark in zip(("bos_token_id", "pad_token_id", "eos_token_id"), MARKS)}
    config = transformers.BartConfig(
        vocab_size=len(tokenizer), decoder_start_token_id=ids["eos_token_id"], forced_eos_token_id=None, **ids, **run["model"]["config"]
    )
    model = transformers.BartForConditionalGeneration(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run["optimizer"]["learning_rate"], weight_decay=0.0)
    batch_size, epochs = run["train"]["batch_size"], run["train"]["epochs"]
    steps = -(-len(train) // batch_size) * epochs
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, -(-steps // 10), steps)
    limits = {"truncation": True, "max_length": run["train"]["sequence_length"], "padding": True, "return_tensors": "pt"}
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=run["data"]["label_smoothing"])
    limit = common.steps_of(chosen, train, batch_size, epochs)
    model.train()
    for part in common.batches(train, batch_size, chosen.seed, limit):
        sources, targets = (tokenizer([row[side] for row in part], **limits) for side in ("source", "target"))
        labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
        logits = model(input_ids=sources["input_ids"], attention_mask=sources["attention_mask"], labels=labels).logits
        smoothed(logits.flatten(0, 1), labels.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run["optimizer"]["clip_grad_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - start
    model.eval()
    written, begin = [], time.perf_counter()
    with torch.no_grad():
        for first in range(0, len(test), AT_ONCE):
            sources = tokenizer([row["source"] for row in test[first : first + AT_ONCE]], **limits)
            out = model.generate(
                input_ids=sources["input_ids"], attention_mask=sources["attention_mask"], max_new_tokens=MOST, do_sample=False, num_beams=1
            )
            written += tokenizer.batch_decode(out, skip_special_tokens=True)
    # A row may have several targets.
    targets = [row["target"] if isinstance(row["target"], list) else [row["target"]] for row in test]
    most = max(len(of) for of in targets)
    references = [[of[at] if at < len(of) else None for of in targets] for at in range(most)]
    metrics = {
        "bleu": sacrebleu.corpus_bleu(written, references).score,
        "chrf": sacrebleu.corpus_chrf(written, references).score,
    }
    size = sum(parameter.numel() for parameter in model.parameters())
    common.report(
        "seq2seq", chosen, metrics, seconds, ["torch", "transformers", "sacrebleu"], train=len(train), test=len(test), steps=limit,
        parameters=size, generate_seconds=round(time.perf_counter() - begin, 1), first=written[0],
    )  # fmt: skip


if __name__ == "__main__":
    main()
