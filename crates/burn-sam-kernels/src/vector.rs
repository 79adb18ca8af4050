use std::borrow::Cow;

use burn::tensor::{Bool, DType, Device, FloatDType, Tensor, TensorData};

use crate::kernels;
use crate::operation::{Reduction, Update};
use crate::part::Part;
use crate::portable;
use crate::shared::{Choice, Flag, Number};

/// A vector of the weights' size: a tensor for each of some parameters, which are told apart by their places in the
/// module's order. Its parts may be of any ranks and types, and on several devices.
///
/// A clone is another handle on the same memory. Where nothing else holds a part's memory, what is made of it is
/// written into it.
#[derive(Clone, Debug, Default)]
pub struct Vector(Vec<Part>);

/// What vectors are multiplied by in a linear combination: a number, or one of shape `[1]` on any device.
pub trait Coefficient: Clone {
    #[doc(hidden)]
    fn all(of: Vec<Self>) -> Coefficients;
}

#[doc(hidden)]
pub enum Coefficients {
    Numbers(Vec<f64>),
    Values(Vec<Tensor<1>>),
}

impl Coefficient for f64 {
    fn all(of: Vec<Self>) -> Coefficients {
        Coefficients::Numbers(of)
    }
}

impl Coefficient for Tensor<1> {
    fn all(of: Vec<Self>) -> Coefficients {
        Coefficients::Values(of)
    }
}

/// What takes a vector's place.
#[expect(clippy::large_enum_variant, reason = "there is one a step")]
pub enum Instead<'a> {
    /// Another vector.
    Vector(&'a Vector),
    /// So many times the way from one vector to another.
    Way {
        /// Where it begins.
        from: &'a Vector,
        /// Where it ends.
        to: Vector,
        /// How many times, of shape `[1]`, on any device.
        times: Tensor<1>,
    },
}

impl Vector {
    /// Without any part.
    pub fn new() -> Self {
        Self::default()
    }

    /// Without any part, and with room for so many.
    pub fn with_capacity(parts: usize) -> Self {
        Self(Vec::with_capacity(parts))
    }

    /// Adds a part.
    ///
    /// # Panics
    ///
    /// If its place does not come after those of the other parts.
    pub fn push(&mut self, part: Part) {
        let last = self.0.last().map(Part::place);
        assert!(
            last.is_none_or(|last| last < part.place()),
            "parts come in the module's order"
        );
        self.0.push(part);
    }

