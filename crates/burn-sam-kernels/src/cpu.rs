//! What the CPU backends share: the operations over slices of their tensors' own storage, in place where
//! nothing else holds it.

use std::sync::Mutex;

use burn::tensor::{DType, FloatDType, bf16, f16};

use crate::backend::{self, Along};
use crate::portable::accumulation_dtype;

/// What one thread takes at a time: large enough to be worth its while, small enough to stay in
/// the cache.
const CHUNK: usize = 1 << 15;
/// So many elements are done before other threads have come to help.
const ALONE: usize = 1 << 18;
/// Sums that run beside each other, for the compiler to put into vector registers.
const LANES: usize = 16;

/// A type of tensor elements.
trait Element: Number {
    /// The elements of a tensor of this type.
    fn of(slice: Slice<'_>) -> &[Self];
}

/// A number that is computed in a type of at least 32 bits.
trait Number: Copy + Send + Sync {
    /// What it is computed in.
    type Wide: Wide;

    fn widen(self) -> Self::Wide;
    fn narrow(wide: Self::Wide) -> Self;
}

/// A type to compute in.
trait Wide:
    Copy
    + Send
    + Sync
    + Default
    + Into<f64>
    + core::ops::Add<Output = Self>
    + core::ops::Sub<Output = Self>
    + core::ops::Mul<Output = Self>
    + PartialEq
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

impl<W: Wide> Number for W {
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
        impl Number for $half {
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
struct Piece<'a, R> {
    elements: usize,
    work: Box<dyn FnOnce() -> R + Send + 'a>,
}

/// The results of all pieces of all tensors, in their order. The caller begins at once, and the other
/// threads help when they come, which takes longer than many models take to be done.
fn run<R: Send>(pieces: Vec<Piece<'_, R>>) -> Vec<R> {
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

/// A backend's tensor.
pub(crate) trait Storage: Clone {
    fn dtype(&self) -> DType;
    /// In standard layout.
    fn contiguous(self) -> Self;
    /// The elements of a contiguous tensor.
    fn slice(&self) -> Slice<'_>;
    /// The elements of a contiguous tensor, copied if something else holds them.
    fn slice_mut(&mut self) -> SliceMut<'_>;
    fn from_values(values: Vec<f64>, dtype: FloatDType) -> Self;
}

macro_rules! slices {
    ($($variant:ident: $element:ty),*) => {
        /// A tensor's elements.
        #[allow(dead_code, reason = "a backend has not all of the types")]
        pub(crate) enum Slice<'a> {
            $($variant(&'a [$element])),*
        }

        /// A tensor's elements, to be written.
        #[allow(dead_code, reason = "a backend has not all of the types")]
        pub(crate) enum SliceMut<'a> {
            $($variant(&'a mut [$element])),*
        }

        $(impl Element for $element {
            fn of(slice: Slice<'_>) -> &[Self] {
                match slice {
                    Slice::$variant(slice) => slice,
                    _ => unreachable!("the tensors of one index have one type"),
                }
            }
        })*

        /// The sums of all pieces.
        fn reduce_pieces<T: Storage, R: Reduction>(reduction: &R, a: &[T], b: &[T]) -> Vec<R::Sum> {
            let mut pieces = Vec::new();
            for (index, a) in a.iter().enumerate() {
                let b = b.get(index).map(T::slice);
                pieces.extend(match a.slice() {
                    $(Slice::$variant(a) => reduction.pieces(a, b.map(Element::of))),*
                });
            }
            run(pieces)
        }

        fn update_pieces<T: Storage, U: Update>(update: &U, read: &[T], write: &mut [T]) {
            let count = write.len();
            let mut pieces = Vec::new();
            for (index, write) in write.iter_mut().enumerate() {
                let mut others = read[index..].iter().step_by(count);
                match update.keeps(index) {
                    Some(Keep::Read) => *write = others.next().expect("one at least").clone(),
                    Some(Keep::Written) => {}
                    None => pieces.extend(match write.slice_mut() {
                        $(SliceMut::$variant(write) => {
                            let read = others.map(|read| Element::of(read.slice())).collect();
                            update.pieces(index, read, write)
                        }),*
                    }),
                }
            }
            run(pieces);
        }

        fn widened(slice: Slice<'_>) -> Vec<f64> {
            match slice {
                $(Slice::$variant(slice) => slice.iter().map(|value| value.widen().into()).collect()),*
            }
        }
    };
}

slices!(F64: f64, F32: f32, F16: f16, BF16: bf16);

/// As [`ListBackend::reduce`](backend::ListBackend::reduce).
pub(crate) fn reduce<T: Storage>(a: Vec<T>, b: Vec<T>, reduction: backend::Reduction) -> T {
    let wide = accumulation_dtype(a.iter().chain(&b).map(T::dtype));
    let [a, b] = [a, b].map(all_contiguous);
    let sums = match reduction {
        backend::Reduction::SquaredNorm { eta } => {
            vec![
                reduce_pieces(&SumOfSquares { eta }, &a, &b)
                    .into_iter()
                    .sum(),
            ]
        }
        backend::Reduction::SquaredDistance => {
            vec![reduce_pieces(&SquaredDistance, &a, &b).into_iter().sum()]
        }
        backend::Reduction::InnerProducts => {
            let add = |a: [f64; 3], b: [f64; 3]| core::array::from_fn(|i| a[i] + b[i]);
            let products = reduce_pieces(&InnerProducts, &a, &b);
            products.into_iter().fold([0.0; 3], add).to_vec()
        }
    };
    T::from_values(sums, wide)
}

/// As [`ListBackend::update`](backend::ListBackend::update).
pub(crate) fn update<T: Storage>(
    read: Vec<T>,
    write: Vec<T>,
    scalars: T,
    update: backend::Update,
) -> Vec<T> {
    let [read, mut write] = [read, write].map(all_contiguous);
    let scalars = widened(scalars.contiguous().slice());
    match update {
        backend::Update::Combine => {
            update_pieces(
                &Combine {
                    coefficients: scalars,
                },
                &read,
                &mut write,
            );
        }
        backend::Update::Perturb { rhos, eps, along } => {
            let perturb = Perturb {
                norm: scalars[0].sqrt(),
                factor: scalars.get(1).copied().unwrap_or(1.0),
                eps,
                rhos,
                eta: None,
            };
            match along {
                Along::Gradient { eta } => {
                    update_pieces(&Perturb { eta, ..perturb }, &read, &mut write);
                }
                Along::Update => update_pieces(&Extrapolate(perturb), &read, &mut write),
            }
        }
    }
    write
}

fn all_contiguous<T: Storage>(tensors: Vec<T>) -> Vec<T> {
    tensors.into_iter().map(T::contiguous).collect()
}

/// What is summed over all elements of one list of tensors, or of two.
trait Reduction: Sync {
    type Sum: Send;

    /// In pieces that add up to it.
    fn pieces<'a, E: Element>(
        &self,
        read: &'a [E],
        other: Option<&'a [E]>,
    ) -> Vec<Piece<'a, Self::Sum>>;
}

/// The sum of (T g)², of gradients, with the weights and eta of T if adaptive.
struct SumOfSquares {
    eta: Option<f64>,
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
struct InnerProducts;

impl Reduction for InnerProducts {
    type Sum = [f64; 3];

    fn pieces<'a, E: Element>(&self, a: &'a [E], b: Option<&'a [E]>) -> Vec<Piece<'a, [f64; 3]>> {
        pieces_of_sum(a, b.expect("two lists"), products_of_piece)
    }
}

/// The sum of (b - a)².
struct SquaredDistance;

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

/// What is written over the elements of one list of tensors, from those of others.
trait Update: Sync {
    /// The tensor that stays as it is, if nothing is to be written for the tensors of this index.
    fn keeps(&self, index: usize) -> Option<Keep>;

    /// In pieces.
    fn pieces<'a, E: Element>(
        &self,
        index: usize,
        read: Vec<&'a [E]>,
        write: &'a mut [E],
    ) -> Vec<Piece<'a, ()>>;
}

/// Which of the tensors: the first that is read, or the one that is written.
enum Keep {
    Read,
    Written,
}

/// Writes w + rho T² g / (norm + eps) over g, with a rho for each parameter; keeps w where the norm may
/// not be used.
struct Perturb {
    norm: f64,
    /// Of all rhos.
    factor: f64,
    eps: f64,
    rhos: Vec<f64>,
    eta: Option<f64>,
}

impl Perturb {
    /// rho / (norm + eps), or `None` where nothing may be perturbed.
    fn scale(&self, index: usize) -> Option<f64> {
        let scale = self.rhos[index] * self.factor / (self.norm + self.eps);
        (self.norm.is_finite() && scale.is_finite()).then_some(scale)
    }
}

impl Update for Perturb {
    fn keeps(&self, index: usize) -> Option<Keep> {
        self.scale(index).is_none().then_some(Keep::Read)
    }

    fn pieces<'a, E: Element>(
        &self,
        index: usize,
        weight: Vec<&'a [E]>,
        grad: &'a mut [E],
    ) -> Vec<Piece<'a, ()>> {
        let factor = E::Wide::from_f64(self.scale(index).unwrap_or_default());
        let eta = self.eta.map(E::Wide::from_f64);
        pieces_of(weight, grad, move |[weight], grad| {
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
struct Extrapolate(Perturb);

impl Update for Extrapolate {
    fn keeps(&self, index: usize) -> Option<Keep> {
        self.0.keeps(index)
    }

    fn pieces<'a, E: Element>(
        &self,
        index: usize,
        weight: Vec<&'a [E]>,
        before: &'a mut [E],
    ) -> Vec<Piece<'a, ()>> {
        let factor = E::Wide::from_f64(self.0.scale(index).unwrap_or_default());
        pieces_of(weight, before, move |[weight], before| {
            for (before, w) in before.iter_mut().zip(weight) {
                let w = w.widen();
                *before = E::narrow(w + (w - before.widen()) * factor);
            }
        })
    }
}

/// Writes x a + y b + .. over a. A tensor whose coefficient is 0 is not read.
struct Combine {
    coefficients: Vec<f64>,
}

impl Update for Combine {
    fn keeps(&self, _index: usize) -> Option<Keep> {
        match self.coefficients[..] {
            [1.0, 0.0] | [1.0, 0.0, 0.0] => Some(Keep::Written),
            [0.0, 1.0] | [0.0, 1.0, 0.0] => Some(Keep::Read),
            _ => None,
        }
    }

    fn pieces<'a, E: Element>(
        &self,
        _index: usize,
        read: Vec<&'a [E]>,
        write: &'a mut [E],
    ) -> Vec<Piece<'a, ()>> {
        let (x, others) = self.coefficients.split_first().expect("one each");
        let terms: Vec<(f64, &[E])> = (others.iter().copied())
            .zip(read)
            .filter(|(coefficient, _)| *coefficient != 0.0)
            .collect();
        let (coefficients, read): (Vec<f64>, Vec<&[E]>) = terms.into_iter().unzip();
        let wide = E::Wide::from_f64;
        let x = wide(*x);
        let zero = E::Wide::default();
        match coefficients[..] {
            [] if x != zero => pieces_of(read, write, move |[], a| {
                a.iter_mut().for_each(|a| *a = E::narrow(a.widen() * x));
            }),
            [y] if x != zero => pieces_of(read, write, move |[b], a| {
                let y = wide(y);
                for (a, b) in a.iter_mut().zip(b) {
                    *a = E::narrow(a.widen() * x + b.widen() * y);
                }
            }),
            [y, z] if x != zero => pieces_of(read, write, move |[b, c], a| {
                let [y, z] = [y, z].map(wide);
                for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                    *a = E::narrow(a.widen() * x + b.widen() * y + c.widen() * z);
                }
            }),
            // What is not finite in a must not come through a coefficient of 0.
            [] => pieces_of(read, write, move |[], a| a.fill(E::narrow(zero))),
            [y] => pieces_of(read, write, move |[b], a| {
                let y = wide(y);
                for (a, b) in a.iter_mut().zip(b) {
                    *a = E::narrow(b.widen() * y);
                }
            }),
            [y, z] => pieces_of(read, write, move |[b, c], a| {
                let [y, z] = [y, z].map(wide);
                for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                    *a = E::narrow(b.widen() * y + c.widen() * z);
                }
            }),
            _ => unreachable!("two or three terms"),
        }
    }
}

fn pieces_of<'a, E: Element, const N: usize>(
    read: Vec<&'a [E]>,
    write: &'a mut [E],
    work: impl Fn([&[E]; N], &mut [E]) + Copy + Send + 'a,
) -> Vec<Piece<'a, ()>> {
    let read: [&[E]; N] = core::array::from_fn(|list| read[list]);
    (write.chunks_mut(CHUNK).enumerate())
        .map(|(index, write)| {
            let range = index * CHUNK..index * CHUNK + write.len();
            let read = read.map(|read| &read[range.clone()]);
            Piece {
                elements: write.len(),
                work: Box::new(move || work(read, write)) as Box<dyn FnOnce() + Send>,
            }
        })
        .collect()
}
