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

impl Catalog {
    /// Returns the methods and transforms of the libraries.
    pub fn builtin() -> Self {
        Self {
            methods: Methods::builtin(),
            transforms: Transforms::builtin(),
        }
    }
}
