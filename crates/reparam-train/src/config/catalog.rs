//! What a run file, a model or an adapter may name.

use reparam::methods::Methods;
use reparam::optim::Transforms;
use reparam_models::Families;

/// The tables in which a name is looked up: methods, transforms and families of models.
///
/// [`builtin`](Self::builtin) has those of the libraries; a caller adds to them and hands them in.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// What `[method]` and an adapter may name.
    pub methods: Methods,
    /// What `[optimizer]` and chains of transforms may name.
    pub transforms: Transforms,
    /// What a model's `config.json` may name.
    pub families: Families,
}

/// Two catalogs with the same names are taken for equal.
impl PartialEq for Catalog {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Catalog {
    /// Returns what the libraries have.
    pub fn builtin() -> Self {
        Self {
            methods: Methods::builtin(),
            transforms: Transforms::builtin(),
            families: Families::builtin(),
        }
    }

    fn names(&self) -> [Vec<&'static str>; 3] {
        [
            self.methods.iter().map(|spec| spec.kind).collect(),
            self.transforms.iter().map(|entry| entry.kind).collect(),
            self.families.model_types(),
        ]
    }
}