    /// The number of parts.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no part.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts, in the module's order.
    pub fn iter(&self) -> core::slice::Iter<'_, Part> {
        self.0.iter()
    }

    /// The part of the parameter at a place.
    pub fn get(&self, place: usize) -> Option<&Part> {
        let index = self.0.binary_search_by_key(&place, Part::place).ok()?;
        Some(&self.0[index])
    }

    /// The parts of the parameters of which `is_in` is true.
    pub fn filtered(mut self, is_in: impl Fn(usize) -> bool) -> Self {
        self.0.retain(|part| is_in(part.place()));
        self
    }

    /// With the parts of another one of other parameters.
    pub fn merged(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        Self::in_any_order(self.0)
    }

    /// With zeros where it misses a part that the other has.
    pub fn padded(&self, like: &Self) -> Self {
        let parts = like.iter().map(|part| match self.get(part.place()) {
            Some(own) => own.clone(),
            None => part.zeros_like(),
        });
        parts.collect()
    }

    /// |v|², of shape `[1]`; `None` of no parts. The sum is f64 if any part is, and f32 otherwise. It is not finite
    /// if any element is not.
    pub fn squared_norm(&self) -> Option<Tensor<1>> {
        let rows = self.iter().map(|part| (part, [None, None]));
        let [sum] = reduce(rows.collect(), Reduction::SquaredNorm { eta: None })?;
        Some(sum)
    }

    /// <a, a>, <a, b> and <b, b>, each of shape `[1]`, over the parameters of which both have a part; `None` if there
    /// is none. The sums are f64 if any part of a is, and f32 otherwise.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape.
    pub fn products(&self, other: &Self) -> Option<[Tensor<1>; 3]> {
        let rows = (self.iter()).filter_map(|a| Some((a, [Some(other.like(a)?), None])));
        reduce(rows.collect(), Reduction::InnerProducts)
    }

    /// |v|², and how steep v is along a way: <v, to - from>. Each of shape `[1]`, over the parameters of which all three
    /// have a part; `None` if there is none. The sums are f64 if any part of v is, and f32 otherwise.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape.
    pub fn slope(&self, from: &Self, to: &Self) -> Option<[Tensor<1>; 2]> {
        let rows =
            (self.iter()).filter_map(|a| Some((a, [Some(to.like(a)?), Some(from.like(a)?)])));
        reduce(rows.collect(), Reduction::Slope)
    }

    /// The linear combination x a, x a + y b, or x a + y b + z c, where this is a. A part of a parameter of which another
    /// vector has none stays as it is.
    ///
    /// A tensor whose coefficient is 0 is not read, and may hold anything: with 1 and 0, a stays as it is, whatever is
    /// not finite in b. Of coefficients on the device, that is decided there.
    ///
    /// # Arguments
    ///
    /// * `x` - what this vector is multiplied by.
    /// * `others` - none, one or two other vectors, each with its coefficient.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape, or the others are more than two.
    pub fn combine<C: Coefficient>(self, x: C, others: &[(&Self, C)]) -> Self {
        assert!(
            others.len() <= 2,
            "a combination is with at most two other vectors"
        );
        let coefficients = others.iter().map(|(_, coefficient)| coefficient.clone());
        let coefficients = C::all([x].into_iter().chain(coefficients).collect());
        let mut combined = Self::with_capacity(self.len());
        let mut rows = Vec::with_capacity(self.len());
        for a in self.0 {
            let beside = [0, 1].map(|index| others.get(index).map(|(vector, _)| vector.like(&a)));
            match beside.iter().any(|other| matches!(other, Some(None))) {
                true => combined.0.push(a),
                false => rows.push((a, beside.map(Option::flatten))),
            }
        }
        let (with, without): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(a, _)| a.has_kernels());
        for (device, rows) in by_device(with, |(a, _)| a) {
            let (write, read) = lists(rows);
            let scalars = |wide: FloatDType| match &coefficients {
                Coefficients::Numbers(numbers) => {
                    let numbers = TensorData::new(numbers.clone(), [numbers.len()]);
                    Tensor::from_data(numbers, (&device, DType::from(wide)))
                }
                Coefficients::Values(values) => beside(values.iter(), &device, wide),
            };
            combined
                .0
                .extend(kernels::update(&read, write, scalars, Update::Combine));
        }
        combined.0.extend(combined_portably(without, coefficients));
        Self::in_any_order(combined.0)
    }

    /// x v, of an x that is not 0 or a v that is finite.
    pub fn scaled<C: Coefficient>(self, x: C) -> Self {
        self.combine(x, &[])
    }

    /// So much of this vector, or, where a flag is true, something else, as far as it has parts of the same parameters.
    /// That is decided on the device. What is not taken may hold anything.
    ///
    /// # Arguments
    ///
    /// * `share` - of shape `[1]`, on any device; `None` is all of it.
    /// * `flag` - of shape `[1]`, on any device.
    /// * `instead` - what is taken where the flag is true.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape.
    pub fn scaled_or(
        self,
        share: Option<Tensor<1>>,
        flag: Tensor<1, Bool>,
        instead: Instead<'_>,
    ) -> Self {
        let (with, without): (Vec<Part>, Vec<Part>) =
            self.0.into_iter().partition(Part::has_kernels);
        let (mut with, without) = (Self(with), Self(without));
        if !with.is_empty() {
            let taken = flag.clone().float();
            let share = match &share {
                Some(share) => {
                    let flag = flag.clone().to_device(&share.device());
                    share.clone().mask_fill(flag, 0.0)
                }
                None => 1.0 - taken.clone(),
            };
            with = match &instead {
                Instead::Vector(vector) => with.combine(share, &[(vector, taken)]),
                Instead::Way { from, to, times } => {
                    let not_taken = flag.clone().bool_not().to_device(&times.device());
                    let times = times.clone().mask_fill(not_taken, 0.0);
                    let back = times.clone().neg();
                    with.combine(share, &[(to, times), (from, back)])
                }
            };
        }
        if without.is_empty() {
            return with;
        }
        let number = |value, parts: &Self| Number::new(value, parts.iter().map(|part| (part, 1.0)));
        let share = share.map(|share| number(share, &without));
        let instead: Box<dyn Iterator<Item = Part>> = match instead {
            Instead::Vector(vector) => Box::new(vector.iter().cloned()),
            Instead::Way { from, to, times } => {
                let to = to.filtered(|place| without.get(place).is_some());
                let times = number(times, &to);
                Box::new(to.into_iter().map(move |to| {
                    let from = from.like(&to).expect("where it begins").into_owned();
                    from.portable_way(to, &times)
                }))
            }
        };
        let mut instead = instead.peekable();
        let flag = Choice::new(flag, without.iter());
        with.0.extend(without.into_iter().map(|a| {
            while instead.next_if(|of| of.place() < a.place()).is_some() {}
            let of = instead.next_if(|of| of.place() == a.place());
            let a = match &share {
                Some(share) => a.portable_scaled(share),
                None => a,
            };
            match of {
                Some(of) => {
                    let of = of.moved(a.device(), a.dtype());
                    a.portable_choice(&flag, of)
                }
                None => a,
            }
        }));
        Self::in_any_order(with.0)
    }

    /// The other part of a part's parameter, on its device and in its type.
    fn like(&self, part: &Part) -> Option<Cow<'_, Part>> {
        Some(part.beside(self.get(part.place())?, part.device(), part.dtype()))
    }

    pub(crate) fn in_any_order(mut parts: Vec<Part>) -> Self {
        parts.sort_by_key(Part::place);
        Self(parts)
    }
}

