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
    + core::ops::Sub<Output = Self>
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

/// What is summed over all elements of one list of tensors, or of two.
pub(crate) trait Reduction: Sync {
    type Sum: Send;

    /// In pieces that add up to it.
    fn pieces<'a, E: Element>(
        &self,
        read: &'a [E],
        other: Option<&'a [E]>,
    ) -> Vec<Piece<'a, Self::Sum>>;
}

/// The sum of (T g)², of gradients, with the weights and eta of T if adaptive.
pub(crate) struct SumOfSquares {
    pub(crate) eta: Option<f64>,
}

impl Reduction for SumOfSquares {
    type Sum = f64;

    fn pieces<'a, E: Element>(
        &self,
        grad: &'a [E],
        weight: Option<&'a [E]>,
    ) -> Vec<Piece<'a, f64>> {
        let piece = |grad: &'a [E], adaptive| Piece {
            elements: grad.len(),
            work: Box::new(move || sum_of_piece(grad, adaptive)),
        };
        let grads = grad.chunks(CHUNK);
        match weight.zip(self.eta) {
            None => grads.map(|grad| piece(grad, None)).collect(),
            Some((weight, eta)) => (grads.zip(weight.chunks(CHUNK)))
                .map(|(grad, weight)| piece(grad, Some((weight, E::Wide::from_f64(eta)))))
                .collect(),
        }
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

/// The inner products <a, a>, <a, b> and <b, b>, in one pass over memory.
pub(crate) struct InnerProducts;

impl Reduction for InnerProducts {
    type Sum = [f64; 3];

    fn pieces<'a, E: Element>(&self, a: &'a [E], b: Option<&'a [E]>) -> Vec<Piece<'a, [f64; 3]>> {
        pieces_of_sum(a, b.expect("two lists"), products_of_piece)
    }
}

/// The sum of (b - a)².
pub(crate) struct SquaredDistance;

impl Reduction for SquaredDistance {
    type Sum = f64;

    fn pieces<'a, E: Element>(&self, a: &'a [E], b: Option<&'a [E]>) -> Vec<Piece<'a, f64>> {
        pieces_of_sum(a, b.expect("two lists"), distance_of_piece)
    }
}

fn pieces_of_sum<'a, E: Element, R: 'a>(
    a: &'a [E],
    b: &'a [E],
    sum: fn(&[E], &[E]) -> R,
) -> Vec<Piece<'a, R>> {
    let pieces = a.chunks(CHUNK).zip(b.chunks(CHUNK));
    pieces
        .map(|(a, b)| Piece {
            elements: a.len(),
            work: Box::new(move || sum(a, b)) as Box<dyn FnOnce() -> R + Send>,
        })
        .collect()
}

fn distance_of_piece<E: Element>(a: &[E], b: &[E]) -> f64 {
    let mut sums = [E::Wide::default(); LANES];
    let [(a_blocks, a_rest), (b_blocks, b_rest)] = [a.as_chunks::<LANES>(), b.as_chunks::<LANES>()];
    let difference = |(a, b): (&E, &E)| b.widen() - a.widen();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        add_squares(&mut sums, a.iter().zip(b).map(difference));
    }
    add_squares(&mut sums, a_rest.iter().zip(b_rest).map(difference));
    sums.into_iter().map(Into::<f64>::into).sum()
}

/// Of all pieces.
pub(crate) fn total(products: Vec<[f64; 3]>) -> [f64; 3] {
    let add = |a: [f64; 3], b: [f64; 3]| core::array::from_fn(|i| a[i] + b[i]);
    products.into_iter().fold([0.0; 3], add)
}

fn products_of_piece<E: Element>(a: &[E], b: &[E]) -> [f64; 3] {
    let mut sums = [[E::Wide::default(); LANES]; 3];
    let [(a_blocks, a_rest), (b_blocks, b_rest)] = [a.as_chunks::<LANES>(), b.as_chunks::<LANES>()];
    let mut add = |lane: usize, a: E, b: E| {
        let (a, b) = (a.widen(), b.widen());
        sums[0][lane] = sums[0][lane] + a * a;
        sums[1][lane] = sums[1][lane] + a * b;
        sums[2][lane] = sums[2][lane] + b * b;
    };
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            add(lane, a[lane], b[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        add(lane, *a, *b);
    }
    sums.map(|lanes| lanes.into_iter().map(Into::<f64>::into).sum())
}

fn add_squares<W: Wide>(sums: &mut [W; LANES], values: impl Iterator<Item = W>) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = *sum + value * value;
    }
}

