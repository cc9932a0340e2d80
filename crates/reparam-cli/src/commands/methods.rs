//! `reparam methods`.

use serde::Serialize;
use serde_json::json;

use crate::error::CliError;
use crate::output::Printer;

/// A method of reparameterization, as the user meets it.
#[derive(Serialize)]
struct Method {
    /// The word for `kind` in `[method]`.
    name: &'static str,
    summary: &'static str,
    /// The effective weight.
    formula: &'static str,
    settings: &'static [Setting],
    /// Whether the adapter can become part of the base weight.
    mergeable: bool,
    reference: &'static str,
}

/// A key of `[method]` that matters most.
#[derive(Serialize)]
struct Setting {
    key: &'static str,
    default: &'static str,
    meaning: &'static str,
}

/// Every method; a new one is a new entry.
const METHODS: [Method; 1] = [Method {
    name: "lora",
    summary: "Low-rank adaptation: a product of two thin matrices is added to a frozen weight",
    formula: "W = W0 + s B A,  s = alpha / rank, or alpha / sqrt(rank) with use_rslora",
    settings: &[
        Setting {
            key: "rank",
            default: "16",
            meaning: "rows of A and columns of B",
        },
        Setting {
            key: "alpha",
            default: "32",
            meaning: "numerator of the scaling s",
        },
        Setting {
            key: "target_modules",
            default: "\"all-linear\"",
            meaning: "adapted modules: a list of names, or a regex",
        },
        Setting {
            key: "use_rslora",
            default: "false",
            meaning: "keep the size of the update as the rank grows",
        },
        Setting {
            key: "dropout",
            default: "0.0",
            meaning: "dropout on the input of A",
        },
    ],
    mergeable: true,
    reference: "arXiv 2106.09685",
}];

/// Prints the table of methods.
pub(crate) fn run(printer: &mut Printer<'_>) -> Result<(), CliError> {
    if printer.is_json() {
        return printer.json(&json!({ "methods": METHODS }));
    }
    for (index, method) in METHODS.iter().enumerate() {
        if index > 0 {
            printer.line("")?;
        }
        printer.line(&format!("{}  {}", method.name, method.summary))?;
        printer.line(&format!("  formula    {}", method.formula))?;
        printer.line(&format!(
            "  mergeable  {}",
            if method.mergeable { "yes" } else { "no" }
        ))?;
        printer.line(&format!("  reference  {}", method.reference))?;
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

#[cfg(test)]
mod tests {
    use reparam_train::config::{Override, RunConfig};

    use super::*;

    /// The table says what the configuration does: names, keys and defaults.
    #[test]
    fn the_table_agrees_with_the_configuration() {
        const BASE: &str = "model.path = 'm'\ndata.train = 'd'\noutput.dir = 'o'\n";
        for method in METHODS {
            let kind = format!("method.kind = '{}'\n", method.name);
            let parse = |overrides: &[Override]| {
                RunConfig::parse(&format!("{BASE}{kind}"), "run.toml", overrides).unwrap()
            };
            let plain = parse(&[]);
            assert_eq!(plain.method.name(), method.name);
            for setting in method.settings {
                let text = format!("method.{}={}", setting.key, setting.default);
                assert_eq!(parse(&[Override::set(text)]), plain, "{}", setting.key);
            }
        }
    }
}
