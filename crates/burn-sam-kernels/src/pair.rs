use burn::backend::DispatchTensor;
use burn::tensor::{DType, Device, Tensor};

use crate::parameter::has_kernels;
use crate::portable;

/// Two tensors of one shape, or three: a parameter's gradients at two places, say.
pub struct Pair {
    a: DispatchTensor,
    b: DispatchTensor,
    c: Option<DispatchTensor>,
    /// Of all tensors.
    device: Device,
    dtype: DType,
    /// The portable operations for its rank.
    inner_products: fn(&Pair) -> [Tensor<1>; 3],
    combine: fn(Pair, &[Tensor<1>]) -> DispatchTensor,
}

/// What has been made of a [`Pair`].
pub struct Combined(DispatchTensor);

impl Combined {
    /// The value, of a's shape, type and device. `D` is the rank of the pair.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_dispatch(self.0)
    }
}

impl Pair {
    /// A pair.
    ///
    /// # Arguments
    ///
    /// * `a` - of any shape, without autodiff. Where nothing else holds its memory, what is made of the
    ///   pair is written into it.
    /// * `b` - of the same shape; it is moved to a's device and cast to its type.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn new<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Self {
        let (device, dtype) = (a.device(), a.dtype());
        let b = beside(&a, b);
        Self {
            a: a.into_dispatch(),
            b: b.into_dispatch(),
            c: None,
            device,
            dtype,
            inner_products: |pair| {
                let a = Tensor::<D>::from_dispatch(pair.a.clone());
                let b = Tensor::<D>::from_dispatch(pair.b.clone());
                [
                    portable::inner_product(a.clone(), a.clone()),
                    portable::inner_product(a, b.clone()),
                    portable::inner_product(b.clone(), b),
                ]
            },
            combine: |pair, coefficients| {
                let others = [Some(pair.b), pair.c].into_iter().flatten();
                let others: Vec<Tensor<D>> = others.map(Tensor::from_dispatch).collect();
                let a = Tensor::<D>::from_dispatch(pair.a);
                portable::combine(a, &others, coefficients).into_dispatch()
            },
        }
    }

    /// With a third tensor c, of the same shape; it is moved to a's device and cast to its type.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn and<const D: usize>(self, c: Tensor<D>) -> Self {
        let a = Tensor::<D>::from_dispatch(self.a.clone());
        let c = Some(beside(&a, c).into_dispatch());
        Self { c, ..self }
    }

    fn has_kernels(&self) -> bool {
        has_kernels(&self.device, self.dtype)
    }
}

fn beside<const D: usize>(a: &Tensor<D>, other: Tensor<D>) -> Tensor<D> {
    assert_eq!(a.shape(), other.shape(), "a pair must have one shape");
    other.to_device(&a.device()).cast(a.dtype())
}

/// The inner products <a, a>, <a, b> and <b, b> over all pairs, each of shape `[1]`; `None` of no pairs.
///
/// The pairs may be on several devices. The sums are f64 if any tensor is, and f32 otherwise.
pub fn inner_products(pairs: &[Pair]) -> Option<[Tensor<1>; 3]> {
    let (with_kernels, without): (Vec<&Pair>, Vec<&Pair>) =
        pairs.iter().partition(|pair| pair.has_kernels());
    let mut products = kernels::inner_products(with_kernels);
    products.extend(without.into_iter().map(|pair| (pair.inner_products)(pair)));
    let [mut aa, mut ab, mut bb] = [Vec::new(), Vec::new(), Vec::new()];
    for [a, b, c] in products {
        aa.push(a);
        ab.push(b);
        bb.push(c);
    }
    Some([
        portable::total(aa)?,
        portable::total(ab)?,
        portable::total(bb)?,
    ])
}

/// The linear combination x a + y b, or x a + y b + z c, of each pair, in the order given.
///
/// A tensor whose coefficient is 0 is not read, and may hold anything: with 1 and 0, a stays as it is,
/// bit for bit, whatever is not finite in b. That is decided on the device.
///
/// # Arguments
///
/// * `pairs` - the pairs, all of two tensors or all of three.
/// * `coefficients` - x and y, or x, y and z, of shape `[1]`, on any device.
///
/// # Panics
///
/// If a pair has not as many tensors as there are coefficients.
pub fn combine(pairs: Vec<Pair>, coefficients: &[Tensor<1>]) -> Vec<Combined> {
    for pair in &pairs {
        let tensors = 2 + usize::from(pair.c.is_some());
        assert_eq!(tensors, coefficients.len(), "a coefficient for each tensor");
    }
    let mut combined: Vec<Option<Combined>> = pairs.iter().map(|_| None).collect();
    let mut with_kernels = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.into_iter().enumerate() {
        match pair.has_kernels() {
            true => with_kernels.push((index, pair)),
            false => combined[index] = Some(Combined((pair.combine)(pair, coefficients))),
        }
    }
    for (index, tensor) in kernels::combine(with_kernels, coefficients) {
        combined[index] = Some(Combined(tensor));
    }
    let all: Option<Vec<Combined>> = combined.into_iter().collect();
    all.expect("each pair took one of the two ways")
}

/// The backends' own kernels, with all of a device's pairs at once.
#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
mod kernels {
    use burn::backend::{Dispatch, DispatchTensor};
    use burn::tensor::Tensor;

    use super::Pair;
    use crate::backend::{Floats, ListBackend, Reduction, Update};
    use crate::parameter::{by_device, scalars};

    pub(super) fn inner_products(pairs: Vec<&Pair>) -> Vec<[Tensor<1>; 3]> {
        by_device(pairs, |pair| &pair.device)
            .into_iter()
            .map(|(_, pairs)| {
                let a = Floats(pairs.iter().map(|pair| pair.a.clone()).collect());
                let b = Floats(pairs.iter().map(|pair| pair.b.clone()).collect());
                let products = Dispatch::reduce(a, b, Reduction::InnerProducts);
                let products = Tensor::<1>::from_dispatch(products);
                [0, 1, 2].map(|index| products.clone().narrow(0, index, 1))
            })
            .collect()
    }

    pub(super) fn combine(
        pairs: Vec<(usize, Pair)>,
        coefficients: &[Tensor<1>],
    ) -> Vec<(usize, DispatchTensor)> {
        let mut combined = Vec::new();
        for (device, pairs) in by_device(pairs, |(_, pair)| &pair.device) {
            let dtypes = pairs.iter().map(|(_, pair)| pair.dtype);
            let coefficients = scalars(coefficients, dtypes, &device);
            let mut indices = Vec::with_capacity(pairs.len());
            let [mut a, mut b, mut c] = [Vec::new(), Vec::new(), Vec::new()];
            for (index, pair) in pairs {
                indices.push(index);
                a.push(pair.a);
                b.push(pair.b);
                c.extend(pair.c);
            }
            b.append(&mut c);
            let Floats(tensors) =
                Dispatch::update(Floats(b), Floats(a), coefficients, Update::Combine);
            combined.extend(indices.into_iter().zip(tensors));
        }
        combined
    }
}

#[cfg(not(any(feature = "cube", feature = "flex", feature = "ndarray")))]
mod kernels {
    use burn::backend::DispatchTensor;
    use burn::tensor::Tensor;

    use super::Pair;

    pub(super) fn inner_products(_: Vec<&Pair>) -> Vec<[Tensor<1>; 3]> {
        Vec::new()
    }

    pub(super) fn combine(_: Vec<(usize, Pair)>, _: &[Tensor<1>]) -> Vec<(usize, DispatchTensor)> {
        Vec::new()
    }
}
