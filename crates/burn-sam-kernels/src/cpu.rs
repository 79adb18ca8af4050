//! What the CPU backends share: the operations over slices of their tensors' own storage, in place where
//! nothing else holds it.

use core::ops::Range;
use std::sync::Mutex;

use burn::tensor::{DType, FloatDType, bf16, f16};
use multiversion::multiversion;

use crate::operation::{self, Along};
use crate::portable::accumulation_dtype;

/// What one thread takes at a time: large enough to be worth its while, small enough to stay in
/// the cache.
const CHUNK: usize = 1 << 15;
/// So many elements are done before calling other threads, and waiting for the last of them, would have paid:
/// each takes some 50 µs.
const ALONE: usize = 1 << 20;
/// Sums that run beside each other, for the compiler to put into vector registers: as many as keep four of
/// AVX2's busy, each of which waits for the sum before.
const LANES: usize = 32;

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

/// The results of the work on all pieces, in their order. The caller begins at once, and the other threads
/// help when they come, which takes longer than many models take to be done.
fn run<P: Send, R: Send>(pieces: Vec<P>, elements: usize, work: impl Fn(P) -> R + Sync) -> Vec<R> {
    let helpers = match elements <= ALONE {
        true => 0,
        false => (rayon::current_num_threads() - 1).min(pieces.len() - 1),
    };
    if helpers == 0 {
        return pieces.into_iter().map(work).collect();
    }
    let results = Mutex::new(Vec::with_capacity(pieces.len()));
    let pieces = Mutex::new(pieces.into_iter().enumerate());
    // From both ends, so that a thread comes upon what it has in its cache from the operation before.
    let first = || pieces.lock().expect("nobody panics").next();
    let last = || pieces.lock().expect("nobody panics").next_back();
    let work = |next: &dyn Fn() -> Option<(usize, P)>| {
        while let Some((index, piece)) = next() {
            let result = work(piece);
            results.lock().expect("nobody panics").push((index, result));
        }
    };
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| work(&last));
        }
        work(&first);
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
        #[derive(Clone, Copy)]
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

        impl<'a> Slice<'a> {
            fn len(self) -> usize {
                match self {
                    $(Self::$variant(slice) => slice.len()),*
                }
            }

            fn part(self, range: Range<usize>) -> Self {
                match self {
                    $(Self::$variant(slice) => Self::$variant(&slice[range])),*
                }
            }

            fn widened(self) -> Vec<f64> {
                match self {
                    $(Self::$variant(slice) => slice.iter().map(|value| value.widen().into()).collect()),*
                }
            }
        }

        impl<'a> SliceMut<'a> {
            fn len(&self) -> usize {
                match self {
                    $(Self::$variant(slice) => slice.len()),*
                }
            }

            fn split(self, at: usize) -> [Self; 2] {
                match self {
                    $(Self::$variant(slice) => {
                        let (first, rest) = slice.split_at_mut(at);
                        [Self::$variant(first), Self::$variant(rest)]
                    }),*
                }
            }
        }

        #[multiversion(targets("x86_64+avx2"))]
        fn sum_of<R: Reduction>(reduction: &R, [a, b, c]: [Slice<'_>; 3]) -> R::Sum {
            match a {
                $(Slice::$variant(a) => reduction.sum([a, Element::of(b), Element::of(c)])),*
            }
        }

        #[multiversion(targets("x86_64+avx2"))]
        fn write_over<U: Update>(
            update: &U,
            index: usize,
            others: [Option<Slice<'_>>; 2],
            a: SliceMut<'_>,
        ) {
            match a {
                $(SliceMut::$variant(a) => {
                    update.write(index, others.map(|other| other.map_or(&[][..], Element::of)), a)
                }),*
            }
        }
    };
}

slices!(F64: f64, F32: f32, F16: f16, BF16: bf16);

/// The sums of all pieces of all tensors. The others are one list, or two, one after the other; what is not there, a is
/// in its place.
fn reduce_pieces<T: Storage, R: Reduction>(reduction: &R, a: &[T], others: &[T]) -> Vec<R::Sum> {
    debug_assert!(others.len().is_multiple_of(a.len()));
    let count = a.len();
    let mut pieces = Vec::with_capacity(a.len());
    let mut elements = 0;
    for (index, a) in a.iter().enumerate() {
        let a = a.slice();
        let [b, c] = [index, count + index].map(|index| others.get(index).map_or(a, T::slice));
        for start in (0..a.len()).step_by(CHUNK) {
            let range = start..a.len().min(start + CHUNK);
            elements += range.len();
            pieces.push([a, b, c].map(|slice| slice.part(range.clone())));
        }
    }
    run(pieces, elements, |slices| sum_of(reduction, slices))
}

