//! The compute shaders. Each takes many tensors: which of them a cube (a workgroup) works on is the
//! last one that starts at or before it.

use burn_cubecl::cubecl::{self, prelude::*};

/// The units (threads) of a cube.
pub(super) const UNITS: usize = 64;
/// The rows in which the sums of the units are added up.
const ROWS: usize = 8;

/// One partial sum of (T g)² a cube, at `first` and on.
///
/// Units add up what they read in its order, and cubes their units in theirs, so the same input gives
/// the same bits.
///
/// * `weights` - empty if not `adaptive`.
/// * `lens` - how many vectors each tensor has.
/// * `span` - how many of them a cube takes.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub(super) fn sums_of_squares<F: Float, A: Float, N: Size>(
    weights: &Sequence<Box<[Vector<F, N>]>>,
    grads: &Sequence<Box<[Vector<F, N>]>>,
    lens: &Sequence<usize>,
    span: usize,
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
        let end = start + len.div_ceil(span);
        let grad = &grads[i];
        let (mut position, stop) = own_part(start, end, len, span);
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

/// The sum over the units of a cube, for unit 0. Few barriers, which cost software drivers most: some
/// units add up a row each, and unit 0 the rows.
#[cube]
fn sum_of_cube<A: Float>(own: A) -> A {
    let mut sums = Shared::<[A]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    sums[unit] = own;
    sync_cube();
    let mut sum = A::new(0.0);
    let mut position = unit;
    let stop = select(unit < ROWS, UNITS.runtime(), 0usize);
    while position < stop {
        sum += sums[position];
        position += ROWS;
    }
    sync_cube();
    sums[unit] = sum;
    sync_cube();
    let mut total = A::new(0.0);
    let mut row = 0usize.runtime();
    let stop = select(unit == 0, ROWS.runtime(), 0usize);
    while row < stop {
        total += sums[row];
        row += 1;
    }
    total
}

/// Where this unit starts and stops in a tensor of `len` vectors that has the cubes from `start` to
/// `end`, of `span` vectors each. In another tensor it stops at once: a loop that does not begin costs nothing, while software
/// drivers run both sides of every branch.
#[cube]
fn own_part(start: usize, end: usize, len: usize, span: usize) -> (usize, usize) {
    let mine = CUBE_POS >= start && CUBE_POS < end;
    let first = (CUBE_POS - start) * span;
    let limit = min(first + span, len);
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
/// * `span` - how many of them a cube takes.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub(super) fn perturb<F: Float, A: Float, N: Size>(
    weights: &Sequence<Box<[Vector<F, N>]>>,
    climbed: &mut Sequence<Box<[Vector<F, N>]>>,
    lens: &Sequence<usize>,
    span: usize,
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
        let end = start + len.div_ceil(span);
        let factor = Vector::<A, N>::new(rhos[i].get::<A>() * scale);
        let weight = &weights[i];
        let climbed = &mut climbed[i];
        let (mut position, stop) = own_part(start, end, len, span);
        while position < stop {
            let own = weight[position];
            let w = Vector::<A, N>::cast_from(own);
            let mut ascent = Vector::<A, N>::cast_from(climbed[position]) * factor;
            if adaptive {
                let t = w.abs() + eta;
                ascent = t * (t * ascent);
            }
            // A branch would be two reads and two writes on software drivers.
            climbed[position] = select(refused, own, Vector::cast_from(w + ascent));
            position += UNITS;
        }
        start = end;
    }
}
