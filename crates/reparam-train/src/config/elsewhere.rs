//! Words of other programs, and what to write here: keys, sections and values of a run file, flags and commands.
//!
//! One table: where a word stands, the words, and the answers, of which the first that can be followed counts. `-` and `_` are
//! the same in a word, and so are capital and small letters.

use self::Answer::{Do, Flag, Key, Set};
use self::Place::{Anywhere, Command, Section, Value};

/// Where a word is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// Among the keys of a run file and the flags of a command.
    Anywhere,
    /// Among the sections of a run file.
    Section,
    /// Among the values of this key.
    Value(&'a str),
    /// Among the commands of the program.
    Command,
}

/// What to do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To write this key of this section.
    Key(&'static str, &'static str),
    /// To give this key of this section this value, written as TOML.
    Set(&'static str, &'static str, &'static str),
    /// To give this flag.
    Flag(&'static str),
    /// What this sentence says.
    Do(&'static str),
}

type Line = (Place<'static>, &'static [&'static str], &'static [Answer]);

const CPU: Answer = Do("it computes on the CPU, with all cores: leave it out");
const QUANTIZED: Answer = Do(
    "no training on bases of 4 or 8 bits: take the model in bf16 or f32; a lower `batch_size` or `sequence_length` in [train] saves memory",
);
#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    // Keys, by their sections; and flags.
    (Anywhere, &["model", "model_name", "model_id", "model_path", "model_name_or_path", "base_model", "base_model_name_or_path", "pretrained_model_name_or_path"], &[Flag("--model"), Key("model", "path")]),
    (Anywhere, &["model_revision"], &[Key("model", "revision")]),
    (Anywhere, &["stage", "task_type"], &[Flag("--task"), Key("model", "task")]),
    (Anywhere, &["device", "device_map", "gpu", "gpus", "cuda", "use_cuda", "use_cpu", "no_cuda", "n_gpu_layers", "accelerator"], &[CPU]),
    (Anywhere, &["load_in_4bit", "load_in_8bit", "qlora", "quantization", "quantization_bit", "quantization_config", "bits", "bnb_4bit_quant_type", "bnb_4bit_compute_dtype"], &[QUANTIZED]),
    (Anywhere, &["data", "dataset", "datasets", "dataset_name", "dataset_path", "data_path", "train_file", "train_data", "train_dataset"], &[Flag("--data"), Key("data", "train")]),
    (Anywhere, &["validation_file", "validation_data", "val_file", "eval_file", "eval_data", "eval_dataset", "test_file"], &[Key("data", "eval"), Flag("--data")]),
    (Anywhere, &["val_size", "val_set_size", "val_split", "validation_split", "test_size", "test_split", "eval_fraction"], &[Key("data", "eval_fraction"), Key("data", "test_fraction")]),
    (Anywhere, &["dataset_text_field", "text_field", "text_column"], &[Flag("--fields"), Key("data", "fields")]),
    (Anywhere, &["label_column", "target_column"], &[Key("data", "target"), Key("data", "fields")]),
    (Anywhere, &["train_on_inputs", "train_on_input"], &[Key("data", "train_on_prompt")]),
    (Anywhere, &["template", "prompt_template"], &[Flag("--chat-template"), Key("data", "chat_template")]),
    (Anywhere, &["apply_chat_template"], &[Do("conversations are written by the model's chat template: leave it out")]),
    (Anywhere, &["train_on", "mask_history", "last_turn_only"], &[Key("data", "train_on_turns")]),
    (Anywhere, &["assistant_only_loss", "completion_only_loss", "train_on_responses_only"], &[Do("only responses and the assistant's turns are learned: leave it out")]),
    (Anywhere, &["peft", "peft_type", "finetuning_type", "fine_tune_type", "train_type"], &[Flag("--method"), Key("method", "kind")]),
    (Anywhere, &["r", "lora_r", "lora_rank", "lora_dim"], &[Key("method", "rank")]),
    (Anywhere, &["lora_alpha"], &[Key("method", "alpha")]),
    (Anywhere, &["lora_dropout"], &[Key("method", "dropout")]),
    (Anywhere, &["lora_target", "lora_target_modules", "lora_modules"], &[Key("method", "target_modules")]),
    (Anywhere, &["lora_target_parameters"], &[Key("method", "target_parameters")]),
    (Anywhere, &["lora_bias"], &[Key("method", "bias")]),
    (Anywhere, &["init_lora_weights"], &[Key("method", "init")]),
    (Anywhere, &["use_dora", "dora"], &[Set("method", "kind", "\"dora\"")]),
    (Anywhere, &["lora", "use_lora", "use_peft"], &[Flag("--adapter"), Set("method", "kind", "\"lora\"")]),
    (Anywhere, &["full", "full_finetune", "full_finetuning", "full_fine_tuning"], &[Set("method", "kind", "\"full\"")]),
    (Anywhere, &["modules_to_save", "additional_target"], &[Do("no module is trained whole beside an adapter: leave it out")]),
    (Anywhere, &["optim", "optimizer_type", "optimizer_name"], &[Key("optimizer", "kind")]),
    (Anywhere, &["lr", "max_lr"], &[Key("optimizer", "learning_rate")]),
    (Anywhere, &["lr_scheduler_type", "lr_scheduler", "scheduler", "lr_schedule"], &[Key("optimizer", "schedule")]),
    (Anywhere, &["warmup", "lr_warmup_steps", "num_warmup_steps"], &[Key("optimizer", "warmup_steps")]),
    (Anywhere, &["max_grad_norm", "gradient_clipping", "gradient_clip_val", "grad_clip"], &[Key("optimizer", "clip_grad_norm")]),
    (Anywhere, &["adam_beta1"], &[Key("optimizer", "beta1")]),
    (Anywhere, &["adam_beta2"], &[Key("optimizer", "beta2")]),
    (Anywhere, &["epsilon", "adam_epsilon"], &[Key("optimizer", "eps")]),
    (Anywhere, &["loraplus_lr_ratio"], &[Do("write transforms = [{ kind = \"adamw\" }, { kind = \"lora_plus\", ratio = 16 }] and a `learning_rate` in [optimizer]")]),
    (Anywhere, &["num_train_epochs", "num_epochs", "n_epochs", "epoch", "max_epochs", "epochs"], &[Key("train", "epochs"), Key("train", "max_steps")]),
    (Anywhere, &["steps", "num_steps", "iters", "max_iters", "iterations", "max_train_steps"], &[Flag("--steps"), Key("train", "max_steps")]),
    (Anywhere, &["per_device_train_batch_size", "train_batch_size", "micro_batch_size", "per_device_batch_size"], &[Flag("--batch-size"), Key("train", "batch_size")]),
    (Anywhere, &["batch_size", "per_device_eval_batch_size", "eval_batch_size"], &[Do("no result depends on the batch size of an evaluation: leave it out")]),
    (Anywhere, &["gradient_accumulation_steps", "grad_accum", "accumulate_grad_batches"], &[Key("train", "gradient_accumulation")]),
    (Anywhere, &["max_seq_length", "max_seq_len", "sequence_len", "seq_len", "seq_length", "cutoff_len", "max_length", "block_size", "context_length", "model_max_length"], &[Flag("--sequence-length"), Flag("--max-new-tokens"), Key("train", "sequence_length")]),
    (Anywhere, &["random_seed", "random_state", "data_seed"], &[Flag("--seed"), Key("train", "seed")]),
    (Anywhere, &["gradient_checkpointing", "grad_checkpoint", "use_gradient_checkpointing", "activation_checkpointing"], &[Flag("--recompute"), Key("train", "recompute")]),
    (Anywhere, &["bf16", "pure_bf16"], &[Set("train", "precision", "\"bf16\""), Flag("--precision")]),
    (Anywhere, &["fp16", "tf32", "amp"], &[Do("the precisions are bf16 and f32, and `auto` chooses: leave it out")]),
    (Anywhere, &["dtype", "torch_dtype", "mixed_precision"], &[Flag("--precision"), Key("train", "precision")]),
    (Anywhere, &["logging_steps", "log_interval"], &[Key("train", "log_every")]),
    (Anywhere, &["save_steps", "save_strategy", "save_interval"], &[Key("train", "save_every")]),
    (Anywhere, &["save_total_limit"], &[Key("train", "keep_last")]),
    (Anywhere, &["load_best_model_at_end"], &[Key("train", "keep")]),
    (Anywhere, &["metric_for_best_model", "monitor"], &[Key("train", "metric")]),
    (Anywhere, &["greater_is_better"], &[Do("whether more is better follows from the metric: leave it out")]),
    (Anywhere, &["eval_steps", "eval_strategy", "evaluation_strategy", "eval_interval"], &[Key("train", "eval_every")]),
    (Anywhere, &["early_stopping_patience", "early_stopping"], &[Key("train", "patience")]),
    (Anywhere, &["num_workers", "dataloader_num_workers", "num_threads", "n_threads", "threads"], &[Key("train", "threads"), Do("the environment variable REPARAM_THREADS says how many")]),
    (Anywhere, &["resume_from_checkpoint", "resume"], &[Flag("--resume"), Do("`reparam train RUN_FILE --resume` goes on from the newest checkpoint: leave it out")]),
    (Anywhere, &["report_to", "logging_dir", "tensorboard", "wandb", "wandb_project", "use_wandb"], &[Do("events.jsonl in the run directory has every number, one JSON object a line: leave it out")]),
    (Anywhere, &["deepspeed", "fsdp", "ddp", "local_rank", "num_gpus", "nproc_per_node"], &[Do("a run is one process on one machine: leave it out")]),
    (Anywhere, &["push_to_hub", "hub_model_id"], &[Do("results stay on this machine: leave it out")]),
    (Anywhere, &["output", "output_dir", "save_path", "save_dir", "adapter_path"], &[Flag("--output"), Key("output", "dir"), Do("it prints to standard output: > FILE writes that to a file")]),
    (Anywhere, &["overwrite_output_dir", "overwrite"], &[Flag("--force"), Do("leave it out, and name a new directory: --output DIR")]),
    (Anywhere, &["config", "config_file"], &[Do("a run file needs no flag: `reparam train run.toml`")]),
    (Anywhere, &["lora_path", "lora_weights", "peft_model", "adapter_name_or_path"], &[Flag("--adapter")]),
    (Anywhere, &["max_tokens", "n_predict", "num_tokens", "max_gen_len"], &[Flag("--max-new-tokens")]),
    (Anywhere, &["text", "input", "instruction"], &[Flag("--prompt")]),
    (Anywhere, &["prompt_file", "file"], &[Flag("--data"), Do("--prompt @FILE reads a file, --prompt - standard input")]),
    (Anywhere, &["do_sample"], &[Flag("--temperature")]),
    (Anywhere, &["num_beams", "repetition_penalty", "repeat_penalty", "min_p"], &[Do("tokens are chosen by --temperature, --top-k and --top-p alone")]),
    (Anywhere, &["system_prompt", "system_message"], &[Flag("--system"), Do("`reparam chat --system TEXT` begins a conversation with it")]),
    (Anywhere, &["system", "chat", "interactive", "conversation", "multiturn_conv"], &[Do("`reparam chat --model MODEL` holds a conversation")]),
    (Anywhere, &["verbose", "v", "debug"], &[Do("--json prints all that there is to say")]),
    // Values.
    (Value("kind"), &["full_finetune", "full_finetuning", "full_fine_tuning", "finetune", "fft", "sft"], &[Set("method", "kind", "\"full\"")]),
    (Value("kind"), &["qlora", "qdora"], &[QUANTIZED]),
    (Value("kind"), &["rslora"], &[Set("method", "use_rslora", "true")]),
    (Value("kind"), &["adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit"], &[Set("optimizer", "kind", "\"adamw\"")]),
    (Value("precision"), &["fp16", "f16", "float16", "half", "16"], &[Do("the precisions are bf16 and f32, and \"auto\" chooses")]),
    (Value("precision"), &["bfloat16"], &[Set("train", "precision", "\"bf16\"")]),
    (Value("precision"), &["fp32", "float32"], &[Set("train", "precision", "\"f32\"")]),
    // Sections.
    (Section, &["training", "trainer", "training_args", "training_arguments", "logging"], &[Do("it is called [train] here")]),
    (Section, &["lora", "peft", "adapter", "lora_config", "lora_parameters", "peft_config"], &[Do("it is called [method] here")]),
    (Section, &["optim", "scheduler", "lr_scheduler", "schedule"], &[Do("it is called [optimizer] here")]),
    (Section, &["dataset", "datasets", "data_args"], &[Do("it is called [data] here")]),
    (Section, &["base_model", "model_args"], &[Do("it is called [model] here")]),
    (Section, &["eval", "evaluation", "validation"], &[Do("held-out data are in [data], how often they are measured in [train]")]),
    (Section, &["quantization", "bnb", "bitsandbytes"], &[QUANTIZED]),
    // Commands.
    (Command, &["resume", "continue"], &[Do("`reparam train RUN_FILE --resume` goes on with a run")]),
    (Command, &["finetune", "fine_tune", "sft", "lora", "qlora", "fit", "pretrain"], &[Do("it is called `reparam train` here")]),
    (Command, &["run", "infer", "inference", "complete", "prompt", "sample"], &[Do("`reparam generate --model MODEL --prompt TEXT` continues a text, `reparam chat --model MODEL` holds a conversation")]),
    (Command, &["talk", "repl", "interactive", "conversation", "chat_cli"], &[Do("it is called `reparam chat` here")]),
    (Command, &["test", "evaluate", "validate", "perplexity"], &[Do("it is called `reparam eval` here")]),
    (Command, &["classify"], &[Do("it is called `reparam predict` here")]),
    (Command, &["fuse", "merge_and_unload", "export"], &[Do("`reparam merge --model BASE --adapter RUN --output DIR` merges an adapter, `reparam convert` writes GGUF and MLX")]),
    (Command, &["quantize", "gguf"], &[Do("`reparam convert --model MODEL --to gguf --dtype q8_0 --output FILE`; llama.cpp's llama-quantize makes smaller types of that")]),
    (Command, &["serve", "server", "api", "deploy"], &[Do("merge the adapter with `reparam merge`, or write it with `reparam convert`, and serve it with llama.cpp or vLLM")]),
    (Command, &["dpo", "rlhf", "ppo", "grpo", "orpo", "kto"], &[Do("there is no training on preferences; TRL has it")]),
    (Command, &["info", "show", "describe", "ls", "list"], &[Do("`reparam inspect PATH` describes a model, adapter or run")]),
    (Command, &["new", "config", "configure", "setup"], &[Do("`reparam init` writes a run file")]),
    (Command, &["sweep", "tune", "search", "grid", "compare"], &[Do("`reparam study RUN_FILE --vary SECTION.KEY=VALUE,VALUE` compares settings")]),
    (Command, &["benchmark", "profile"], &[Do("it is called `reparam bench` here")]),
    (Command, &["check", "env", "version"], &[Do("`reparam doctor` shows what is found here")]),
    (Command, &["download", "pull"], &[Do("--model takes the id of a model of the hub, and downloads it")]),
];

/// Returns the answers to a word, the best first.
pub fn answers<'a>(place: Place<'a>, word: &str) -> impl Iterator<Item = Answer> + use<'a> {
    let plain = word.to_lowercase().replace('-', "_");
    let lines = TABLE.iter().filter(move |(own, ..)| *own == place);
    let named = lines.filter(move |(_, words, _)| words.contains(&plain.as_str()));
    named.flat_map(|(.., answers)| *answers).copied()
}
