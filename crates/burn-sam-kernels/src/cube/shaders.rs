//! The compute shaders. Each takes many tensors: which of them a cube (a workgroup) works on is the
//! last one that starts at or before it.

use burn_cubecl::cubecl::{self, prelude::*};

use crate::formula::{Operation, Program};
use crate::operation::Along;

/// The units (threads) of a cube.
pub(super) const UNITS: usize = 64;
/// The rows in which the sums of the units are added up.
const ROWS: usize = 8;

/// What is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sums {
    /// a²
    Squares,
    /// ((|b| + eta) a)²
    ScaledSquares,
    /// (b - a)²
    SquaredDistance,
    /// a², a b and b², whose partial sums follow each other.
    Products,
    /// a² and a (b - c), likewise.
    Slope,
}

/// Which way a perturbation goes, from what is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    Gradient,
    /// ASAM's.
    ScaledGradient,
    /// From the weights before an update.
    Update,
}

impl From<Along> for Direction {
    fn from(along: Along) -> Self {
        match along {
            Along::Gradient { eta: None } => Self::Gradient,
            Along::Gradient { eta: Some(_) } => Self::ScaledGradient,
            Along::Update => Self::Update,
        }
    }
}

/// One partial sum a cube, at `first` and on.
///
/// Units add up what they read in its order, and cubes their units in theirs, so the same input gives
/// the same bits.
///
/// * `b` - empty for a sum of squares.
/// * `c` - empty but for a slope.
/// * `lens` - how many vectors each tensor has.
/// * `span` - how many of them a cube takes.
/// * `cubes` - of all launches.
/// * `lanes` - how many units go side by side.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub(super) fn partial_sums<F: Float, A: Float, N: Size>(
    a: &Sequence<Box<[Vector<F, N>]>>,
    b: &Sequence<Box<[Vector<F, N>]>>,
    c: &Sequence<Box<[Vector<F, N>]>>,
    lens: &Sequence<usize>,
    span: usize,
    partials: &mut [A],
    first: usize,
    cubes: usize,
    eta: InputScalar,
    #[comptime] sums: Sums,
    #[comptime] lanes: usize,
    #[define(F, A)] _dtypes: [ElemType; 2],
) {
    let eta = Vector::<A, N>::new(eta.get::<A>());
    let mut aa = Vector::<A, N>::new(A::new(0.0));
    let mut ab = Vector::<A, N>::new(A::new(0.0));
    let mut bb = Vector::<A, N>::new(A::new(0.0));
    let mut start = 0usize.runtime();
    #[unroll]
    for i in 0..a.len() {
        let len = lens[i];
        let end = start + len.div_ceil(span);
        let of_a = &a[i];
        let (mut position, stop) = own_part(start, end, len, span, lanes);
        while position < stop {
            let mut term = Vector::<A, N>::cast_from(of_a[position]);
            if comptime!(sums == Sums::ScaledSquares) {
                term *= Vector::<A, N>::cast_from(b[i][position]).abs() + eta;
            }
            if comptime!(sums == Sums::SquaredDistance) {
                term = Vector::<A, N>::cast_from(b[i][position]) - term;
            }
            aa += term * term;
            if comptime!(sums == Sums::Products) {
                let other = Vector::<A, N>::cast_from(b[i][position]);
                ab += term * other;
                bb += other * other;
            }
            if comptime!(sums == Sums::Slope) {
                let to = Vector::<A, N>::cast_from(b[i][position]);
                ab += term * (to - Vector::<A, N>::cast_from(c[i][position]));
            }
            position += lanes;
        }
        start = end;
    }
    let own = CUBE_POS < start;
    write_sum::<A, N>(aa, partials, first, own);
    if comptime!(sums == Sums::Products || sums == Sums::Slope) {
        write_sum::<A, N>(ab, partials, first + cubes, own);
    }
    if comptime!(sums == Sums::Products) {
        write_sum::<A, N>(bb, partials, first + 2 * cubes, own);
    }
}

