//! `[method]`.

use reparam::methods::{BuildContext, MethodError};
use reparam::schema::{Chosen, SettingValue};

use super::Result;
use super::catalog::Catalog;
use super::defaults::MethodDefaults;
use super::error::ConfigErrorKind;
use super::read;
use super::section::Section;

/// `[method]`: how the weights are reparameterized: its `kind`, and all of its settings.
pub type MethodConfig = Chosen;

/// Whether a method runs on weights that are packed in bf16.
pub(crate) fn runs_in_bf16(catalog: &Catalog, method: &MethodConfig) -> bool {
    let spec = catalog.methods.get(&method.kind);
    spec.is_some_and(|spec| spec.runs_packed)
}

/// Whether first values are to be taken from the training data.
pub(crate) fn starts_from_data(catalog: &Catalog, method: &MethodConfig) -> bool {
    let built = catalog
        .methods
        .build(method, &BuildContext { total_steps: 1 });
    built.is_ok_and(|method| method.starts_from_data())
}

/// Refuses a setting of a method where an adapter says them all.
pub(super) fn refuse_beside_adapter(section: &Section<'_>) -> Result<()> {
    match section.first_key() {
        None => Ok(()),
        Some(key) => Err(section.no_effect(
            key,
            "`adapter` in [model] says the method and its settings",
            "remove [method], or `adapter` to start a new one",
        )),
    }
}

/// Reads `[method]`; a task leaves `kind` and `bias` out and means its own.
pub(super) fn read(section: &Section<'_>, defaults: MethodDefaults) -> Result<MethodConfig> {
    let methods = &section.catalog().methods;
    let kinds: Vec<_> = methods
        .iter()
        .map(|spec| read::Kind {
            name: spec.kind,
            aliases: spec.aliases,
            settings: spec.settings,
        })
        .collect();
    let kind = read::kind(section, &kinds, defaults.kind, &[])?;
    let bias = SettingValue::Word(defaults.bias.to_owned());
    let chosen = Chosen {
        kind: kind.name.to_owned(),
        settings: read::settings(section, kind.settings, &[("bias", bias)])?,
    };
    // Any horizon will do: what fits together does not depend on it.
    match methods.build(&chosen, &BuildContext { total_steps: 1 }) {
        Ok(_) => Ok(chosen),
        Err(MethodError::Schema(error)) => Err(section.schema(error)),
        Err(source) => Err(section.unusable(ConfigErrorKind::Method {
            source: Box::new(source),
        })),
    }
}
