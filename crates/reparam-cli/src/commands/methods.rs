//! `reparam methods`.

use reparam::phi::{METHODS, Method};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::Printer;

/// Prints the table of methods.
pub(crate) fn run(printer: &mut Printer<'_>) -> Result<(), CliError> {
    if printer.is_json() {
        let methods: Vec<Value> = METHODS.iter().map(to_json).collect();
        return printer.json(&json!({ "methods": methods }));
    }
    for (index, method) in METHODS.iter().enumerate() {
        if index > 0 {
            printer.line("")?;
        }
        printer.line(&format!("{}  {}", method.kind, method.summary))?;
        printer.line(&format!("  formula    {}", method.formula))?;
        printer.line(&format!(
            "  mergeable  {}",
            if method.mergeable { "yes" } else { "no" }
        ))?;
        printer.line(&format!("  reference  {}", method.source))?;
        printer.line("  settings")?;
        for setting in method.settings {
            printer.line(&format!(
                "    {:<15} {:<13} {}",
                setting.key, setting.default, setting.meaning
            ))?;
        }
    }
    Ok(())
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