impl Extend<Part> for Vector {
    fn extend<I: IntoIterator<Item = Part>>(&mut self, parts: I) {
        for part in parts {
            self.push(part);
        }
    }
}

impl FromIterator<Part> for Vector {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        let mut vector = Self::new();
        vector.extend(parts);
        vector
    }
}

impl IntoIterator for Vector {
    type Item = Part;
    type IntoIter = std::vec::IntoIter<Part>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A part, and others of its parameter, as many as an operation reads.
pub(crate) type Row<'a, P> = (P, [Option<Cow<'a, Part>>; 2]);

/// Sums over rows; `None` of no rows.
pub(crate) fn reduce<'a, const N: usize>(
    rows: Vec<Row<'a, &'a Part>>,
    reduction: Reduction,
) -> Option<[Tensor<1>; N]> {
    let mut sums: [Vec<Tensor<1>>; N] = [const { Vec::new() }; N];
    let mut add = |of: Vec<Tensor<1>>| {
        for (sums, sum) in sums.iter_mut().zip(of) {
            sums.push(sum);
        }
    };
    let (with, without): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(a, _)| a.has_kernels());
    for (_, rows) in by_device(with, |(a, _)| a) {
        let (a, others) = lists(rows);
        let of = kernels::reduce(&a, &others, reduction);
        add(match N {
            1 => vec![of],
            _ => (0..N).map(|index| of.clone().narrow(0, index, 1)).collect(),
        });
    }
    let (small, large) =
        (without.into_iter()).partition::<Vec<_>, _>(|(a, _)| a.shape().num_elements() <= FEW);
    for (a, others) in &large {
        let others = others.each_ref().map(Option::as_deref);
        add(a.portable_reduce(others, reduction));
    }
    for (_, rows) in by_device(small, |(a, _)| a) {
        for rows in by_dtype(rows) {
            let a = Part::joined(rows.iter().map(|(a, _)| *a)).expect("of at least one row");
            let others = [0, 1].map(|index| {
                Part::joined(
                    rows.iter()
                        .filter_map(|(_, others)| others[index].as_deref()),
                )
            });
            let others = others.each_ref().map(Option::as_ref);
            add(a.portable_reduce(others, reduction));
        }
    }
    let totals = sums.map(portable::total);
    let is_all = totals.iter().all(Option::is_some);
    is_all.then(|| totals.map(|total| total.expect("seen before")))
}

