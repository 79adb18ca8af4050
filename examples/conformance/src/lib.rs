//! Replays of reference trajectories: the same network, batches and hyperparameters as another
//! implementation of SAM, step by step, and how far the results are apart.
//!
//! The format of the files is described in `docs/conformance.md`.

mod case;
mod replay;

pub use case::{Case, CaseError, Layer, Step};
pub use replay::{Deviations, replay, replay_with};
