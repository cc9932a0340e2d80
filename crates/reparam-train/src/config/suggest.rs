//! What the user probably meant by a key that does not exist.

use reparam_formats::nearest;

use super::error::quoted_list;

/// Every section of a task with all of its keys, in the order of the documentation.
pub(super) type Layout = Vec<(&'static str, Vec<&'static str>)>;

/// The keys of a section.
pub(super) fn keys<'a>(layout: &'a Layout, section: &str) -> &'a [&'static str] {
    layout
        .iter()
        .find(|(name, _)| *name == section)
        .map_or(&[], |(_, keys)| keys)
}

/// Key names used by other trainers: (theirs, our section, our key).
const ELSEWHERE: [(&str, &str, &str); 27] = [
    ("model_name_or_path", "model", "path"),
    ("base_model", "model", "path"),
    ("dataset", "data", "train"),
    ("train_file", "data", "train"),
    ("validation_file", "data", "eval"),
    ("val_set_size", "data", "eval_fraction"),
    ("r", "method", "rank"),
    ("lora_r", "method", "rank"),
    ("lora_rank", "method", "rank"),
    ("lora_alpha", "method", "alpha"),
    ("lora_dropout", "method", "dropout"),
    ("lora_target_modules", "method", "target_modules"),
    ("init_lora_weights", "method", "init"),
    ("lr", "optimizer", "learning_rate"),
    ("lr_scheduler_type", "optimizer", "schedule"),
    ("lr_scheduler", "optimizer", "schedule"),
    ("max_grad_norm", "optimizer", "clip_grad_norm"),
    ("epsilon", "optimizer", "eps"),
    ("num_train_epochs", "train", "epochs"),
    ("num_epochs", "train", "epochs"),
    ("steps", "train", "max_steps"),
    ("per_device_train_batch_size", "train", "batch_size"),
    (
        "gradient_accumulation_steps",
        "train",
        "gradient_accumulation",
    ),
    ("max_seq_length", "train", "sequence_length"),
    ("sequence_len", "train", "sequence_length"),
    ("logging_steps", "train", "log_every"),
    ("output_dir", "output", "dir"),
];

/// The hint for an unknown `key` in `section`.
pub(super) fn for_key(layout: &Layout, section: &str, key: &str) -> String {
    let own = keys(layout, section);
    if let Some(home) = home_of(layout, key) {
        return format!("`{key}` belongs in [{home}]");
    }
    if let Some((_, home, ours)) = ELSEWHERE.iter().find(|(theirs, ..)| *theirs == key) {
        return if *home == section {
            format!("it is called `{ours}` here")
        } else {
            format!("it is called `{ours}` here, and belongs in [{home}]")
        };
    }
    match nearest(key, own.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("the keys of [{section}] are {}", quoted_list(own)),
    }
}

/// The hint for an unknown section or top-level key.
pub(super) fn for_section(layout: &Layout, name: &str, is_table: bool) -> String {
    if !is_table {
        if let Some(home) = home_of(layout, name) {
            return format!("`{name}` belongs in [{home}]");
        }
        if let Some((_, home, ours)) = ELSEWHERE.iter().find(|(theirs, ..)| *theirs == name) {
            return format!("it is called `{ours}` here, and belongs in [{home}]");
        }
    }
    let names: Vec<&str> = layout.iter().map(|(name, _)| *name).collect();
    match nearest(name, names.iter().copied()) {
        Some(nearest) => format!("did you mean [{nearest}]?"),
        None => format!("the sections are {}", quoted_list(&names)),
    }
}

/// The section that has `key`. `kind` is in two, so its absence here is no information.
fn home_of(layout: &Layout, key: &str) -> Option<&'static str> {
    layout
        .iter()
        .find(|(_, keys)| keys.contains(&key))
        .map(|(section, _)| *section)
}
