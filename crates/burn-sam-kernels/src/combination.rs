//! Linear combinations of vectors, and choices between them.

use std::borrow::Cow;

use burn::tensor::{Bool, DType, FloatDType, Tensor, TensorData};

use crate::kernels;
use crate::operation::Update;
use crate::part::Part;
use crate::shared::{Choice, Flag, Number};
use crate::vector::{Row, Vector, beside, by_device, lists};

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
#[allow(clippy::large_enum_variant, reason = "there is one a step")]
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

impl Instead<'_> {
    fn has(&self, place: usize) -> bool {
        match self {
            Self::Vector(vector) => vector.get(place).is_some(),
            Self::Way { from, to, .. } => [*from, to].iter().all(|end| end.get(place).is_some()),
        }
    }
}

impl Vector {
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
        let mut combined = Vec::with_capacity(self.len());
        let mut rows = Vec::with_capacity(self.len());
        for a in self {
            let beside = [0, 1].map(|index| others.get(index).map(|(vector, _)| vector.like(&a)));
            match beside.iter().any(|other| matches!(other, Some(None))) {
                true => combined.push(a),
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
            combined.extend(kernels::update(&read, write, scalars, Update::Combine));
        }
        combined.extend(combined_portably(without, coefficients));
        Self::in_any_order(combined)
    }

    /// x v, of an x that is not 0 or a v that is finite.
    pub fn scaled<C: Coefficient>(self, x: C) -> Self {
        self.combine(x, &[])
    }

    /// So much of this vector, or, where a flag is true, something else. That is decided on the device. What is not taken
    /// may hold anything.
    ///
    /// # Arguments
    ///
    /// * `share` - of shape `[1]`, on any device; `None` is all of it.
    /// * `flag` - of shape `[1]`, on any device.
    /// * `instead` - what is taken where the flag is true. What it has of other parameters is left out.
    ///
    /// # Panics
    ///
    /// If that misses a part, or has one of another shape.
    pub fn scaled_or(
        self,
        share: Option<Tensor<1>>,
        flag: Tensor<1, Bool>,
        instead: Instead<'_>,
    ) -> Self {
        assert!(
            self.iter().all(|part| instead.has(part.place())),
            "what is taken instead misses a parameter"
        );
        let (with, without): (Vec<Part>, Vec<Part>) = self.into_iter().partition(Part::has_kernels);
        let [mut with, without] = [with, without].map(Self::in_any_order);
        if !with.is_empty() {
            with = with.combined_or(share.clone(), flag.clone(), &instead);
        }
        match without.is_empty() {
            true => with,
            false => with.merged(without.chosen_portably(share, flag, instead)),
        }
    }

    /// As [`scaled_or`](Self::scaled_or), as a linear combination, in which what has a coefficient of 0 is not read.
    fn combined_or(
        self,
        share: Option<Tensor<1>>,
        flag: Tensor<1, Bool>,
        instead: &Instead<'_>,
    ) -> Self {
        let taken = flag.clone().float();
        let share = match share {
            Some(share) => {
                let flag = flag.clone().to_device(&share.device());
                share.mask_fill(flag, 0.0)
            }
            None => 1.0 - taken.clone(),
        };
        match instead {
            Instead::Vector(vector) => self.combine(share, &[(vector, taken)]),
            Instead::Way { from, to, times } => {
                let not_taken = flag.bool_not().to_device(&times.device());
                let times = times.clone().mask_fill(not_taken, 0.0);
                let back = times.clone().neg();
                self.combine(share, &[(to, times), (from, back)])
            }
        }
    }

    /// As [`scaled_or`](Self::scaled_or), a tensor at a time.
    fn chosen_portably(
        self,
        share: Option<Tensor<1>>,
        flag: Tensor<1, Bool>,
        instead: Instead<'_>,
    ) -> Self {
        let number = |value, parts: &Self| Number::new(value, parts.iter().map(|part| (part, 1.0)));
        let share = share.map(|share| number(share, &self));
        let flag = Choice::new(flag, self.iter());
        let is_here = |place| self.get(place).is_some();
        let instead: Box<dyn Iterator<Item = Part>> = match instead {
            Instead::Vector(vector) => Box::new(vector.clone().filtered(is_here).into_iter()),
            Instead::Way { from, to, times } => {
                let to = to.filtered(is_here);
                let times = number(times, &to);
                Box::new(to.into_iter().map(move |to| {
                    let from = from.like(&to).expect("where it begins").into_owned();
                    from.portable_way(to, &times)
                }))
            }
        };
        let chosen = self.into_iter().zip(instead).map(|(a, instead)| {
            let instead = instead.moved(a.device(), a.dtype());
            match &share {
                Some(share) => a.portable_scaled(share),
                None => a,
            }
            .portable_choice(&flag, instead)
        });
        chosen.collect()
    }
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
        Coefficients::Values(mut values) if values.len() == 1 => {
            let x = number(values.remove(0));
            let rows = rows.into_iter();
            rows.map(|(a, _)| a.portable_scaled(&x)).collect()
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