#[cube]
fn write_sum<A: Float, N: Size>(sum: Vector<A, N>, partials: &mut [A], first: usize, own: bool) {
    let sum = sum_of_cube::<A>(Vector::vector_sum(sum));
    if UNIT_POS == 0 && own {
        partials[first + CUBE_POS] = sum;
    }
}

/// The sums of `count` partial sums each, by a cube each.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
pub(super) fn total<A: Float>(
    partials: &[A],
    count: usize,
    sums: &mut [A],
    #[define(A)] _dtype: ElemType,
) {
    let mut own = A::new(0.0);
    let first = CUBE_POS * count;
    let mut position = first + UNIT_POS as usize;
    while position < first + count {
        own += partials[position];
        position += UNITS;
    }
    let all = sum_of_cube::<A>(own);
    if UNIT_POS == 0 {
        sums[CUBE_POS] = all;
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
/// `end`, of `span` vectors each; it takes every `lanes`-th. As many units as go side by side take a range of their
/// own: a software driver runs them to their end before it begins with the next ones. In another tensor a unit stops at
/// once: a loop that does not begin costs nothing, while software drivers run both sides of every branch.
#[cube]
fn own_part(
    start: usize,
    end: usize,
    len: usize,
    span: usize,
    #[comptime] lanes: usize,
) -> (usize, usize) {
    let mine = CUBE_POS >= start && CUBE_POS < end;
    let unit = UNIT_POS as usize;
    let first = (CUBE_POS - start) * span;
    // Of the cube, and of the units that go side by side.
    let part = min(span, len - first);
    let range = part.div_ceil(UNITS) * lanes;
    let begin = unit / lanes * range;
    let stop = select(mine, first + min(begin + range, part), 0usize);
    (first + begin + unit % lanes, stop)
}

#[cube]
fn is_finite<A: Float>(value: A) -> bool {
    !(bool::cast_from(value.is_nan()) || bool::cast_from(value.is_inf()))
}

/// Writes w + rho d / (norm + eps) over what each direction d comes from, or w where the norm may not be
/// used.
///
/// * `climbed` - the gradients, before.
/// * `lens` - how many vectors each tensor has.
/// * `span` - how many of them a cube takes.
/// * `scalars` - the squared norm and, perhaps, a factor of all rhos.
/// * `lanes` - how many units go side by side.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub(super) fn perturb<F: Float, A: Float, N: Size>(
    weights: &Sequence<Box<[Vector<F, N>]>>,
    climbed: &mut Sequence<Box<[Vector<F, N>]>>,
    lens: &Sequence<usize>,
    span: usize,
    rhos: &Sequence<InputScalar>,
    scalars: &[A],
    eps: InputScalar,
    eta: InputScalar,
    #[comptime] direction: Direction,
    #[comptime] lanes: usize,
    #[define(F, A)] _dtypes: [ElemType; 2],
) {
    let norm = scalars[0].sqrt();
    let mut scale = A::new(1.0) / (norm + eps.get::<A>());
    if scalars.len() > 1 {
        scale *= scalars[1];
    }
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
        let (mut position, stop) = own_part(start, end, len, span, lanes);
        while position < stop {
            let own = weight[position];
            let w = Vector::<A, N>::cast_from(own);
            let mut along = Vector::<A, N>::cast_from(climbed[position]);
            if comptime!(direction == Direction::Update) {
                along = w - along;
            }
            let mut ascent = along * factor;
            if comptime!(direction == Direction::ScaledGradient) {
                let t = w.abs() + eta;
                ascent = t * (t * ascent);
            }
            // A branch would be two reads and two writes on software drivers.
            climbed[position] = select(refused, own, Vector::cast_from(w + ascent));
            position += lanes;
        }
        start = end;
    }
}

