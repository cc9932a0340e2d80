//! The names under which parameters appear in gradients, states and files.
//!
//! Methods live inside the weight they transform (`q_proj.weight.lora.lora_a`); checkpoints, PyTorch
//! and PEFT put their tensors beside it (`q_proj.lora_A.weight`, `q_proj.weight_g`).

use super::{METHODS, Method, chain};

/// A tensor of a method: where it is in the module and what it is called outside.
#[derive(Debug)]
pub struct ParameterName {
    /// The path inside the method, empty for the weight that the layer itself stores. `#` stands
    /// for a number.
    pub inner: &'static str,
    /// The name beside the layer. `#` is the number of `inner` plus one: number zero is the stored
    /// weight.
    pub public: &'static str,
    /// What it is, with its shape.
    pub meaning: &'static str,
}

impl ParameterName {
    /// Returns the public name for a path inside the method.
    fn public_for(&self, inner: &str) -> Option<String> {
        let Some((before, after)) = self.inner.split_once('#') else {
            return (self.inner == inner).then(|| self.public.to_owned());
        };
        let number: usize = inner
            .strip_prefix(before)?
            .strip_suffix(after)?
            .parse()
            .ok()?;
        Some(self.public.replace('#', &(number + 1).to_string()))
    }
}

impl Method {
    /// Returns the public name of the tensor at a path inside the method.
    pub(super) fn public_name(&self, inner: &str) -> Option<String> {
        let mut names = self.parameters.iter();
        names.find_map(|name| name.public_for(inner))
    }
}

/// Returns the public name of a parameter, given its path through the module.
///
/// That of a reparameterized weight itself depends on what is attached to it: see [`base_name`].
pub(crate) fn parameter_name(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    // The innermost `weight.METHOD`; a user's module may be called `weight` too.
    (0..parts.len().saturating_sub(2))
        .rev()
        .filter(|&at| parts[at] == "weight")
        .find_map(|at| {
            let public = inside(parts[at + 1], &parts[at + 2..])?;
            Some(beside(&parts[..at], &public))
        })
        .unwrap_or_else(|| path.to_owned())
}

/// Returns the public name of a stored weight that a method is attached to, if it has one of its
/// own.
pub(crate) fn base_name(path: &str, method: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('.').collect();
    let (last, parents) = parts.split_last()?;
    if *last != "weight" {
        return None;
    }
    Some(beside(parents, &find(method)?.public_name("")?))
}

fn inside(method: &str, inner: &[&str]) -> Option<String> {
    match method {
        chain::NAME => chain::public_name(inner),
        method => find(method)?.public_name(&inner.join(".")),
    }
}

pub(super) fn find(method: &str) -> Option<&'static Method> {
    METHODS.iter().find(|candidate| candidate.kind == method)
}

fn beside(parents: &[&str], name: &str) -> String {
    if parents.is_empty() {
        name.to_owned()
    } else {
        format!("{}.{name}", parents.join("."))
    }
}