/// Writes over all pieces of all tensors.
fn update_pieces<T: Storage, U: Update>(update: &U, read: &[T], write: &mut [T]) {
    let count = write.len();
    let mut pieces = Vec::with_capacity(count);
    let mut elements = 0;
    for (index, write) in write.iter_mut().enumerate() {
        match update.keeps(index) {
            Some(Keep::Read) => *write = read[index].clone(),
            Some(Keep::Written) => {}
            None => {
                let others = [index, count + index];
                let others = others.map(|index| read.get(index).map(T::slice));
                let mut rest = write.slice_mut();
                let mut start = 0;
                while rest.len() > 0 {
                    let len = rest.len().min(CHUNK);
                    let [piece, after] = rest.split(len);
                    let range = start..start + len;
                    let others = others.map(|other| other.map(|other| other.part(range.clone())));
                    pieces.push((index, others, piece));
                    elements += len;
                    (rest, start) = (after, start + len);
                }
            }
        }
    }
    run(pieces, elements, |(index, others, write)| {
        write_over(update, index, others, write)
    });
}

/// As [`ListBackend::reduce`](crate::backend::ListBackend::reduce).
pub(crate) fn reduce<T: Storage>(a: Vec<T>, b: Vec<T>, reduction: operation::Reduction) -> T {
    let wide = accumulation_dtype(a.iter().chain(&b).map(T::dtype));
    let [a, b] = [a, b].map(all_contiguous);
    let sums = match reduction {
        operation::Reduction::SquaredNorm { eta } => {
            vec![
                reduce_pieces(&SumOfSquares { eta }, &a, &b)
                    .into_iter()
                    .sum(),
            ]
        }
        operation::Reduction::SquaredDistance => {
            vec![reduce_pieces(&SquaredDistance, &a, &b).into_iter().sum()]
        }
        operation::Reduction::InnerProducts => added(reduce_pieces(&InnerProducts, &a, &b)),
        operation::Reduction::Slope => added(reduce_pieces(&Slope, &a, &b)),
    };
    T::from_values(sums, wide)
}

/// Several sums, of all pieces.
fn added<const N: usize>(pieces: Vec<[f64; N]>) -> Vec<f64> {
    let add = |a: [f64; N], b: [f64; N]| core::array::from_fn(|i| a[i] + b[i]);
    pieces.into_iter().fold([0.0; N], add).to_vec()
}

