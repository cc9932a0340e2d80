//! `reparam methods`.

use reparam::methods::MethodSpec;
use reparam::optim::TransformEntry;
use reparam::schema::SettingSpec;
use reparam_train::config::Catalog;
use serde_json::{Value, json};

use crate::error::Result;
use crate::output::Printer;

/// Prints the tables of methods and transforms.
pub(crate) fn run(printer: &mut Printer<'_>) -> Result<()> {
    let catalog = Catalog::builtin();
    if printer.is_json() {
        let methods: Vec<Value> = catalog.methods.iter().map(to_json).collect();
        let transforms: Vec<Value> = catalog.transforms.iter().map(transform_to_json).collect();
        return printer.json(&json!({ "methods": methods, "transforms": transforms }));
    }
    printer.line("Methods: kind of [method]")?;
    for method in catalog.methods.iter() {
        printer.line("")?;
        printer.line(&format!("{}  {}", method.kind, method.summary))?;
        printer.line(&format!("  formula    {}", method.formula))?;
        printer.line(&format!(
            "  mergeable  {}",
            if method.mergeable { "yes" } else { "no" }
        ))?;
        printer.line(&format!("  reference  {}", method.source))?;
        printer.line(&format!(
            "  files      {}",
            match &method.peft {
                Some(format) => format!("adapter of PEFT ({})", format.peft_type),
                None => "the whole model".to_owned(),
            }
        ))?;
        printer.line(&format!(
            "  bf16       {}",
            if method.runs_packed { "yes" } else { "no" }
        ))?;
        print_settings(printer, method.settings)?;
    }
    printer.line("")?;
    printer
        .line("Transforms: kind in transforms of [optimizer]; with *, also kind of [optimizer]")?;
    for transform in catalog.transforms.iter() {
        printer.line("")?;
        let star = if transform.optimizer.is_some() {
            "*"
        } else {
            ""
        };
        printer.line(&format!("{}{star}  {}", transform.kind, transform.summary))?;
        printer.line(&format!("  formula    {}", transform.formula))?;
        if !transform.source.is_empty() {
            printer.line(&format!("  reference  {}", transform.source))?;
        }
        print_settings(printer, transform.settings)?;
    }
    Ok(())
}

fn print_settings(printer: &mut Printer<'_>, settings: &[SettingSpec]) -> Result<()> {
    if settings.is_empty() {
        return Ok(());
    }
    printer.line("  settings")?;
    for setting in settings {
        let default = setting.fallback.to_string();
        let line = format!("    {:<25} {default:<13} {}", setting.key, setting.meaning);
        printer.line(&line)?;
    }
    Ok(())
}

fn settings_to_json(settings: &[SettingSpec]) -> Vec<Value> {
    let settings = settings.iter();
    settings
        .map(|setting| {
            json!({
                "key": setting.key,
                "default": setting.fallback.to_string(),
                "meaning": setting.meaning,
            })
        })
        .collect()
}

fn transform_to_json(transform: &TransformEntry) -> Value {
    json!({
        "name": transform.kind,
        "summary": transform.summary,
        "formula": transform.formula,
        "settings": settings_to_json(transform.settings),
        "is_optimizer": transform.optimizer.is_some(),
        "reference": transform.source,
    })
}

fn to_json(method: &MethodSpec) -> Value {
    json!({
        "name": method.kind,
        "summary": method.summary,
        "formula": method.formula,
        "settings": settings_to_json(method.settings),
        "tensors": method
            .tensors
            .iter()
            .map(|tensor| json!({ "name": tensor.name, "meaning": tensor.meaning }))
            .collect::<Vec<_>>(),
        "peft_type": method.peft.as_ref().map(|format| format.peft_type),
        "runs_packed": method.runs_packed,
        "mergeable": method.mergeable,
        "reference": method.source,
    })
}
