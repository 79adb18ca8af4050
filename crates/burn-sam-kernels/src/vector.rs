use std::borrow::Cow;

use burn::tensor::{DType, Device, Tensor};

use crate::kernels;
use crate::operation::{Along, Reduction, Update};
use crate::part::Part;
use crate::portable::{self, Scale};

/// A vector of the weights' size: a tensor for each of some parameters, which are told apart by their places in the
/// module's order. Its parts may be of any ranks and types, and on several devices.
///
/// A clone is another handle on the same memory. Where nothing else holds a part's memory, what is made of it is
/// written into it.
#[derive(Clone, Debug, Default)]
pub struct Vector(Vec<Part>);

/// How far to climb: [`Vector::perturbed`] has the equation.
#[derive(Clone, Debug)]
pub struct Length {
    /// The squared norm, as from [`Vector::squared_length`], of shape `[1]`, on any device.
    pub squared_norm: Tensor<1>,
    /// The stability constant.
    pub eps: f64,
    /// What all rhos are multiplied by, of shape `[1]`, on any device; `None` is 1.
    pub factor: Option<Tensor<1>>,
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
        self.0.sort_by_key(Part::place);
        self
    }

    /// With zeros where it misses a part that the other has.
    pub fn padded(&self, like: &Self) -> Self {
        let parts = like.iter().map(|part| match self.get(part.place()) {
            Some(own) => own.clone(),
            None => part.zeros_like(),
        });
        parts.collect()
    }

    /// A number of shape `[1]`, where the first part is, in the type that the vector is summed in.
    pub fn number(&self, value: f64) -> Tensor<1> {
        let wide = portable::accumulation_dtype(self.iter().map(Part::dtype));
        let device = self.0.first().map(|part| part.device().clone());
        Tensor::from_data([value], (&device.unwrap_or_default(), DType::from(wide)))
    }

    /// |v|², of shape `[1]`; `None` of no parts. The sum is f64 if any part is, and f32 otherwise. It is not finite
    /// if any element is not.
    pub fn squared_norm(&self) -> Option<Tensor<1>> {
        self.squared_length(self, Along::Gradient { eta: None })
    }

    /// The squared norm of the way to climb: of T v, or of w - v, where v is this vector and w the weights.
    ///
    /// As for [`squared_norm`](Self::squared_norm).
    ///
    /// # Panics
    ///
    /// If w misses a part, or one of another shape, where it is needed.
    pub fn squared_length(&self, weights: &Self, along: Along) -> Option<Tensor<1>> {
        let reads_weights = !matches!(along, Along::Gradient { eta: None });
        let rows: Vec<(&Part, Option<Cow<'_, Part>>)> = (self.iter())
            .map(|part| (part, reads_weights.then(|| weights.beside(part))))
            .collect();
        let (groups, rest) = by_device(rows, |(part, _)| part);
        let reduction = match along {
            Along::Gradient { eta } => Reduction::SquaredNorm { eta },
            Along::Update => Reduction::SquaredDistance,
        };
        let mut sums = Vec::with_capacity(groups.len() + rest.len());
        for (_, rows) in groups {
            let (parts, weights): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let weights: Vec<_> = weights.into_iter().flatten().collect();
            sums.push(kernels::reduce(&parts, &weights, reduction));
        }
        sums.extend(rest.into_iter().map(|(part, weight)| {
            let weight = weight.as_deref().unwrap_or(part);
            match along {
                Along::Gradient { eta } => part.portable_sum_of_squares(weight, eta),
                Along::Update => {
                    let update = weight.clone().portable_minus(part.clone());
                    update.portable_sum_of_squares(&update, None)
                }
            }
        }));
        portable::total(sums)
    }

    /// <a, a>, <a, b> and <b, b>, each of shape `[1]`, over the parameters of which both have a part; `None` if there
    /// is none. The sums are f64 if any part of a is, and f32 otherwise.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape.
    pub fn products(&self, other: &Self) -> Option<[Tensor<1>; 3]> {
        let rows: Vec<(&Part, Cow<'_, Part>)> = (self.iter())
            .filter_map(|a| Some((a, a.beside(other.get(a.place())?, a.device(), a.dtype()))))
            .collect();
        let (groups, rest) = by_device(rows, |(a, _)| a);
        let mut sums = [Vec::new(), Vec::new(), Vec::new()];
        for (_, rows) in groups {
            let (a, b): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let products = kernels::reduce(&a, &b, Reduction::InnerProducts);
            for (index, sums) in sums.iter_mut().enumerate() {
                sums.push(products.clone().narrow(0, index, 1));
            }
        }
        for (a, b) in &rest {
            let products = [(*a, *a), (*a, &**b), (&**b, &**b)];
            for ((a, b), sums) in products.into_iter().zip(&mut sums) {
                sums.push(a.portable_inner_product(b));
            }
        }
        let [aa, ab, bb] = sums.map(portable::total);
        Some([aa?, ab?, bb?])
    }

    /// |v|², and how steep v is along a way: <v, to - from>. Each of shape `[1]`, over the parameters of which all three
    /// have a part; `None` if there is none. The sums are f64 if any part of v is, and f32 otherwise.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape.
    pub fn slope(&self, from: &Self, to: &Self) -> Option<[Tensor<1>; 2]> {
        let beside = |a: &Part, other: &Self| {
            let other = other.get(a.place())?;
            Some(a.beside(other, a.device(), a.dtype()).into_owned())
        };
        let rows: Vec<(&Part, Part, Part)> = (self.iter())
            .filter_map(|a| Some((a, beside(a, to)?, beside(a, from)?)))
            .collect();
        let (groups, rest) = by_device(rows, |(a, ..)| a);
        let mut sums = [Vec::new(), Vec::new()];
        for (_, rows) in groups {
            let (mut a, mut to, mut from) = (Vec::new(), Vec::new(), Vec::new());
            for row in rows {
                a.push(row.0);
                to.push(row.1);
                from.push(row.2);
            }
            to.append(&mut from);
            let products = kernels::reduce(&a, &to, Reduction::Slope);
            for (index, sums) in sums.iter_mut().enumerate() {
                sums.push(products.clone().narrow(0, index, 1));
            }
        }
        for (a, to, from) in rest {
            sums[0].push(a.portable_inner_product(a));
            // In half precision, the difference would be rounded.
            let wide = DType::from(portable::accumulation_dtype([a.dtype()]));
            let [to, from] = [to, from].map(|part| part.moved(a.device(), wide));
            sums[1].push(a.portable_inner_product(&to.portable_minus(from)));
        }
        let [squared, slope] = sums.map(portable::total);
        Some([squared?, slope?])
    }

    /// The linear combination x a + y b, or x a + y b + z c, where this is a. A part of a parameter of which another
    /// vector has none stays as it is.
    ///
    /// A tensor whose coefficient is 0 is not read, and may hold anything: with 1 and 0, a stays as it is, bit for
    /// bit, whatever is not finite in b. That is decided on the device.
    ///
    /// # Arguments
    ///
    /// * `x` - of shape `[1]`, on any device, as all coefficients are.
    /// * `others` - one or two other vectors, each with its coefficient.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape, or the others are not one or two.
    pub fn combine(self, x: Tensor<1>, others: &[(&Self, Tensor<1>)]) -> Self {
        assert!(
            matches!(others.len(), 1 | 2),
            "a combination is with one or two other vectors"
        );
        let coefficients: Vec<Tensor<1>> = [x]
            .into_iter()
            .chain(others.iter().map(|(_, coefficient)| coefficient.clone()))
            .collect();
        let mut combined = Self::with_capacity(self.len());
        let mut rows = Vec::with_capacity(self.len());
        for a in self.0 {
            let beside: Option<Vec<Cow<'_, Part>>> = (others.iter())
                .map(|(vector, _)| {
                    let other = vector.get(a.place())?;
                    Some(a.beside(other, a.device(), a.dtype()))
                })
                .collect();
            match beside {
                Some(beside) => rows.push((a, beside)),
                None => combined.0.push(a),
            }
        }
        let (groups, rest) = by_device(rows, |(a, _)| a);
        for (device, rows) in groups {
            let (mut write, mut read) = (Vec::with_capacity(rows.len()), Vec::new());
            let mut last = Vec::new();
            for (a, beside) in rows {
                let mut beside = beside.into_iter();
                read.extend(beside.next());
                last.extend(beside);
                write.push(a);
            }
            read.append(&mut last);
            let written = kernels::update(&read, write, &coefficients, &device, Update::Combine);
            combined.0.extend(written);
        }
        let rest = (rest.into_iter()).map(|(a, beside)| a.portable_combine(beside, &coefficients));
        combined.0.extend(rest);
        combined.0.sort_by_key(Part::place);
        combined
    }

    /// x v.
    pub fn scaled(self, x: Tensor<1>) -> Self {
        let (same, nothing) = (self.clone(), x.zeros_like());
        self.combine(x, &[(&same, nothing)])
    }

    /// The weights at w + rho T² v / (norm + eps), or at w + rho (w - v) / (norm + eps), of each parameter that has a
    /// part of this vector v.
    ///
    /// Equation 2 of [SAM](https://arxiv.org/abs/2010.01412), or of [ASAM](https://arxiv.org/abs/2102.11600) with an
    /// eta. Where the norm is not finite, or is 0 with an `eps` of 0, every parameter stays at w, whatever v holds.
    ///
    /// # Arguments
    ///
    /// * `weights` - w. The result has its types, and v's devices.
    /// * `along` - what v is.
    /// * `rho` - the radius of the parameter at a place.
    /// * `length` - how far that is.
    ///
    /// # Panics
    ///
    /// If w misses a part, or has one of another shape.
    pub fn perturbed(
        self,
        weights: &Self,
        along: Along,
        rho: impl Fn(usize) -> f64,
        length: &Length,
    ) -> Self {
        let mut perturbed = Self::with_capacity(self.len());
        let mut rows = Vec::with_capacity(self.len());
        for part in self.0 {
            let place = part.place();
            let weight = weights.of(&part);
            let weight = part.beside(weight, part.device(), weight.dtype());
            match rho(place) {
                0.0 => perturbed.0.push(weight.into_owned()),
                rho => {
                    // A gradient of another type has no buffer that the result could be written into.
                    let part = match part.dtype() == weight.dtype() {
                        true => part,
                        false => {
                            let device = part.device().clone();
                            part.moved(&device, weight.dtype())
                        }
                    };
                    rows.push((part, weight, rho));
                }
            }
        }
        let (groups, rest) = by_device(rows, |(part, ..)| part);
        let scalars: Vec<Tensor<1>> = [length.squared_norm.clone()]
            .into_iter()
            .chain(length.factor.clone())
            .collect();
        for (device, rows) in groups {
            let (mut parts, mut weights) = (Vec::with_capacity(rows.len()), Vec::new());
            let mut rhos = Vec::with_capacity(rows.len());
            for (part, weight, rho) in rows {
                parts.push(part);
                weights.push(weight);
                rhos.push(rho);
            }
            let update = Update::Perturb {
                rhos,
                eps: length.eps,
                along,
            };
            perturbed
                .0
                .extend(kernels::update(&weights, parts, &scalars, &device, update));
        }
        if !rest.is_empty() {
            let scale = Scale::new(
                length.squared_norm.clone(),
                length.eps,
                length.factor.clone(),
            );
            perturbed
                .0
                .extend(rest.into_iter().map(|(part, weight, rho)| {
                    let weight = weight.into_owned();
                    match along {
                        Along::Gradient { eta } => weight.portable_perturb(part, &scale, rho, eta),
                        Along::Update => {
                            let update = weight.clone().portable_minus(part);
                            weight.portable_perturb(update, &scale, rho, None)
                        }
                    }
                }));
        }
        perturbed.0.sort_by_key(Part::place);
        perturbed
    }
}

impl Vector {
    /// The part of another part's parameter.
    fn of(&self, part: &Part) -> &Part {
        let own = self.get(part.place());
        own.unwrap_or_else(|| panic!("the weights miss the parameter at place {}", part.place()))
    }

    fn beside(&self, part: &Part) -> Cow<'_, Part> {
        part.beside(self.of(part), part.device(), part.dtype())
    }
}

impl FromIterator<Part> for Vector {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        let mut vector = Self::new();
        for part in parts {
            vector.push(part);
        }
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

/// Rows of a device each.
type Groups<R> = Vec<(Device, Vec<R>)>;

/// Rows by device, of those that have kernels, and the rest.
fn by_device<R>(rows: Vec<R>, part: impl Fn(&R) -> &Part) -> (Groups<R>, Vec<R>) {
    let (mut groups, mut rest): (Groups<R>, Vec<R>) = (Vec::new(), Vec::new());
    for row in rows {
        let part = part(&row);
        if !part.has_kernels() {
            rest.push(row);
            continue;
        }
        // The last group first: most parameters are where the one before is.
        let group = (groups.iter()).rposition(|(device, _)| device == part.device());
        match group {
            Some(index) => groups[index].1.push(row),
            None => groups.push((part.device().clone(), vec![row])),
        }
    }
    (groups, rest)
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
