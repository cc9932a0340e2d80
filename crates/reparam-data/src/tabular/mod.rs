//! Tables of numbers: what a regression learns from.
//!
//! ```text
//! .csv file --read_csv--+
//!                       +--> Table --split_rows--> training and test rows --Standardizer--> x, y
//! seed ------generate---+                                     |
//!                                                             +--least_squares--> the exact solution
//! ```
//!
//! - [`read_csv`] reads the named columns of a CSV file; nothing in it is skipped in silence.
//! - [`generate`] makes a linear problem whose coefficients are known.
//! - [`split_rows`] holds rows out for the test, from the number of rows, a fraction and a seed alone.
//! - [`Standardizer`] brings every column to mean 0 and standard deviation 1, and back.
//! - [`least_squares`] solves the linear problem in closed form, for a trained model to be measured against.
//! - [`mse`] and [`r2`] measure.
//!
//! All of it is in `f64` and without any tensor library. Matrices are slices in row-major order: feature `j` of
//! row `i` is `x[i * n_features + j]`.
//!
//! # Example
//!
//! ```
//! use reparam_data::tabular::{Generate, Standardizer, generate, predict, r2, split_rows};
//!
//! let problem = generate(&Generate { samples: 200, features: 3, noise: 0.1, seed: 7 })?;
//! let table = problem.table;
//! let split = split_rows(table.n_rows, 0.25, 7)?;
//! let (train, test) = (table.subset(&split.train)?, table.subset(&split.test)?);
//!
//! let standardizer = Standardizer::fit(&train)?;
//! let x = standardizer.apply_features(&train.x)?;
//! assert_eq!(x.len(), 150 * 3);
//!
//! let exact = train.least_squares()?;
//! let prediction = predict(&test.x, &exact.coefficients, exact.intercept)?;
//! assert!(r2(&prediction, &test.y)? > 0.999);
//! # Ok::<(), reparam_data::tabular::TabularError>(())
//! ```

mod curvature;
pub mod error;
mod generate;
mod least_squares;
mod metrics;
mod moments;
mod number;
mod read;
mod split;
mod standardize;
mod table;

pub use curvature::curvature;
pub use error::{Result, TabularError};
pub use generate::{Generate, Generated, MAX_NUMBERS, generate};
pub use least_squares::{LeastSquares, least_squares, predict};
pub use metrics::{mse, r2};
pub use number::Notation;
pub use read::{MissingPolicy, Selection, read_csv, read_features};
pub use split::{Split, split_rows};
pub use standardize::Standardizer;
pub use table::Table;
