//! The commands, one file a verb.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod doctor;
mod dry_run;
pub(crate) mod eval;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod init;
pub(crate) mod inspect;
mod matrix;
pub(crate) mod merge;
pub(crate) mod methods;
pub(crate) mod predict;
pub(crate) mod study;
pub(crate) mod train;
