//! Where to climb to.

use std::borrow::Cow;

use crate::formula::work_out;
use crate::kernels;
use crate::number::Number;
use crate::operation::{Along, Reduction, Update};
use crate::part::Part;
use crate::portable::{Scale, accumulation_dtype};
use crate::shared::{Factor, Mask};
use crate::sums::reduce;
use crate::vector::{Vector, by_device};

/// The path from weights w along a vector v, from [`Vector::path`].
#[derive(Debug)]
pub struct Path<'a> {
    along: Along,
    /// The parts whose backend has kernels.
    with: Vec<Step<'a>>,
    /// The others, along whose update the path goes once it is written down.
    without: Vec<Step<'a>>,
}

/// A part of v, and the weight beside it.
type Step<'a> = (Part, Cow<'a, Part>);

/// How far to climb: [`Path::end`] has the equation.
#[derive(Clone, Debug)]
pub struct Length {
    squared_norm: Number,
    /// The norm and eps.
    norm: Number,
    eps: f64,
    factor: Option<Number>,
}

impl Length {
    /// As far as rho, on a path of this length.
    ///
    /// # Arguments
    ///
    /// * `squared_norm` - the squared norm, as from [`Path::squared_length`].
    /// * `eps` - the stability constant.
    /// * `factor` - what all rhos are multiplied by; `None` is 1.
    pub fn new(squared_norm: impl Into<Number>, eps: f64, factor: Option<Number>) -> Self {
        let squared_norm = squared_norm.into();
        let norm = squared_norm.sqrt();
        let norm = if eps == 0.0 { norm } else { norm + eps };
        Self {
            squared_norm,
            norm,
            eps,
            factor,
        }
    }

    /// The same for parts without kernels, of which this is one.
    fn scale(&self, part: &Part) -> Scale {
        let (device, wide) = (part.device(), accumulation_dtype([part.dtype()]));
        let numbers = [&self.norm].into_iter().chain(&self.factor);
        let worked = work_out(numbers.map(|number| number.clone().into_value()).collect());
        let mut worked = (worked.into_iter()).map(|number| number.number(device, wide));
        let norm = worked.next().expect("the norm");
        Scale::of(norm, worked.next())
    }

    /// How many times the way to climb the vector is for a rho of 1: norm + eps, over the factor.
    pub fn per_rho(self) -> Number {
        match self.factor {
            Some(factor) => self.norm / factor,
            None => self.norm,
        }
    }
}

impl Vector {
    /// The path from w along this vector.
    ///
    /// # Arguments
    ///
    /// * `weights` - w.
    /// * `along` - what this vector is.
    ///
    /// # Panics
    ///
    /// If w misses a part, or has one of another shape.
    pub fn path<'a>(self, weights: &'a Self, along: Along) -> Path<'a> {
        let (mut with, mut without) = (Vec::with_capacity(self.len()), Vec::new());
        for part in self {
            let place = part.place();
            let weight = (weights.get(place))
                .unwrap_or_else(|| panic!("the weights miss the parameter at place {place}"));
            let weight = part.beside(weight, part.device(), weight.dtype());
            let has_kernels =
                part.has_kernels() && (part.dtype() == weight.dtype() || weight.has_kernels());
            match (has_kernels, along) {
                (true, _) => with.push((part, weight)),
                (false, Along::Gradient { .. }) => without.push((part, weight)),
                // Read twice, where no kernel reads both.
                (false, Along::Update) => {
                    let before = part.in_type_of(&weight);
                    let update = weight.clone().into_owned().portable_minus(before);
                    without.push((update, weight));
                }
            }
        }
        Path {
            along,
            with,
            without,
        }
    }
}

