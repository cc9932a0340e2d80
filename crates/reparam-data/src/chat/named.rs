//! Templates for models that come without one, by name.
//!
//! Each marks what the assistant says, its end included. They write what transformers writes with the same text.

use std::path::PathBuf;

use reparam_formats::chat_templates::TemplateText;

const CHATML: &str = "\
{{ bos_token }}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}\
{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const LLAMA3: &str = "\
{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}\
{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

const ZEPHYR: &str = "\
{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}\
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}\
{% else %}{{ message['content'] + eos_token + '\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";

const VICUNA: &str = "\
{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] | trim + '\\n' }}\
{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT:' }}{% generation %}{{ ' ' + message['content'] | trim + eos_token }}\
{% endgeneration %}{{ '\\n' }}{% else %}{{ message['content'] | trim + '\\n\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

const ALPACA: &str = "\
{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] | trim + '\\n\\n' }}\
{% elif message['role'] == 'assistant' %}{{ '### Response:\\n' }}{% generation %}{{ message['content'] | trim + eos_token }}\
{% endgeneration %}{{ '\\n\\n' }}{% else %}{{ message['content'] | trim + '\\n\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}";

const MISTRAL: &str = "\
{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim + '\\n\\n' %}{% set messages = messages[1:] %}\
{% else %}{% set system = '' %}{% endif %}{{ bos_token }}{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message['role'] == 'user' %}{{ '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}\
{% else %}{% generation %}{{ ' ' + message['content'] | trim + eos_token }}{% endgeneration %}{% endif %}{% endfor %}";

/// The templates that have a name here, with their texts.
pub const NAMED_TEMPLATES: [(&str, &str); 6] = [
    ("chatml", CHATML),
    ("llama3", LLAMA3),
    ("zephyr", ZEPHYR),
    ("vicuna", VICUNA),
    ("alpaca", ALPACA),
    ("mistral-instruct", MISTRAL),
];

/// Returns the template that a name stands for.
#[must_use]
pub fn named_template(name: &str) -> Option<TemplateText> {
    let (name, text) = NAMED_TEMPLATES
        .into_iter()
        .find(|(known, _)| *known == name)?;
    Some(TemplateText {
        text: text.to_owned(),
        from: PathBuf::from(name),
    })
}
