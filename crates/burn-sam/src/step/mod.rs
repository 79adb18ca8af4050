//! One step of SAM, as parts.

mod ascent;
mod part;
mod statistics;

pub(crate) use ascent::{climb, in_place_of};
pub use part::AscentPart;
pub(crate) use statistics::with_own_statistics;
