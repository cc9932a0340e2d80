//! Weights as functions, updates as chains.
//!
//! Two ideas carry this crate.
//!
//! **A weight is a function.** A model never sees the trainable numbers themselves but an
//! *effective weight* `W = phi(theta; W0)` of a frozen base `W0` and trainable parameters
//! `theta`. [`methods`] holds the methods; [`Linear`] runs them, by a plan that does not form `W`
//! where the method has one.
//!
//! **An update has two steps.** The gradient is transformed, `u = transform(dL/dtheta)`, and then
//! the parameters move, `theta <- theta - eta u`. [`optim`] holds the transforms, which compose
//! in a chain, and the schedule of `eta`.
//!
//! Both work on any Burn module: [`methods::attach`] finds its linear layers by path, and [`optim::Optimizer::step`] walks its trainable parameters by name.
//! Between two steps [`methods::after_step`] lets the methods follow, and [`methods::save_theta`] writes what
//! was trained.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use reparam::methods::{self, LoraConfig};
//! use reparam::optim::{AdamW, Optimizer, Schedule};
//! use reparam::{ForwardContext, Linear};
//!
//! let device = Device::flex().autodiff();
//! let weight = Tensor::<2>::ones([3, 4], &device);
//! let layer = Linear::new(weight, None);
//!
//! // `layer` itself is the only linear layer, at the empty path.
//! let config = LoraConfig::new(2, 4.0);
//! let (layer, report) = methods::attach(layer, &config, 0)?;
//! assert_eq!(report.modules.len(), 1);
//!
//! let x = Tensor::<2>::ones([5, 4], &device);
//! let loss = layer.forward(x, &ForwardContext::inference()).sum();
//! let mut gradients = loss.backward();
//! let mut optimizer = Optimizer::new(vec![Box::new(AdamW::default())], 1e-3, Schedule::Constant, 100)?;
//! let gradients = reparam::parameters::take_gradients(&layer, &mut gradients);
//! let (layer, report) = optimizer.step(layer, gradients)?;
//! assert_eq!(report.learning_rate, 1e-3);
//! # let _ = layer;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod context;
mod expert_weight;
mod linear;
pub mod methods;
pub mod optim;
mod output_head;
pub mod parameters;
pub mod schema;
mod walk;
mod weight;

pub use context::ForwardContext;
pub use expert_weight::ExpertWeight;
pub use linear::Linear;
pub use output_head::OutputHead;
pub use weight::{Packed, PackedError, Weight};