/// What is written over the elements of one list of tensors, from those of another.
pub(crate) trait Update: Sync {
    /// The tensor that stays as it is, if nothing is to be written for the tensors of this index.
    fn keeps(&self, index: usize) -> Option<Keep>;

    /// In pieces.
    fn pieces<'a, E: Element>(
        &self,
        index: usize,
        read: &'a [E],
        write: &'a mut [E],
    ) -> Vec<Piece<'a, ()>>;
}

/// Which of two tensors.
pub(crate) enum Keep {
    Read,
    Written,
}

/// Writes w + rho T² g / (norm + eps) over g, with a rho for each parameter; keeps w where the norm may
/// not be used.
pub(crate) struct Perturb {
    pub(crate) squared_norm: f64,
    pub(crate) eps: f64,
    pub(crate) rhos: Vec<f64>,
    pub(crate) eta: Option<f64>,
}

impl Perturb {
    /// rho / (norm + eps), or `None` where nothing may be perturbed.
    fn factor(&self, index: usize) -> Option<f64> {
        let norm = self.squared_norm.sqrt();
        let factor = self.rhos[index] / (norm + self.eps);
        (norm.is_finite() && factor.is_finite()).then_some(factor)
    }
}

impl Update for Perturb {
    fn keeps(&self, index: usize) -> Option<Keep> {
        self.factor(index).is_none().then_some(Keep::Read)
    }

    fn pieces<'a, E: Element>(
        &self,
        index: usize,
        weight: &'a [E],
        grad: &'a mut [E],
    ) -> Vec<Piece<'a, ()>> {
        let factor = E::Wide::from_f64(self.factor(index).unwrap_or_default());
        let eta = self.eta.map(E::Wide::from_f64);
        pieces_of(weight, grad, move |weight, grad| {
            perturb_piece(weight, grad, factor, eta);
        })
    }
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

/// Writes w + rho u / (norm + eps) over the weights before the update u, as [`Perturb`] does over u.
pub(crate) struct Extrapolate(pub(crate) Perturb);

impl Update for Extrapolate {
    fn keeps(&self, index: usize) -> Option<Keep> {
        self.0.keeps(index)
    }

    fn pieces<'a, E: Element>(
        &self,
        index: usize,
        weight: &'a [E],
        before: &'a mut [E],
    ) -> Vec<Piece<'a, ()>> {
        let factor = E::Wide::from_f64(self.0.factor(index).unwrap_or_default());
        pieces_of(weight, before, move |weight, before| {
            for (before, w) in before.iter_mut().zip(weight) {
                let w = w.widen();
                *before = E::narrow(w + (w - before.widen()) * factor);
            }
        })
    }
}

/// Writes x a + y b over a, or keeps a.
pub(crate) struct Combine {
    coefficients: [f64; 2],
    refused: bool,
}

impl Combine {
    /// From x, y, and 1 where it is refused, 0 where it is not.
    pub(crate) fn new(coefficients: &[f64]) -> Self {
        Self {
            coefficients: [coefficients[0], coefficients[1]],
            refused: coefficients[2] != 0.0,
        }
    }
}

impl Update for Combine {
    fn keeps(&self, _index: usize) -> Option<Keep> {
        self.refused.then_some(Keep::Written)
    }

    fn pieces<'a, E: Element>(
        &self,
        _index: usize,
        b: &'a [E],
        a: &'a mut [E],
    ) -> Vec<Piece<'a, ()>> {
        let [x, y] = self.coefficients.map(E::Wide::from_f64);
        pieces_of(b, a, move |b, a| {
            for (a, b) in a.iter_mut().zip(b) {
                *a = E::narrow(a.widen() * x + b.widen() * y);
            }
        })
    }
}

fn pieces_of<'a, E: Element>(
    read: &'a [E],
    write: &'a mut [E],
    work: impl Fn(&[E], &mut [E]) + Copy + Send + 'a,
) -> Vec<Piece<'a, ()>> {
    let pieces = write.chunks_mut(CHUNK).zip(read.chunks(CHUNK));
    pieces
        .map(|(write, read)| Piece {
            elements: write.len(),
            work: Box::new(move || work(read, write)) as Box<dyn FnOnce() + Send>,
        })
        .collect()
}
