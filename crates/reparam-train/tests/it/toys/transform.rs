//! A transform that the library does not know, with a state.

use reparam::optim::{
    GradientTransform, OptimError, Placed, Role, Settings, StepContext, TransformEntry,
};
use reparam::parameters::ParameterList;
use reparam::schema::{Range, number};

/// `u_t = g_t + lag g_{t-1}`
pub(crate) static ENTRY: TransformEntry = TransformEntry {
    kind: "lagged",
    summary: "Add a share of the last gradient",
    formula: "u_t = g_t + lag g_{t-1}",
    source: "this test",
    optimizer: None,
    settings: &[number("lag", Range::InsideUnit, 0.5, "that share")],
    build: |settings: &Settings, _| {
        Ok(vec![Box::new(Lagged {
            lag: settings.number("lag")?,
            last: Vec::new(),
        })])
    },
};

#[derive(Debug)]
struct Lagged {
    lag: f64,
    /// The last gradients; none before the first step.
    last: ParameterList,
}

impl GradientTransform for Lagged {
    fn name(&self) -> &'static str {
        "lagged"
    }

    fn transform(
        &mut self,
        updates: ParameterList,
        _context: &StepContext<'_>,
    ) -> Result<ParameterList, OptimError> {
        let last = std::mem::replace(&mut self.last, updates.clone());
        if last.is_empty() {
            return Ok(updates);
        }
        let pairs = updates.into_iter().zip(last);
        let lagged = pairs.map(|(update, last)| {
            let values = update.values.clone() + last.values * self.lag;
            update.with_values(values)
        });
        Ok(lagged.collect())
    }

    fn roles(&self) -> Vec<Placed> {
        Placed::everywhere(self.name(), Role::Linear)
    }

    fn state(&self) -> ParameterList {
        self.last.clone()
    }

    fn load_state(&mut self, state: ParameterList) -> Result<(), OptimError> {
        self.last = state;
        Ok(())
    }
}
