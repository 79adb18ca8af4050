//! The loops of the CPU backends, over slices.

use burn::tensor::{bf16, f16};
use rayon::prelude::*;

/// What one thread takes at a time: large enough to be worth its while, small enough to stay in
/// the cache.
const CHUNK: usize = 1 << 15;
/// Sums that run beside each other, for the compiler to put into vector registers.
const LANES: usize = 16;

/// A type of tensor elements.
pub(crate) trait Element: Copy + Send + Sync {
    /// What it is computed in.
    type Wide: Wide;

    fn widen(self) -> Self::Wide;
    fn narrow(wide: Self::Wide) -> Self;
}

/// A type to compute in.
pub(crate) trait Wide:
    Copy
    + Send
    + Sync
    + Default
    + Into<f64>
    + core::ops::Add<Output = Self>
    + core::ops::Mul<Output = Self>
{
    fn from_f64(value: f64) -> Self;
    fn abs(self) -> Self;
}

impl Wide for f32 {
    fn from_f64(value: f64) -> Self {
        value as f32
    }

    fn abs(self) -> Self {
        self.abs()
    }
}

impl Wide for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }

    fn abs(self) -> Self {
        self.abs()
    }
}

impl<W: Wide> Element for W {
    type Wide = W;

    fn widen(self) -> W {
        self
    }

    fn narrow(wide: W) -> W {
        wide
    }
}

macro_rules! half {
    ($half:ty) => {
        impl Element for $half {
            type Wide = f32;

            fn widen(self) -> f32 {
                self.to_f32()
            }

            fn narrow(wide: f32) -> Self {
                Self::from_f32(wide)
            }
        }
    };
}

half!(f16);
half!(bf16);

/// The sum of (T g)², with the weights and eta of T if adaptive. Chunks are added up in their order,
/// so that the result does not depend on the threads.
pub(crate) fn sum_of_squares<E: Element>(grad: &[E], adaptive: Option<(&[E], f64)>) -> f64 {
    match adaptive {
        None => in_chunks(grad.par_chunks(CHUNK), |grad| lanes(grad, |g| g * g)),
        Some((weight, eta)) => {
            let eta = E::Wide::from_f64(eta);
            let square = |w: E::Wide, g: E::Wide| {
                let scaled = (w.abs() + eta) * g;
                scaled * scaled
            };
            in_chunks(
                weight.par_chunks(CHUNK).zip(grad.par_chunks(CHUNK)),
                |(weight, grad)| lanes_of_two(weight, grad, square),
            )
        }
    }
}

fn in_chunks<C: IndexedParallelIterator>(
    chunks: C,
    sum: impl Fn(C::Item) -> f64 + Sync + Send,
) -> f64 {
    let sums: Vec<f64> = chunks.map(sum).collect();
    sums.into_iter().sum()
}

fn lanes<E: Element>(values: &[E], f: impl Fn(E::Wide) -> E::Wide) -> f64 {
    let mut sums = [E::Wide::default(); LANES];
    let blocks = values.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum = *sum + f(value.widen());
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum = *sum + f(value.widen());
    }
    sums.into_iter().map(Into::<f64>::into).sum()
}

fn lanes_of_two<E: Element>(
    weights: &[E],
    grads: &[E],
    f: impl Fn(E::Wide, E::Wide) -> E::Wide,
) -> f64 {
    let mut sums = [E::Wide::default(); LANES];
    for (weights, grads) in weights.chunks(LANES).zip(grads.chunks(LANES)) {
        for ((sum, w), g) in sums.iter_mut().zip(weights).zip(grads) {
            *sum = *sum + f(w.widen(), g.widen());
        }
    }
    sums.into_iter().map(Into::<f64>::into).sum()
}

/// rho / (norm + eps), or `None` where nothing may be perturbed.
pub(crate) fn factor(squared_norm: f64, eps: f64, rho: f64) -> Option<f64> {
    let norm = squared_norm.sqrt();
    let factor = rho / (norm + eps);
    (norm.is_finite() && factor.is_finite()).then_some(factor)
}

/// Writes w + factor T² g over g.
pub(crate) fn perturb<E: Element>(weight: &[E], grad: &mut [E], factor: f64, eta: Option<f64>) {
    let factor = E::Wide::from_f64(factor);
    let climb = |(grad, weight): (&mut [E], &[E])| match eta {
        None => {
            for (g, w) in grad.iter_mut().zip(weight) {
                *g = E::narrow(w.widen() + g.widen() * factor);
            }
        }
        Some(eta) => {
            let eta = E::Wide::from_f64(eta);
            for (g, w) in grad.iter_mut().zip(weight) {
                let w = w.widen();
                let t = w.abs() + eta;
                *g = E::narrow(w + t * (t * g.widen() * factor));
            }
        }
    };
    if grad.len() <= CHUNK {
        return climb((grad, weight));
    }
    (grad.par_chunks_mut(CHUNK))
        .zip(weight.par_chunks(CHUNK))
        .for_each(climb);
}
