use std::borrow::Cow;

use burn::tensor::{Device, Tensor};

use crate::internals::WITHOUT_KERNELS;
use crate::part::Part;

/// A vector of the weights' size: a tensor for each of some parameters, which are told apart by their places in the
/// module's order. Its parts may be of any ranks and types, and on several devices.
///
/// A clone is another handle on the same memory. Where nothing else holds a part's memory, what is made of it is
/// written into it.
#[derive(Clone, Debug, Default)]
pub struct Vector(Vec<Part>);

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

    /// The other part of a part's parameter, on its device and in its type.
    pub(crate) fn like(&self, part: &Part) -> Option<Cow<'_, Part>> {
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

/// The values of a tensor, if they can be had without waiting for a device: on the CPU backends that have kernels here.
pub fn known(values: &Tensor<1>) -> Option<Vec<f64>> {
    if WITHOUT_KERNELS.get() {
        return None;
    }
    #[allow(unreachable_patterns)]
    let waits_for_nothing = match values.device().as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        burn::backend::DispatchDevice::NdArray(_) => true,
        _ => false,
    };
    waits_for_nothing.then(|| values.clone().into_data().iter().collect())
}