/// Writes x a, x a + y b, or x a + y b + z c, over each a. What has a coefficient of 0 may hold anything.
///
/// * `b`, `c` - empty, if there are fewer `terms`.
/// * `lens` - how many vectors each tensor has.
/// * `span` - how many of them a cube takes.
/// * `coefficients` - x, y and z.
/// * `lanes` - how many units go side by side.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub(super) fn combine<F: Float, A: Float, N: Size>(
    a: &mut Sequence<Box<[Vector<F, N>]>>,
    b: &Sequence<Box<[Vector<F, N>]>>,
    c: &Sequence<Box<[Vector<F, N>]>>,
    lens: &Sequence<usize>,
    span: usize,
    coefficients: &[A],
    #[comptime] terms: usize,
    #[comptime] lanes: usize,
    #[define(F, A)] _dtypes: [ElemType; 2],
) {
    let zero = A::new(0.0);
    let x = coefficients[0];
    let mut stays = x == A::new(1.0);
    if terms > 1 {
        stays = stays && coefficients[1] == zero;
    }
    if terms > 2 {
        stays = stays && coefficients[2] == zero;
    }

    let mut start = 0usize.runtime();
    #[unroll]
    for i in 0..a.len() {
        let len = lens[i];
        let end = start + len.div_ceil(span);
        let of_a = &mut a[i];
        let (mut position, limit) = own_part(start, end, len, span, lanes);
        let stop = select(stays, 0usize, limit);
        while position < stop {
            let mut sum = term::<F, A, N>(of_a[position], x);
            if terms > 1 {
                sum += term::<F, A, N>(b[i][position], coefficients[1]);
            }
            if terms > 2 {
                sum += term::<F, A, N>(c[i][position], coefficients[2]);
            }
            of_a[position] = Vector::cast_from(sum);
            position += lanes;
        }
        start = end;
    }
}

#[cube]
fn term<F: Float, A: Float, N: Size>(value: Vector<F, N>, coefficient: A) -> Vector<A, N> {
    let nothing = Vector::<A, N>::new(A::new(0.0));
    let term = Vector::<A, N>::cast_from(value) * Vector::<A, N>::new(coefficient);
    select(coefficient == A::new(0.0), nothing, term)
}

/// Writes what a program is asked for.
///
/// * `tensors` - whose elements it begins with.
#[cube(launch_unchecked, address_type = "dynamic", create_dummy_kernel)]
pub(super) fn compute<A: Float>(
    tensors: &Sequence<Box<[A]>>,
    constants: &Sequence<InputScalar>,
    outputs: &mut [A],
    #[comptime] program: Program,
    #[define(A)] _dtype: ElemType,
) {
    let mut numbers = Sequence::<A>::new();
    #[unroll]
    for i in 0..program.elements.len() {
        let [tensor, element] = comptime!(program.elements[i]);
        numbers.push(tensors[tensor][element]);
    }
    #[unroll]
    for i in 0..program.constants {
        numbers.push(constants[i].get::<A>());
    }
    #[unroll]
    for i in 0..program.steps.len() {
        let [x, y, z] = comptime!(program.steps[i].arguments);
        let operation = comptime!(program.steps[i].operation);
        let made = step::<A>(numbers[x], numbers[y], numbers[z], operation);
        numbers.push(made);
    }
    #[unroll]
    for i in 0..program.outputs.len() {
        outputs[i] = numbers[comptime!(program.outputs[i])];
    }
}

#[cube]
fn step<A: Float>(x: A, y: A, z: A, #[comptime] operation: Operation) -> A {
    let (one, zero) = (A::new(1.0), A::new(0.0));
    match operation {
        Operation::Add => x + y,
        Operation::Sub => x - y,
        Operation::Mul => x * y,
        Operation::Div => x / y,
        Operation::Sqrt => x.sqrt(),
        // Vulkan has no power of an f64, and gives another number.
        Operation::Powf => A::cast_from(f32::cast_from(x).powf(f32::cast_from(y))),
        Operation::Clamp => select(x < y, y, select(x > z, z, x)),
        Operation::Select => select(x == zero, z, y),
        Operation::Less => select(x < y, one, zero),
        Operation::LessEqual => select(x <= y, one, zero),
        Operation::Equal => select(x == y, one, zero),
        Operation::IsNan => select(bool::cast_from(x.is_nan()), one, zero),
        Operation::IsNotFinite => select(is_finite::<A>(x), zero, one),
        Operation::Or => select(x + y == zero, zero, one),
        Operation::And => x * y,
        Operation::Not => one - x,
    }
}
