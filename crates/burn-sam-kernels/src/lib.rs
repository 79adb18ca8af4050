//! The algebra of weights under [SAM](https://arxiv.org/abs/2010.01412), on any Burn backend.
//!
//! Sharpness-aware methods compute with vectors of the weights' size: gradients, directions, the weights themselves.
//! A [`Vector`] is one, with a [`Part`] for each parameter, and a few operations, which make a [`Number`] of vectors or
//! multiply them by one:
//!
//! 1. [`squared_norm`](Vector::squared_norm), the sum of its squares;
//! 2. [`path`](Vector::path), from the weights along it: its [length](Path::squared_length), the sum of (T g)² over
//!    all parts, with a T of 1 for plain SAM and |w| + eta, elementwise, for adaptive SAM
//!    ([ASAM](https://arxiv.org/abs/2102.11600)), and its [end](Path::end), w + rho T² g / (norm + eps);
//! 3. [`products`](Vector::products), the inner products of two vectors, and [`slope`](Vector::slope), how steep one is along a
//!    way, all in one pass over memory;
//! 4. [`combine`](Vector::combine), linear combinations, and [`scaled_or`](Vector::scaled_or), a choice between two
//!    vectors, both decided on the device.
//!
//! With the features `flex`, `ndarray` and `wgpu` (or another of CubeCL's), parts on these
//! backends take kernels of their own: one pass over memory for each operation, on all cores or as
//! compute shaders, into the vector's own buffers. Every
//! other part takes the [`portable`] path, of plain tensor operations. Which one it is
//! depends on the backend's type and is decided at compile time, but for the choice between the
//! backends of a program, which a match on the device makes.
//!
//! Nothing here reads a value back to the host: whether the norm is finite is decided on the
//! device. Users of SAM want the `burn-sam` crate; this one is its lower half.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use burn_sam_kernels::{Along, Length, Part, Vector};
//!
//! let device = Device::flex();
//! let vector = |values| -> Vector { [Part::new(0, Tensor::<1>::from_floats(values, &device))].into_iter().collect() };
//! let (weights, grads) = (vector([1.0, 2.0]), vector([3.0, 4.0]));
//!
//! let path = grads.path(&weights, Along::Gradient { eta: None });
//! let squared_norm = path.squared_length().unwrap();
//! let climbed = path.end(|_| 0.5, &Length::new(squared_norm, 0.0, None));
//!
//! let climbed = climbed.into_iter().next().unwrap().into_tensor::<1>();
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
mod combination;
mod counted;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod cpu;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
mod formula;
mod kernels;
#[cfg(feature = "ndarray")]
#[allow(deprecated)]
mod ndarray;
mod number;
mod operation;
mod part;
mod path;
pub mod portable;
mod shared;
mod sums;
mod vector;

pub use combination::Instead;
pub use number::{Flag, Number};
pub use operation::Along;
pub use part::Part;
pub use path::{Length, Path};
pub use vector::{Vector, known};

/// For the tests and benchmarks of this workspace.
#[doc(hidden)]
pub mod internals {
    use core::cell::Cell;
    #[cfg(feature = "cube")]
    use core::sync::atomic::Ordering::Relaxed;

    #[cfg(feature = "wgpu")]
    pub use crate::cube::source::wgsl;

    thread_local! {
        pub(crate) static WITHOUT_KERNELS: Cell<bool> = const { Cell::new(false) };
    }

    /// While it is there, every part on this thread takes the portable path.
    #[must_use]
    pub struct WithoutKernels(());

    impl WithoutKernels {
        /// From now on.
        #[expect(clippy::new_without_default)]
        pub fn new() -> Self {
            WITHOUT_KERNELS.set(true);
            Self(())
        }
    }

    impl Drop for WithoutKernels {
        fn drop(&mut self) {
            WITHOUT_KERNELS.set(false);
        }
    }

    /// How many compute shaders this crate has launched.
    #[cfg(feature = "cube")]
    pub fn launches() -> usize {
        crate::cube::LAUNCHES.load(Relaxed)
    }

    /// From now on, as on a device that allows only so many cubes in a dimension.
    #[cfg(feature = "cube")]
    pub fn limit_cubes(most: u32) {
        crate::cube::MOST_CUBES.store(most, Relaxed);
    }
}
