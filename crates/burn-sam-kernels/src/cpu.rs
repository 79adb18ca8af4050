//! The loops of the CPU backends, over slices.

use std::sync::Mutex;

use burn::tensor::{bf16, f16};

/// What one thread takes at a time: large enough to be worth its while, small enough to stay in
/// the cache.
const CHUNK: usize = 1 << 15;
/// So many elements are done before other threads have come to help.
const ALONE: usize = 1 << 18;
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

/// A part of the work on a tensor, for one thread.
pub(crate) struct Piece<'a, R> {
    elements: usize,
    work: Box<dyn FnOnce() -> R + Send + 'a>,
}

/// The results of all pieces of all tensors, in their order. The caller begins at once, and the other
/// threads help when they come, which takes longer than many models take to be done.
pub(crate) fn run<R: Send>(pieces: Vec<Piece<'_, R>>) -> Vec<R> {
    let elements: usize = pieces.iter().map(|piece| piece.elements).sum();
    if elements <= ALONE {
        return pieces.into_iter().map(|piece| (piece.work)()).collect();
    }
    let helpers = (rayon::current_num_threads() - 1).min(pieces.len() - 1);
    let results = Mutex::new(Vec::with_capacity(pieces.len()));
    let pieces = Mutex::new(pieces.into_iter().enumerate());
    let next = || pieces.lock().expect("nobody panics").next();
    let work = || {
        while let Some((index, piece)) = next() {
            let result = (piece.work)();
            results.lock().expect("nobody panics").push((index, result));
        }
    };
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| work());
        }
        work();
    });
    let mut results = results.into_inner().expect("nobody panics");
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The sum of (T g)², in pieces that add up to it, with the weights and eta of T if adaptive.
pub(crate) fn sum_of_squares<'a, E: Element>(
    grad: &'a [E],
    adaptive: Option<(&'a [E], f64)>,
) -> Vec<Piece<'a, f64>> {
    let piece = |grad: &'a [E], adaptive| Piece {
        elements: grad.len(),
        work: Box::new(move || sum_of_piece(grad, adaptive)),
    };
    let grads = grad.chunks(CHUNK);
    match adaptive {
        None => grads.map(|grad| piece(grad, None)).collect(),
        Some((weight, eta)) => (grads.zip(weight.chunks(CHUNK)))
            .map(|(grad, weight)| piece(grad, Some((weight, E::Wide::from_f64(eta)))))
            .collect(),
    }
}

fn sum_of_piece<E: Element>(grad: &[E], adaptive: Option<(&[E], E::Wide)>) -> f64 {
    let mut sums = [E::Wide::default(); LANES];
    let (blocks, rest) = grad.as_chunks::<LANES>();
    match adaptive {
        None => {
            let widen = |g: &E| g.widen();
            for block in blocks {
                add_squares(&mut sums, block.iter().map(widen));
            }
            add_squares(&mut sums, rest.iter().map(widen));
        }
        Some((weight, eta)) => {
            let (weights, weights_of_rest) = weight.as_chunks::<LANES>();
            let scale = |(g, w): (&E, &E)| (w.widen().abs() + eta) * g.widen();
            for (block, weights) in blocks.iter().zip(weights) {
                add_squares(&mut sums, block.iter().zip(weights).map(scale));
            }
            add_squares(&mut sums, rest.iter().zip(weights_of_rest).map(scale));
        }
    }
    sums.into_iter().map(Into::<f64>::into).sum()
}

fn add_squares<W: Wide>(sums: &mut [W; LANES], values: impl Iterator<Item = W>) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = *sum + value * value;
    }
}

/// rho / (norm + eps), or `None` where nothing may be perturbed.
pub(crate) fn factor(squared_norm: f64, eps: f64, rho: f64) -> Option<f64> {
    let norm = squared_norm.sqrt();
    let factor = rho / (norm + eps);
    (norm.is_finite() && factor.is_finite()).then_some(factor)
}

/// Writes w + factor T² g over g, in pieces.
pub(crate) fn perturb<'a, E: Element>(
    weight: &'a [E],
    grad: &'a mut [E],
    factor: f64,
    eta: Option<f64>,
) -> impl Iterator<Item = Piece<'a, ()>> {
    let (factor, eta) = (E::Wide::from_f64(factor), eta.map(E::Wide::from_f64));
    (grad.chunks_mut(CHUNK).zip(weight.chunks(CHUNK))).map(move |(grad, weight)| Piece {
        elements: grad.len(),
        work: Box::new(move || perturb_piece(weight, grad, factor, eta)),
    })
}

fn perturb_piece<E: Element>(weight: &[E], grad: &mut [E], factor: E::Wide, eta: Option<E::Wide>) {
    match eta {
        None => {
            for (g, w) in grad.iter_mut().zip(weight) {
                *g = E::narrow(w.widen() + g.widen() * factor);
            }
        }
        Some(eta) => {
            for (g, w) in grad.iter_mut().zip(weight) {
                let w = w.widen();
                let t = w.abs() + eta;
                *g = E::narrow(w + t * (t * g.widen() * factor));
            }
        }
    }
}
