//! `reparam predict`.

use crate::args::PredictArgs;
use crate::engine::PredictRequest;
use crate::error::CliError;
use crate::format::{counted, measured};
use crate::output::Printer;
use crate::run::Context;

/// Prints the predictions as CSV, or as one object.
pub(crate) fn run(
    args: PredictArgs,
    context: &Context<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let engine = context.engine()?;
    let request = PredictRequest {
        model: args.model,
        data: args.data,
        drop_rows: args.drop_rows,
    };
    let prediction = engine.predict(request).map_err(CliError::Engine)?;
    if printer.is_json() {
        return printer.json(&prediction);
    }
    let mut csv = format!("row,{}\n", quoted(&prediction.target));
    for (row, value) in prediction.rows.iter().zip(&prediction.predictions) {
        csv += &format!("{row},{value}\n");
    }
    printer.text(&csv)?;
    if !prediction.dropped.is_empty() {
        let dropped = counted(prediction.dropped.len() as u64, "row");
        printer.note(&format!("{dropped} left out for missing values"));
    }
    if let Some(mse) = prediction.mse {
        let r2 = prediction
            .r2
            .map_or_else(String::new, |r2| format!(", R2 {r2:.4}"));
        printer.note(&format!("mean squared error {}{r2}", measured(mse, 4)));
    }
    Ok(())
}

/// Quotes a column's name where CSV needs it.
fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}