/// Rows by the first part's type.
fn by_dtype<'a>(mut rows: Vec<Row<'a, &'a Part>>) -> Vec<Vec<Row<'a, &'a Part>>> {
    let mut groups = Vec::new();
    while let Some((first, _)) = rows.first() {
        let dtype = first.dtype();
        let (group, others) = rows.into_iter().partition(|(a, _)| a.dtype() == dtype);
        groups.push(group);
        rows = others;
    }
    groups
}

/// The first of each row, and the second ones, which the third ones follow.
pub(crate) fn lists<P>(rows: Vec<Row<'_, P>>) -> (Vec<P>, Vec<Cow<'_, Part>>) {
    let (mut first, mut second, mut third) =
        (Vec::with_capacity(rows.len()), Vec::new(), Vec::new());
    for (a, [b, c]) in rows {
        first.push(a);
        second.extend(b);
        third.extend(c);
    }
    second.append(&mut third);
    (first, second)
}

/// Tensors of so few elements are put together before they are summed, where each operation costs more than to copy
/// them.
const FEW: usize = 1 << 14;

/// Rows by device.
pub(crate) fn by_device<R>(rows: Vec<R>, part: impl Fn(&R) -> &Part) -> Vec<(Device, Vec<R>)> {
    let mut groups: Vec<(Device, Vec<R>)> = Vec::new();
    for row in rows {
        let device = part(&row).device();
        // The last group first: most parameters are where the one before is.
        match groups.iter().rposition(|(of, _)| of == device) {
            Some(index) => groups[index].1.push(row),
            None => groups.push((device.clone(), vec![row])),
        }
    }
    groups
}

/// Linear combinations of rows.
fn combined_portably(rows: Vec<Row<'_, Part>>, coefficients: Coefficients) -> Vec<Part> {
    let parts = || rows.iter().map(|(a, _)| a);
    let number = |value: Tensor<1>| Number::new(value, parts().map(|part| (part, 1.0)));
    let owned = |others: [Option<Cow<'_, Part>>; 2]| -> Vec<Part> {
        others.into_iter().flatten().map(Cow::into_owned).collect()
    };
    match coefficients {
        Coefficients::Numbers(numbers) => (rows.into_iter())
            .map(|(a, others)| a.portable_weighted(owned(others), &numbers))
            .collect(),
        Coefficients::Values(values) if values.len() == 1 => {
            let x: Vec<Number> = values.into_iter().map(number).collect();
            let rows = rows.into_iter();
            rows.map(|(a, _)| a.portable_scaled(&x[0])).collect()
        }
        Coefficients::Values(values) => {
            let coefficients: Vec<(Number, Flag)> = (values.into_iter())
                .map(|value| {
                    let is_zero = Flag::new(value.clone().equal_elem(0.0), parts());
                    (number(value), is_zero)
                })
                .collect();
            (rows.into_iter())
                .map(|(a, others)| a.portable_sum(owned(others), &coefficients))
                .collect()
        }
    }
}

/// Numbers of shape `[1]` one after the other, on a device.
pub(crate) fn beside<'a>(
    numbers: impl Iterator<Item = &'a Tensor<1>>,
    device: &Device,
    dtype: FloatDType,
) -> Tensor<1> {
    let mut numbers: Vec<Tensor<1>> = numbers
        .map(|number| number.clone().cast(dtype).to_device(device))
        .collect();
    match numbers.len() {
        1 => numbers.remove(0),
        _ => Tensor::cat(numbers, 0),
    }
}

/// The value of a tensor of shape `[1]`, if it can be had without waiting for a device: on the CPU backends that have
/// kernels here.
pub fn known(value: &Tensor<1>) -> Option<f64> {
    #[allow(unreachable_patterns)]
    match value.device().as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(_) => value.clone().into_data().iter::<f64>().next(),
        #[cfg(feature = "ndarray")]
        burn::backend::DispatchDevice::NdArray(_) => value.clone().into_data().iter::<f64>().next(),
        _ => None,
    }
}
