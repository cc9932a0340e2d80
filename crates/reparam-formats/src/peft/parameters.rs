//! `target_parameters`: factors of parameters that are no linear layer's, such as those of experts.

use std::collections::{BTreeMap, BTreeSet};

use super::PeftError;

/// The name of the module that holds the parameters of experts, and those in the order in which transformers registers them.
const EXPERTS: &str = "experts";
const OF_EXPERTS: [&str; 2] = ["gate_up_proj", "down_proj"];
/// The parameter of a router.
const OF_ROUTER: [&str; 1] = ["weight"];

/// What PEFT puts behind a module's path for each wrapper outside of it.
const BASE_LAYER: &str = ".base_layer";

/// Returns whether `target_parameters` match a parameter: by its whole path, or its end after a dot.
pub fn targets_parameter(targets: &[String], path: &str) -> bool {
    targets.iter().any(|target| {
        let rest = path.strip_suffix(target.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// Returns where PEFT stores the factors of the parameters of one module that are adapted, in the order in which the module has
/// them: it wraps the module once for each, so that the last one is outside, and the first inside of all `base_layer`.
pub fn parameter_places(module: &str, n_adapted: usize) -> Vec<String> {
    (0..n_adapted)
        .rev()
        .map(|outside| format!("{module}{}", BASE_LAYER.repeat(outside)))
        .collect()
}

/// Finds which parameters have their factors at which places, which end with `base_layer` for each wrapper; by place.
///
/// # Errors
///
/// [`PeftError::WrongParameters`] where a module has factors of more or fewer parameters than are targeted.
pub(super) fn parameters_at<'a>(
    targets: &[String],
    places: &BTreeSet<&'a str>,
) -> Result<BTreeMap<&'a str, String>, PeftError> {
    let mut by_module: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
    for place in places {
        let mut module = *place;
        while let Some(inner) = module.strip_suffix(BASE_LAYER) {
            module = inner;
        }
        by_module.entry(module).or_default().push(place);
    }
    let mut found = BTreeMap::new();
    for (module, places) in by_module {
        let is_experts = module.rsplit('.').next() == Some(EXPERTS);
        let known: &[&str] = match is_experts {
            true => &OF_EXPERTS,
            false => &OF_ROUTER,
        };
        let paths = known.iter().map(|name| format!("{module}.{name}"));
        let paths: Vec<String> = paths
            .filter(|path| targets_parameter(targets, path))
            .collect();
        if paths.is_empty() {
            continue;
        }
        let expected = parameter_places(module, paths.len());
        let is_same = expected.len() == places.len()
            && expected.iter().all(|place| places.contains(&&**place));
        if !is_same {
            return Err(PeftError::WrongParameters {
                module: module.to_owned(),
                expected: paths.len(),
                found: places.len(),
            });
        }
        for (path, at) in paths.into_iter().zip(&expected) {
            let place = places.iter().find(|place| *place == at);
            found.extend(place.map(|place| (*place, path)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_last_parameter_is_outside() {
        let places = parameter_places("m.experts", 2);
        assert_eq!(places, ["m.experts.base_layer", "m.experts"]);
        assert_eq!(parameter_places("m.gate", 1), ["m.gate"]);
    }

    #[test]
    fn places_are_those_of_the_targets() {
        let both = BTreeSet::from(["m.experts", "m.experts.base_layer", "m.q_proj", "m.gate"]);
        let targets = names(&["down_proj", "gate_up_proj", "gate.weight"]);
        let found = parameters_at(&targets, &both).expect("all are there");
        let expected = [
            ("m.experts", "m.experts.down_proj"),
            ("m.experts.base_layer", "m.experts.gate_up_proj"),
            ("m.gate", "m.gate.weight"),
        ];
        let expected = expected.map(|(place, path)| (place, path.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
        let one = BTreeSet::from(["m.experts"]);
        let found = parameters_at(&names(&["experts.gate_up_proj"]), &one).expect("it is there");
        assert_eq!(found["m.experts"], "m.experts.gate_up_proj");
        let error = parameters_at(&targets, &one).expect_err("one is missing");
        assert!(
            matches!(
                error,
                PeftError::WrongParameters {
                    expected: 2,
                    found: 1,
                    ..
                }
            ),
            "{error}"
        );
        // A part of a name is no end of a path.
        assert!(!targets_parameter(&names(&["proj"]), "m.experts.down_proj"));
    }
}
