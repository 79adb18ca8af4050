//! How flat the loss is around a module's weights.

mod lanczos;
mod landscape;
mod measures;
#[cfg(feature = "plot")]
mod picture;
mod vector;

pub use lanczos::Eigenvalue;
pub use landscape::{Axis, Direction, LossCurve, LossSurface};
pub use measures::{Estimate, Flatness, FlatnessError};
#[cfg(feature = "plot")]
pub use picture::{Picture, PictureError};