/// As [`ListBackend::update`](crate::backend::ListBackend::update).
pub(crate) fn update<T: Storage>(
    read: Vec<T>,
    write: Vec<T>,
    scalars: T,
    update: operation::Update,
) -> Vec<T> {
    let [read, mut write] = [read, write].map(all_contiguous);
    let scalars = scalars.contiguous().slice().widened();
    match update {
        operation::Update::Combine => {
            update_pieces(
                &Combine {
                    coefficients: scalars,
                },
                &read,
                &mut write,
            );
        }
        operation::Update::Perturb { rhos, eps, along } => {
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

/// What is summed over all elements of one list of tensors, of two or of three.
trait Reduction: Sync {
    type Sum: Send;

    /// Over a piece of a tensor; of fewer lists, the first slice is in the others' place.
    fn sum<E: Element>(&self, slices: [&[E]; 3]) -> Self::Sum;
}

/// The sum of (T g)², of gradients, with the weights and eta of T if adaptive.
struct SumOfSquares {
    eta: Option<f64>,
}

impl Reduction for SumOfSquares {
    type Sum = f64;

    #[inline(always)]
    fn sum<E: Element>(&self, slices: [&[E]; 3]) -> f64 {
        match self.eta.map(E::Wide::from_f64) {
            None => sum_of_lanes(slices, |g, _, _| [g * g])[0],
            Some(eta) => sum_of_lanes(slices, |g, w, _| {
                let scaled = (w.abs() + eta) * g;
                [scaled * scaled]
            })[0],
        }
    }
}

/// The inner products <a, a>, <a, b> and <b, b>, in one pass over memory.
struct InnerProducts;

impl Reduction for InnerProducts {
    type Sum = [f64; 3];

    #[inline(always)]
    fn sum<E: Element>(&self, slices: [&[E]; 3]) -> [f64; 3] {
        sum_of_lanes(slices, |a, b, _| [a * a, a * b, b * b])
    }
}

/// <a, a> and <a, b - c>.
struct Slope;

impl Reduction for Slope {
    type Sum = [f64; 2];

    #[inline(always)]
    fn sum<E: Element>(&self, slices: [&[E]; 3]) -> [f64; 2] {
        sum_of_lanes(slices, |a, b, c| [a * a, a * (b - c)])
    }
}

/// The sum of (b - a)².
struct SquaredDistance;

impl Reduction for SquaredDistance {
    type Sum = f64;

    #[inline(always)]
    fn sum<E: Element>(&self, slices: [&[E]; 3]) -> f64 {
        sum_of_lanes(slices, |a, b, _| [(b - a) * (b - a)])[0]
    }
}

/// Sums over all elements.
#[inline(always)]
fn sum_of_lanes<E: Element, const N: usize>(
    slices: [&[E]; 3],
    terms: impl Fn(E::Wide, E::Wide, E::Wide) -> [E::Wide; N],
) -> [f64; N] {
    let mut sums = [[E::Wide::default(); LANES]; N];
    let mut add = |lane: usize, [a, b, c]: [E; 3]| {
        let terms = terms(a.widen(), b.widen(), c.widen());
        for (sums, term) in sums.iter_mut().zip(terms) {
            sums[lane] = sums[lane] + term;
        }
    };
    let [a, b, c] = slices.map(|slice| slice.as_chunks::<LANES>());
    for ((a, b), c) in a.0.iter().zip(b.0).zip(c.0) {
        for lane in 0..LANES {
            add(lane, [a[lane], b[lane], c[lane]]);
        }
    }
    for (lane, ((a, b), c)) in a.1.iter().zip(b.1).zip(c.1).enumerate() {
        add(lane, [*a, *b, *c]);
    }
    sums.map(|lanes| lanes.into_iter().map(Into::<f64>::into).sum())
}

/// What is written over the elements of one list of tensors, from those of others.
trait Update: Sync {
    /// The tensor that stays as it is, if nothing is to be written for the tensors of this index.
    fn keeps(&self, index: usize) -> Option<Keep>;

    /// Over a piece of the tensor of this index, from those of two others; one that is not there is empty.
    fn write<E: Element>(&self, index: usize, others: [&[E]; 2], a: &mut [E]);
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

    #[inline(always)]
    fn write<E: Element>(&self, index: usize, [weight, _]: [&[E]; 2], grad: &mut [E]) {
        let factor = E::Wide::from_f64(self.scale(index).unwrap_or_default());
        match self.eta.map(E::Wide::from_f64) {
            None => over(grad, weight, |g, w| w + g * factor),
            Some(eta) => over(grad, weight, |g, w| {
                let t = w.abs() + eta;
                w + t * (t * g * factor)
            }),
        }
    }
}

/// Writes w + rho u / (norm + eps) over the weights before the update u, as [`Perturb`] does over u.
struct Extrapolate(Perturb);

impl Update for Extrapolate {
    fn keeps(&self, index: usize) -> Option<Keep> {
        self.0.keeps(index)
    }

    #[inline(always)]
    fn write<E: Element>(&self, index: usize, [weight, _]: [&[E]; 2], before: &mut [E]) {
        let factor = E::Wide::from_f64(self.0.scale(index).unwrap_or_default());
        over(before, weight, |before, w| w + (w - before) * factor);
    }
}

/// Writes x a + y b + .. over a. A tensor whose coefficient is 0 is not read.
struct Combine {
    coefficients: Vec<f64>,
}

impl Update for Combine {
    fn keeps(&self, _index: usize) -> Option<Keep> {
        match self.coefficients[..] {
            [1.0] | [1.0, 0.0] | [1.0, 0.0, 0.0] => Some(Keep::Written),
            [0.0, 1.0] | [0.0, 1.0, 0.0] => Some(Keep::Read),
            _ => None,
        }
    }

    #[inline(always)]
    fn write<E: Element>(&self, _index: usize, [b, c]: [&[E]; 2], a: &mut [E]) {
        let wide = |index: usize| {
            let coefficient = self.coefficients.get(index).copied().unwrap_or_default();
            E::Wide::from_f64(coefficient)
        };
        let [x, y, z] = [0, 1, 2].map(wide);
        let zero = E::Wide::default();
        // What is not finite must not come through a coefficient of 0.
        match [x, y, z].map(|coefficient| coefficient != zero) {
            [true, true, true] => {
                for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                    *a = E::narrow(a.widen() * x + b.widen() * y + c.widen() * z);
                }
            }
            [true, true, false] => over(a, b, |a, b| a * x + b * y),
            [true, false, true] => over(a, c, |a, c| a * x + c * z),
            [true, false, false] => a.iter_mut().for_each(|a| *a = E::narrow(a.widen() * x)),
            [false, true, true] => {
                for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                    *a = E::narrow(b.widen() * y + c.widen() * z);
                }
            }
            [false, true, false] => over(a, b, |_, b| b * y),
            [false, false, true] => over(a, c, |_, c| c * z),
            [false, false, false] => a.fill(E::narrow(zero)),
        }
    }
}

/// Writes over the elements of one slice from those of two.
#[inline(always)]
fn over<E: Element>(a: &mut [E], b: &[E], value: impl Fn(E::Wide, E::Wide) -> E::Wide) {
    for (a, b) in a.iter_mut().zip(b) {
        *a = E::narrow(value(a.widen(), b.widen()));
    }
}
