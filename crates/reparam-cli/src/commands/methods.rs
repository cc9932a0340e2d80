//! `reparam methods`.

use reparam::methods::{METHODS, Method};
use reparam::optim::{Fallback, TRANSFORMS, TransformEntry};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::Printer;

/// Prints the tables of methods and transforms.
pub(crate) fn run(printer: &mut Printer<'_>) -> Result<(), CliError> {
    if printer.is_json() {
        let methods: Vec<Value> = METHODS.iter().map(to_json).collect();
        let transforms: Vec<Value> = TRANSFORMS.iter().map(transform_to_json).collect();
        return printer.json(&json!({ "methods": methods, "transforms": transforms }));
    }
    printer.line("Methods: kind of [method]")?;
    for method in METHODS {
        printer.line("")?;
        printer.line(&format!("{}  {}", method.kind, method.summary))?;
        printer.line(&format!("  formula    {}", method.formula))?;
        printer.line(&format!(
            "  mergeable  {}",
            if method.mergeable { "yes" } else { "no" }
        ))?;
        printer.line(&format!("  reference  {}", method.source))?;
        let settings = method.settings.iter();
        let settings = settings.map(|s| (s.key, s.default.to_owned(), s.meaning));
        print_settings(printer, &settings.collect::<Vec<_>>())?;
    }
    printer.line("")?;
    printer
        .line("Transforms: kind in transforms of [optimizer]; with *, also kind of [optimizer]")?;
    for transform in TRANSFORMS {
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
        let settings = transform.settings.iter();
        let settings = settings.map(|s| (s.key, default_text(s.fallback), s.meaning));
        print_settings(printer, &settings.collect::<Vec<_>>())?;
    }
    Ok(())
}

fn print_settings(
    printer: &mut Printer<'_>,
    settings: &[(&str, String, &str)],
) -> Result<(), CliError> {
    if settings.is_empty() {
        return Ok(());
    }
    printer.line("  settings")?;
    for (key, default, meaning) in settings {
        printer.line(&format!("    {key:<25} {default:<13} {meaning}"))?;
    }
    Ok(())
}

/// The value that a setting has where the run file says nothing.
fn default_text(fallback: Fallback) -> String {
    match fallback {
        Fallback::Required => "required".to_owned(),
        Fallback::Absent(text) => text.to_owned(),
        Fallback::Number(number) if number != 0.0 && number.abs() < 1e-3 => format!("{number:e}"),
        Fallback::Number(number) => number.to_string(),
        Fallback::Count(count) => count.to_string(),
        Fallback::Flag(flag) => flag.to_string(),
        Fallback::Word(word) => format!("{word:?}"),
    }
}

fn transform_to_json(transform: &TransformEntry) -> Value {
    let settings: Vec<Value> = transform
        .settings
        .iter()
        .map(|setting| {
            json!({
                "key": setting.key,
                "default": default_text(setting.fallback),
                "meaning": setting.meaning,
            })
        })
        .collect();
    json!({
        "name": transform.kind,
        "summary": transform.summary,
        "formula": transform.formula,
        "settings": settings,
        "is_optimizer": transform.optimizer.is_some(),
        "reference": transform.source,
    })
}

fn to_json(method: &Method) -> Value {
    let settings: Vec<Value> = method
        .settings
        .iter()
        .map(|setting| {
            json!({
                "key": setting.key,
                "default": setting.default,
                "meaning": setting.meaning,
            })
        })
        .collect();
    json!({
        "name": method.kind,
        "summary": method.summary,
        "formula": method.formula,
        "settings": settings,
        "mergeable": method.mergeable,
        "reference": method.source,
    })
}

#[cfg(test)]
mod tests {
    use reparam_train::config::{Override, RunConfig};

    use super::*;

    /// The table says what the configuration does: names, keys and defaults.
    #[test]
    fn the_table_agrees_with_the_configuration() {
        const BASE: &str = "model.path = 'm'\ndata.train = 'd'\noutput.dir = 'o'\n";
        for method in METHODS {
            let kind = format!("method.kind = '{}'\n", method.kind);
            let parse = |overrides: &[Override]| {
                RunConfig::parse(&format!("{BASE}{kind}"), "run.toml", overrides).unwrap()
            };
            let plain = parse(&[]);
            assert_eq!(plain.method.name(), method.kind);
            for setting in method.settings {
                let text = format!("method.{}={}", setting.key, setting.default);
                assert_eq!(parse(&[Override::set(text)]), plain, "{}", setting.key);
            }
        }
    }
}