impl Path<'_> {
    /// The squared length of T v, or of w - v; `None` of no parts. The sum is f64 if any part of v is, and f32 otherwise. It
    /// is not finite if any element is not.
    pub fn squared_length(&self) -> Option<Number> {
        let eta = self.eta();
        let along_gradient = Reduction::SquaredNorm { eta };
        let of_kernels = match self.along {
            Along::Gradient { .. } => along_gradient,
            Along::Update => Reduction::SquaredDistance,
        };
        let sums = [(&self.with, of_kernels), (&self.without, along_gradient)]
            .into_iter()
            .filter_map(|(steps, reduction)| {
                let reads_weights = !matches!(reduction, Reduction::SquaredNorm { eta: None });
                let rows = steps.iter().map(|(part, weight)| {
                    let weight =
                        reads_weights.then(|| part.beside(weight, part.device(), part.dtype()));
                    (part, [weight, None])
                });
                let [sum] = reduce(rows.collect(), reduction)?;
                Some(sum)
            });
        sums.reduce(|sum, other| sum + other)
    }

    /// The weights at w + rho T² v / (norm + eps), or at w + rho (w - v) / (norm + eps), of each parameter that v has a
    /// part of.
    ///
    /// Equation 2 of [SAM](https://arxiv.org/abs/2010.01412), or of [ASAM](https://arxiv.org/abs/2102.11600) with an
    /// eta. Where the norm is not finite, or is 0 with an `eps` of 0, every parameter stays at w, whatever v holds.
    ///
    /// # Arguments
    ///
    /// * `rho` - the radius of the parameter at a place.
    /// * `length` - how far that is.
    ///
    /// The result has w's types, and v's devices. Where nothing else holds a part of v, it is written into it.
    pub fn end(self, rho: impl Fn(usize) -> f64, length: &Length) -> Vector {
        let (eta, along) = (self.eta(), self.along);
        let mut ends = Vec::with_capacity(self.with.len() + self.without.len());
        let mut rows = Vec::with_capacity(self.with.len());
        for (part, weight) in self.with {
            match rho(part.place()) {
                0.0 => ends.push(weight.into_owned()),
                // A gradient of another type has no buffer that the result could be written into.
                rho => rows.push((part.in_type_of(&weight), weight, rho)),
            }
        }
        for (device, rows) in by_device(rows, |(part, ..)| part) {
            let (mut parts, mut weights) = (Vec::with_capacity(rows.len()), Vec::new());
            let mut rhos = Vec::with_capacity(rows.len());
            for (part, weight, rho) in rows {
                parts.push(part);
                weights.push(weight);
                rhos.push(rho);
            }
            let squared_norm = length.squared_norm.clone();
            let update = Update::Perturb {
                rhos,
                eps: length.eps,
                along,
            };
            let scalars = |wide| match length.factor.clone() {
                Some(factor) => Number::tensor([squared_norm, factor], &device, wide),
                None => Number::tensor([squared_norm], &device, wide),
            };
            ends.extend(kernels::update(&weights, parts, scalars, update));
        }
        let steps = self.without.into_iter();
        let (moved, still): (Vec<Step<'_>>, Vec<Step<'_>>) =
            steps.partition(|(part, _)| rho(part.place()) != 0.0);
        ends.extend(still.into_iter().map(|(_, weight)| weight.into_owned()));
        if let Some((_, first)) = moved.first() {
            let Scale { factor, refused } = length.scale(first);
            let weights = || moved.iter().map(|(_, weight)| &**weight);
            let factor = Factor::new(
                factor,
                weights().map(|weight| (weight, rho(weight.place()))),
            );
            let refused = Mask::new(refused, weights());
            ends.extend(moved.into_iter().map(|(part, weight)| {
                let rho = rho(part.place());
                let part = part.in_type_of(&weight);
                let weight = weight.into_owned();
                weight.portable_perturb(part, (&factor, &refused), rho, eta)
            }));
        }
        Vector::in_any_order(ends)
    }

    fn eta(&self) -> Option<f64> {
        match self.along {
            Along::Gradient { eta } => eta,
            Along::Update => None,
        }
    }
}
