//! The compute shaders. Each takes many tensors: which of them a cube (a workgroup) works on is the
//! last one that starts at or before it.

use burn_cubecl::cubecl::{self, prelude::*};

/// The units (threads) of a cube, a power of two.
pub(super) const UNITS: usize = 64;
/// The vectors that each unit of a cube takes.
pub(super) const VECTORS: usize = 16;

/// One partial sum of (T g)² a cube, at `first` and on.
///
/// Units add up what they read in its order, and cubes add up their units as a tree of a fixed
/// shape, so the same input gives the same bits.
///
/// * `weights` - empty if not `adaptive`.
/// * `lens` - how many vectors each tensor has.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub(super) fn sums_of_squares<F: Float, A: Float, N: Size>(
    weights: &Sequence<Box<[Vector<F, N>]>>,
    grads: &Sequence<Box<[Vector<F, N>]>>,
    lens: &Sequence<usize>,
    partials: &mut [A],
    first: usize,
    eta: InputScalar,
    #[comptime] adaptive: bool,
    #[define(F, A)] _dtypes: [ElemType; 2],
) {
    let eta = Vector::<A, N>::new(eta.get::<A>());
    let mut sum = Vector::<A, N>::new(A::new(0.0));
    let mut start = 0usize.runtime();
    #[unroll]
    for i in 0..grads.len() {
        let len = lens[i];
        let end = start + len.div_ceil(VECTORS * UNITS);
        let grad = &grads[i];
        let (mut position, stop) = own_part(start, end, len);
        while position < stop {
            let mut term = Vector::<A, N>::cast_from(grad[position]);
            if adaptive {
                term *= Vector::<A, N>::cast_from(weights[i][position]).abs() + eta;
            }
            sum += term * term;
            position += UNITS;
        }
        start = end;
    }
    let sum = sum_of_cube::<A>(Vector::vector_sum(sum));
    if UNIT_POS == 0 && CUBE_POS < start {
        partials[first + CUBE_POS] = sum;
    }
}

/// The sum of `partials`, by one cube.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
pub(super) fn total<A: Float>(
    partials: &[A],
    count: usize,
    sum: &mut [A],
    #[define(A)] _dtype: ElemType,
) {
    let mut own = A::new(0.0);
    let mut position = UNIT_POS as usize;
    while position < count {
        own += partials[position];
        position += UNITS;
    }
    let all = sum_of_cube::<A>(own);
    if UNIT_POS == 0 {
        sum[0] = all;
    }
}

/// The sum over the units of a cube, for unit 0.
#[cube]
fn sum_of_cube<A: Float>(own: A) -> A {
    let mut sums = Shared::<[A]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    sums[unit] = own;
    sync_cube();
    let mut active = UNITS.runtime() / 2;
    while active > 0 {
        if unit < active {
            let other = sums[unit + active];
            sums[unit] += other;
        }
        active /= 2;
        sync_cube();
    }
    sums[0]
}

/// Where this unit starts and stops in a tensor of `len` vectors that has the cubes from `start` to
/// `end`. In another tensor it stops at once: a loop that does not begin costs nothing, while software
/// drivers run both sides of every branch.
#[cube]
fn own_part(start: usize, end: usize, len: usize) -> (usize, usize) {
    let mine = CUBE_POS >= start && CUBE_POS < end;
    let first = (CUBE_POS - start) * (VECTORS * UNITS);
    let limit = min(first + VECTORS * UNITS, len);
    let stop = select(mine, limit, 0usize);
    (first + UNIT_POS as usize, stop)
}

#[cube]
fn is_finite<A: Float>(value: A) -> bool {
    !(bool::cast_from(value.is_nan()) || bool::cast_from(value.is_inf()))
}

/// Writes w + rho T² g / (norm + eps) over each g, or w where the norm may not be used.
///
/// * `climbed` - the gradients, before.
/// * `lens` - how many vectors each tensor has.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub(super) fn perturb<F: Float, A: Float, N: Size>(
    weights: &Sequence<Box<[Vector<F, N>]>>,
    climbed: &mut Sequence<Box<[Vector<F, N>]>>,
    lens: &Sequence<usize>,
    rhos: &Sequence<InputScalar>,
    squared_norm: &[A],
    eps: InputScalar,
    eta: InputScalar,
    #[comptime] adaptive: bool,
    #[define(F, A)] _dtypes: [ElemType; 2],
) {
    let norm = squared_norm[0].sqrt();
    let scale = A::new(1.0) / (norm + eps.get::<A>());
    let refused = !(is_finite::<A>(norm) && is_finite::<A>(scale));
    let eta = Vector::<A, N>::new(eta.get::<A>());

    let mut start = 0usize.runtime();
    #[unroll]
    for i in 0..weights.len() {
        let len = lens[i];
        let end = start + len.div_ceil(VECTORS * UNITS);
        let factor = Vector::<A, N>::new(rhos[i].get::<A>() * scale);
        let weight = &weights[i];
        let climbed = &mut climbed[i];
        let (mut position, stop) = own_part(start, end, len);
        while position < stop {
            let w = Vector::<A, N>::cast_from(weight[position]);
            let mut ascent = Vector::<A, N>::cast_from(climbed[position]) * factor;
            if adaptive {
                let t = w.abs() + eta;
                ascent = t * (t * ascent);
            }
            if refused {
                climbed[position] = weight[position];
            } else {
                climbed[position] = Vector::cast_from(w + ascent);
            }
            position += UNITS;
        }
        start = end;
    }
}
