//! What a run file may name.

use reparam::methods::Methods;
use reparam::optim::Transforms;

/// The tables in which a run file finds what it names: methods and transforms.
///
/// [`builtin`](Self::builtin) has those of the libraries; a caller adds to them.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// What `[method]` may name.
    pub methods: Methods,
    /// What `[optimizer]` and chains of transforms may name.
    pub transforms: Transforms,
}

/// Two catalogs with the same names are taken for equal.
impl PartialEq for Catalog {
    fn eq(&self, other: &Self) -> bool {
        let methods = |catalog: &Self| -> Vec<&str> {
            catalog.methods.iter().map(|spec| spec.kind).collect()
        };
        let transforms = |catalog: &Self| -> Vec<&str> {
            catalog.transforms.iter().map(|entry| entry.kind).collect()
        };
        methods(self) == methods(other) && transforms(self) == transforms(other)
    }
}

impl Catalog {
    /// Returns the methods and transforms of the libraries.
    pub fn builtin() -> Self {
        Self {
            methods: Methods::builtin(),
            transforms: Transforms::builtin(),
        }
    }
}
