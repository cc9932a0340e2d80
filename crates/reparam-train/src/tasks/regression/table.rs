//! The rows that a regression learns from and is tested on.

use reparam_data::tabular::{
    Generate, LeastSquares, Selection, Standardizer, Table, TabularError, curvature, generate,
    read_csv, split_rows,
};

use crate::Result;
use crate::config::{RegressionConfig, RegressionModelKind, TableSource};
use crate::memory::check_fits;

/// A table, split and standardized.
#[derive(Debug)]
pub(crate) struct Tables {
    /// The rows to learn from, in their own units.
    pub(crate) train: Table,
    /// The held-out rows, in their own units.
    pub(crate) test: Table,
    /// What was measured on the training rows; changes nothing if the run file says so.
    pub(crate) standardizer: Standardizer,
    /// The exact solution on the training rows, as the model sees them; `None` for a network where there is no
    /// single one.
    pub(crate) least_squares: Option<LeastSquares>,
    /// The lines that were left out for missing values.
    pub(crate) n_dropped: usize,
}

impl Tables {
    /// Reads or generates the table and prepares it.
    pub(crate) fn prepare(config: &RegressionConfig) -> Result<Self> {
        let table = load(&config.data.source)?;
        let split = split_rows(
            table.n_rows,
            config.data.test_fraction,
            config.data.split_seed,
        )?;
        let (train, test) = (table.subset(&split.train)?, table.subset(&split.test)?);
        // Fitted in any case: a constant column is useless to every model.
        let fitted = Standardizer::fit(&train)?;
        check_squares(&table, &fitted)?;
        let standardizer = if config.data.standardize {
            fitted
        } else {
            Standardizer {
                feature_mean: vec![0.0; table.n_features()],
                feature_scale: vec![1.0; table.n_features()],
                target_mean: 0.0,
                target_scale: 1.0,
            }
        };
        let seen = Table {
            x: standardizer.apply_features(&train.x)?,
            y: standardizer.apply_target(&train.y),
            ..train.clone()
        };
        // A network may learn from fewer rows, and from columns that say the same; then there is no exact
        // solution to compare it with.
        let is_linear = config.model.kind == RegressionModelKind::Linear;
        let least_squares = match seen.least_squares() {
            Ok(exact) => Some(exact),
            Err(TabularError::TooFewRows { .. } | TabularError::RankDeficient { .. })
                if !is_linear =>
            {
                None
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            least_squares,
            n_dropped: table.dropped.len(),
            train,
            test,
            standardizer,
        })
    }

    /// Returns the curvature of the linear model's loss on the training rows, as the model sees them.
    pub(crate) fn curvature(&self) -> Result<f64> {
        let x = self.standardizer.apply_features(&self.train.x)?;
        Ok(curvature(&x, self.train.n_features())?)
    }
}

/// Checks that squared errors of the target are numbers: neither infinite nor zero for every error.
fn check_squares(table: &Table, fitted: &Standardizer) -> Result<(), TabularError> {
    let largest = table.y.iter().fold(0.0_f64, |size, y| size.max(y.abs()));
    let sum = largest * largest * table.n_rows as f64;
    if sum.is_finite() && fitted.target_scale.powi(2) >= f64::MIN_POSITIVE {
        return Ok(());
    }
    Err(TabularError::SquareRange {
        target: table.target.clone(),
        largest,
        scale: fitted.target_scale,
    })
}

fn load(source: &TableSource) -> Result<Table> {
    match source {
        TableSource::Csv {
            train,
            target,
            features,
            missing,
        } => {
            let selection = Selection {
                target: target.clone(),
                features: features.clone(),
                missing: *missing,
            };
            Ok(read_csv(train, &selection)?)
        }
        TableSource::Generate { generate: problem } => {
            let numbers = (problem.samples as u128).saturating_mul(problem.features as u128);
            // The table, and its rows to learn from as the model sees them.
            check_fits(&[(
                "samples or features of data.generate",
                numbers.saturating_mul(8),
            )])?;
            let generated = generate(&Generate {
                samples: problem.samples,
                features: problem.features,
                noise: problem.noise,
                seed: problem.seed,
            })?;
            Ok(generated.table)
        }
    }
}
