//! Whole optimizers, which a run file may name as its `kind`, and the momentum of one of them.

pub(crate) mod adafactor;
pub(crate) mod adagrad;
pub(crate) mod adamw;
pub(crate) mod lamb;
pub(crate) mod lion;
pub(crate) mod lora_fa;
pub(crate) mod muon;
pub(crate) mod rmsprop;
pub(crate) mod schedule_free;
pub(crate) mod sgd;
pub(crate) mod sign;

pub use adafactor::{Adafactor, AdafactorSettings};
pub use adagrad::Adagrad;
pub use adamw::{AdamW, EpsPlacement};
pub use lamb::Lamb;
pub use lion::Lion;
pub use lora_fa::LoraFa;
pub use muon::{Muon, MuonScale};
pub use rmsprop::RmsProp;
pub use schedule_free::ScheduleFreeAdamW;
pub use sgd::Momentum;
pub use sign::Sign;
