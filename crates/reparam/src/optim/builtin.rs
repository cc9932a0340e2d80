//! The transforms of this crate, one line each.

use super::entry::Transforms;
use super::{optimizers as o, transforms as t};

impl Transforms {
    /// Returns the catalog of this crate's transforms.
    pub fn builtin() -> Self {
        Self::new([
            t::scale::ENTRY,
            t::adaptive_scale::ENTRY,
            t::clip::BY_VALUE,
            t::clip::BY_GLOBAL_NORM,
            t::agc::ENTRY,
            t::centralize::ENTRY,
            o::sign::ENTRY,
            t::weight_decay::ENTRY,
            o::sgd::MOMENTUM,
            o::sgd::SGD,
            o::adamw::ADAMW,
            o::adamw::ADAM,
            o::adafactor::ENTRY,
            o::adagrad::ENTRY,
            o::rmsprop::ENTRY,
            o::lamb::ENTRY,
            o::lion::ENTRY,
            o::muon::ENTRY,
            o::schedule_free::ENTRY,
            t::sam::ENTRY,
            t::ema::ENTRY,
            t::accumulate::ENTRY,
            t::group::ENTRY,
            t::freeze::ENTRY,
            t::lora_plus::ENTRY,
            o::lora_fa::ENTRY,
            t::riemannian::ENTRY,
            t::galore::ENTRY,
            t::mask::ENTRY,
        ])
    }
}
