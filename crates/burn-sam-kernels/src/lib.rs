//! The tensor operations under [SAM](https://arxiv.org/abs/2010.01412), on any Burn backend.
//!
//! A sharpness-aware step needs one number of all gradients together, and one update of each
//! parameter:
//!
//! 1. [`squared_norm`], the sum of (T g)² over all parameters;
//! 2. [`perturb`], w + rho T² g / (norm + eps) for each parameter.
//!
//! T is 1 for plain SAM and |w| + eta, elementwise, for adaptive SAM
//! ([ASAM](https://arxiv.org/abs/2102.11600)). Methods that look at two gradients of a parameter need the
//! [`inner_products`] of such [`Pair`]s, all in one pass over memory, and their linear combination
//! ([`combine`]), whose coefficients are on the device.
//!
//! With the features `flex`, `ndarray` and `wgpu` (or another of CubeCL's), parameters on these
//! backends take kernels of their own: one pass over memory for each operation, on all cores or as
//! compute shaders, into the gradient's own buffer. Every
//! other parameter takes the [`portable`] path, of plain tensor operations. Which one it is
//! depends on the backend's type and is decided at compile time, but for the choice between the
//! backends of a program, which a match on the device makes.
//!
//! Nothing here reads a value back to the host: whether the norm is finite is decided on the
//! device. Users of SAM want the `burn-sam` crate; this one is its lower half.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use burn_sam_kernels::{Parameter, perturb, squared_norm};
//!
//! let device = Device::flex();
//! let weight = Tensor::<1>::from_floats([1.0, 2.0], &device);
//! let grad = Tensor::<1>::from_floats([3.0, 4.0], &device);
//!
//! let parameters = vec![Parameter::new(weight, grad, 0.5)];
//! let norm = squared_norm(&parameters, None).unwrap();
//! let climbed = perturb(parameters, norm, 0.0, None, None).remove(0).into_tensor::<1>();
//!
//! let [a, b] = climbed.into_data().to_vec::<f32>().unwrap()[..] else { unreachable!() };
//! assert!((a - 1.3).abs() < 1e-6 && (b - 2.4).abs() < 1e-6); // w + 0.5 g / 5
//! ```

// Burn deprecates its ndarray backend in favour of flex; until it is gone, it is supported.
#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
#[allow(deprecated)]
// What Burn's macro makes of a list of backends none of which is there.
#[cfg_attr(
    not(any(feature = "flex", feature = "ndarray")),
    allow(unused_variables)
)]
mod backend;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod cpu;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "ndarray")]
#[allow(deprecated)]
mod ndarray;
mod pair;
mod parameter;
pub mod portable;

pub use pair::{Combined, Pair, combine, inner_products};
pub use parameter::{Climbed, Parameter, known, perturb, squared_norm};

/// For the tests and benchmarks of this workspace.
#[cfg(feature = "cube")]
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "wgpu")]
    pub use crate::cube::source::wgsl;

    use core::sync::atomic::Ordering::Relaxed;

    /// How many compute shaders this crate has launched.
    pub fn launches() -> usize {
        crate::cube::LAUNCHES.load(Relaxed)
    }

    /// From now on, as on a device that allows only so many cubes in a dimension.
    pub fn limit_cubes(most: u32) {
        crate::cube::MOST_CUBES.store(most, Relaxed);
    }
}
