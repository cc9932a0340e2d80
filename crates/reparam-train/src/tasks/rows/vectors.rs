//! The outputs of a model for rows that another task reads.

use std::fmt;

use reparam::schema::Settings;
use reparam_data::rows::{OnError, Rows};
use reparam_formats::hub::HubOptions;

use super::measure::{encoder, n_tokens, outputs};
use super::open::Opened;
use super::preprocess::{preprocessor, to_predict};
use super::{Outputs, RowTask};
use crate::evaluate::at_once;
use crate::task::ModelRequest;
use crate::{Result, Stop};

pub(in crate::tasks) use super::open::Body;

/// A model of a task over rows, opened to be asked for its outputs.
pub(in crate::tasks) struct Asked {
    opened: Opened,
    /// The most tokens of a window, if that is not as the model says.
    length: Option<usize>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

impl Asked {
    pub(in crate::tasks) fn open<T: RowTask>(
        request: &ModelRequest,
        length: Option<usize>,
        hub: &HubOptions,
    ) -> Result<Self> {
        let opened = Opened::open::<T>(request, hub)?;
        Ok(Self { opened, length })
    }

    /// The settings of the model's run, else their defaults.
    pub(in crate::tasks) fn settings(&self) -> &Settings {
        &self.opened.rules.settings
    }

    /// The most tokens of a window.
    pub(in crate::tasks) fn length<T: RowTask>(&self) -> usize {
        encoder::<T>(&self.opened, self.length, Stop::never()).length
    }

    /// Returns the outputs of each row's windows, and whether it was cut.
    pub(in crate::tasks) fn outputs<T: RowTask>(
        &self,
        rows: Vec<T::Row>,
        stop: Stop<'_>,
    ) -> Result<Vec<(Vec<Outputs>, bool)>> {
        let opened = &self.opened;
        let encoder = encoder::<T>(opened, self.length, stop);
        let rows = Rows {
            rows: rows.into_iter().map(Ok).collect(),
            files: Vec::new(),
            left_out: Vec::new(),
        };
        let steps = preprocessor(&opened.rules.settings)?;
        let rows = to_predict::<T>(rows, steps.as_ref());
        let (items, _) = T::encode(rows, &encoder, false)?.settle(OnError::Stop)?;
        opened.base.check_types(&items)?;
        let mut all = Vec::with_capacity(items.len());
        while all.len() < items.len() {
            stop.check()?;
            let rest = &items[all.len()..];
            let some = &rest[..at_once(rest.iter().map(n_tokens))];
            let outputs = outputs(&opened.model, some).into_iter();
            all.extend(outputs.zip(some.iter().map(|item| item.truncated)));
        }
        Ok(all)
    }
}
