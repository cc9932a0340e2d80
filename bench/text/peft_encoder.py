"""Trains LoRA on an encoder with transformers and PEFT: the settings are those of the run file of the task beside this program.

    peft_encoder.py --task sms-spam|chinese-sentiment|ner-en|squad-small|stsb-en [--seed 0] [--data DIR] [--threads 2]

AdamW without weight decay, the schedule of the run file, gradients bounded to norm 1, batches in a new order each epoch, padded to
their longest row, in f32, the model's own dropouts on. A new head is trained beside the adapter. What is measured is the model
after the last step, on the test set, as `reparam eval` measures it; time is that of the training alone.

    reparam train bench/text/sms-spam.toml --model DIR

trains the same with reparam.
"""

import time
import warnings

import common
import encoder_tasks


def main():
    chosen = common.arguments(__doc__, list(encoder_tasks.TASKS))
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    run = common.settings(chosen)
    torch.manual_seed(chosen.seed)
    torch.set_num_threads(chosen.threads)
    task = encoder_tasks.TASKS[chosen.task](chosen, run)
    if chosen.steps is not None:
        task.test = task.test[: encoder_tasks.AT_ONCE]
    method = run["method"]
    config = LoraConfig(
        r=method["rank"], lora_alpha=method["alpha"], target_modules=method["target_modules"], task_type=task.TASK_TYPE
    )
    model = get_peft_model(task.base, config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=run["optimizer"]["learning_rate"], weight_decay=0.0)
    batch_size, epochs = run["train"]["batch_size"], run["train"]["epochs"]
    steps = -(-len(task.train) // batch_size) * epochs
    warmup = -(-steps // 10)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps)
    model.train()
    start, limit = time.perf_counter(), common.steps_of(chosen, task.train, batch_size, epochs)
    for rows in common.batches(task.train, batch_size, chosen.seed, limit):
        task.loss(model, rows).backward()
        torch.nn.utils.clip_grad_norm_(trained, run["optimizer"]["clip_grad_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        metrics = task.measure(model)
    common.report(
        "peft_encoder",
        chosen,
        metrics,
        seconds,
        ["torch", "transformers", "peft"],
        train=len(task.train),
        steps=limit,
        trained_parameters=sum(parameter.numel() for parameter in trained),
    )


if __name__ == "__main__":
    main()
