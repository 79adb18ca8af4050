//! Linear combinations of vectors, and choices between them.

use std::borrow::Cow;

use burn::tensor::Tensor;

use crate::formula::work_out;
use crate::kernels;
use crate::number::{Flag, Number, stack};
use crate::operation::Update;
use crate::part::Part;
use crate::portable::accumulation_dtype;
use crate::shared::{Choice, Factor, Mask};
use crate::vector::{Row, Vector, by_device, lists};

/// What takes a vector's place.
pub enum Instead<'a> {
    /// Another vector.
    Vector(&'a Vector),
    /// So many times the way from one vector to another.
    Way {
        /// Where it begins.
        from: &'a Vector,
        /// Where it ends.
        to: Vector,
        /// How many times.
        times: Number,
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
    /// * `x` - what this vector is multiplied by: a [`Number`], or an f64.
    /// * `others` - none, one or two other vectors, each with its coefficient.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape, or the others are more than two.
    pub fn combine<C: Into<Number> + Clone>(self, x: C, others: &[(&Self, C)]) -> Self {
        assert!(
            others.len() <= 2,
            "a combination is with at most two other vectors"
        );
        let coefficients = others.iter().map(|(_, coefficient)| coefficient.clone());
        let coefficients: Vec<Number> = ([x].into_iter().chain(coefficients))
            .map(Into::into)
            .collect();
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
            let scalars = |wide| stack(coefficients.clone(), &device, wide);
            combined.extend(kernels::update(&read, write, scalars, Update::Combine));
        }
        combined.extend(combined_portably(without, coefficients));
        Self::in_any_order(combined)
    }

    /// x v, of an x that is not 0 or a v that is finite.
    pub fn scaled(self, x: impl Into<Number>) -> Self {
        self.combine(x.into(), &[])
    }

    /// So much of this vector, or, where a flag is true, something else. That is decided on the device. What is not taken
    /// may hold anything.
    ///
    /// # Arguments
    ///
    /// * `share` - how much; `None` is all of it.
    /// * `flag` - whether something else is taken.
    /// * `instead` - what is taken where the flag is true. What it has of other parameters is left out.
    ///
    /// # Panics
    ///
    /// If that misses a part, or has one of another shape.
    pub fn scaled_or(self, share: Option<Number>, flag: Flag, instead: Instead<'_>) -> Self {
        assert!(
            self.iter().all(|part| instead.has(part.place())),
            "what is taken instead misses a parameter"
        );
        let (with, without): (Vec<Part>, Vec<Part>) = self.into_iter().partition(Part::has_kernels);
        let [mut with, without] = [with, without].map(Self::in_any_order);
        if !with.is_empty() {
            with = with.combined_or(share.clone(), &flag, &instead);
        }
        match without.is_empty() {
            true => with,
            false => with.merged(without.chosen_portably(share, flag, instead)),
        }
    }

    /// As [`scaled_or`](Self::scaled_or), as a linear combination, in which what has a coefficient of 0 is not read.
    fn combined_or(self, share: Option<Number>, flag: &Flag, instead: &Instead<'_>) -> Self {
        let share = share.unwrap_or(1.0.into()).or_if(flag, 0.0);
        let taken = |times: &Number| Number::from(0.0).or_if(flag, times);
        match instead {
            Instead::Vector(vector) => self.combine(share, &[(vector, taken(&1.0.into()))]),
            Instead::Way { from, to, times } => {
                let times = taken(times);
                let back = -times.clone();
                self.combine(share, &[(to, times), (from, back)])
            }
        }
    }

    /// As [`scaled_or`](Self::scaled_or), a tensor at a time.
    fn chosen_portably(self, share: Option<Number>, flag: Flag, instead: Instead<'_>) -> Self {
        let Some(first) = self.iter().next() else {
            return self;
        };
        let (device, wide) = (first.device(), accumulation_dtype([first.dtype()]));
        let times = match &instead {
            Instead::Vector(_) => None,
            Instead::Way { times, .. } => Some(times.clone().into_value()),
        };
        let is_shared = share.is_some();
        let share = share.map(Number::into_value);
        let all = [flag.into_value()].into_iter().chain(share).chain(times);
        let mut worked = work_out(all.collect()).into_iter();
        let flag = worked.next().expect("the flag").flag(device);
        let mut number = |parts: &Self| {
            let number = worked.next().expect("a number").number(device, wide);
            Factor::new(number, parts.iter().map(|part| (part, 1.0)))
        };
        let share = is_shared.then(|| number(&self));
        let flag = Choice::new(flag, self.iter());
        let is_here = |place| self.get(place).is_some();
        let instead: Box<dyn Iterator<Item = Part>> = match instead {
            Instead::Vector(vector) => Box::new(vector.clone().filtered(is_here).into_iter()),
            Instead::Way { from, to, .. } => {
                let to = to.filtered(is_here);
                let times = number(&to);
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
fn combined_portably(rows: Vec<Row<'_, Part>>, coefficients: Vec<Number>) -> Vec<Part> {
    let Some((first, _)) = rows.first() else {
        return Vec::new();
    };
    let owned = |others: [Option<Cow<'_, Part>>; 2]| -> Vec<Part> {
        others.into_iter().flatten().map(Cow::into_owned).collect()
    };
    if let Some(numbers) = coefficients
        .iter()
        .map(Number::host)
        .collect::<Option<Vec<_>>>()
    {
        let rows = rows.into_iter();
        return rows
            .map(|(a, others)| a.portable_weighted(owned(others), &numbers))
            .collect();
    }
    let (device, wide) = (first.device(), accumulation_dtype([first.dtype()]));
    let parts = || rows.iter().map(|(a, _)| a);
    let factor = |value: Tensor<1>| Factor::new(value, parts().map(|part| (part, 1.0)));
    let values = work_out(coefficients.into_iter().map(Number::into_value).collect());
    let mut values: Vec<Tensor<1>> = (values.into_iter())
        .map(|value| value.number(device, wide))
        .collect();
    if values.len() == 1 {
        let x = factor(values.remove(0));
        let rows = rows.into_iter();
        return rows.map(|(a, _)| a.portable_scaled(&x)).collect();
    }
    let coefficients: Vec<(Factor, Mask)> = (values.into_iter())
        .map(|value| {
            let is_zero = Mask::new(value.clone().equal_elem(0.0), parts());
            (factor(value), is_zero)
        })
        .collect();
    (rows.into_iter())
        .map(|(a, others)| a.portable_sum(owned(others), &coefficients))
        .collect()
}
