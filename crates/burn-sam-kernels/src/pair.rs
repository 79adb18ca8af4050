use burn::backend::DispatchTensor;
use burn::tensor::{Bool, DType, Device, Tensor};

use crate::portable;

/// Two tensors of one shape: a parameter's gradients at two places, say.
pub struct Pair {
    a: DispatchTensor,
    b: DispatchTensor,
    /// Of both tensors.
    device: Device,
    dtype: DType,
    /// The portable operations for its rank.
    inner_products: fn(&Pair) -> [Tensor<1>; 3],
    combine: fn(Pair, &[Tensor<1>; 2], &Tensor<1, Bool>) -> DispatchTensor,
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
        assert_eq!(a.shape(), b.shape(), "a pair must have one shape");
        let (device, dtype) = (a.device(), a.dtype());
        let b = b.to_device(&device).cast(dtype);
        Self {
            a: a.into_dispatch(),
            b: b.into_dispatch(),
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
            combine: |pair, coefficients, refused| {
                let a = Tensor::<D>::from_dispatch(pair.a);
                let b = Tensor::<D>::from_dispatch(pair.b);
                portable::combine(a, b, coefficients, refused).into_dispatch()
            },
        }
    }

    fn has_kernels(&self) -> bool {
        has_kernels(&self.device, self.dtype)
    }
}

/// Whether the backend has kernels of its own for pairs: the CPU ones have.
#[allow(unused_variables)] // `dtype`, where neither is there.
pub(crate) fn has_kernels(device: &Device, dtype: DType) -> bool {
    #[allow(unreachable_patterns)]
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(_) => crate::parameter::has_kernels(device, dtype),
        #[cfg(feature = "ndarray")]
        burn::backend::DispatchDevice::NdArray(_) => crate::parameter::has_kernels(device, dtype),
        _ => false,
    }
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

/// The linear combination x a + y b of each pair, in the order given; a alone where `refused` is true,
/// whatever b and the coefficients hold.
///
/// # Arguments
///
/// * `pairs` - the pairs.
/// * `coefficients` - x and y, of shape `[1]`, on any device.
/// * `refused` - of shape `[1]`, on any device.
pub fn combine(
    pairs: Vec<Pair>,
    coefficients: &[Tensor<1>; 2],
    refused: &Tensor<1, Bool>,
) -> Vec<Combined> {
    let mut combined: Vec<Option<Combined>> = pairs.iter().map(|_| None).collect();
    let mut with_kernels = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.into_iter().enumerate() {
        match pair.has_kernels() {
            true => with_kernels.push((index, pair)),
            false => {
                let tensor = (pair.combine)(pair, coefficients, refused);
                combined[index] = Some(Combined(tensor));
            }
        }
    }
    for (index, tensor) in kernels::combine(with_kernels, coefficients, refused) {
        combined[index] = Some(Combined(tensor));
    }
    let all: Option<Vec<Combined>> = combined.into_iter().collect();
    all.expect("each pair took one of the two ways")
}

/// The backends' own kernels, with all of a device's pairs at once.
#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
mod kernels {
    use burn::backend::{Dispatch, DispatchTensor};
    use burn::tensor::{Bool, Tensor};

    use super::Pair;
    use crate::backend::{CombinationBackend, Floats};
    use crate::parameter::by_device;
    use crate::portable;

    pub(super) fn inner_products(pairs: Vec<&Pair>) -> Vec<[Tensor<1>; 3]> {
        by_device(pairs, |pair| &pair.device)
            .into_iter()
            .map(|(_, pairs)| {
                let a = Floats(pairs.iter().map(|pair| pair.a.clone()).collect());
                let b = Floats(pairs.iter().map(|pair| pair.b.clone()).collect());
                let products = Tensor::<1>::from_dispatch(Dispatch::inner_products(a, b));
                [0, 1, 2].map(|index| products.clone().narrow(0, index, 1))
            })
            .collect()
    }

    pub(super) fn combine(
        pairs: Vec<(usize, Pair)>,
        [x, y]: &[Tensor<1>; 2],
        refused: &Tensor<1, Bool>,
    ) -> Vec<(usize, DispatchTensor)> {
        let mut combined = Vec::new();
        for (device, pairs) in by_device(pairs, |(_, pair)| &pair.device) {
            let wide = portable::accumulation_dtype(pairs.iter().map(|(_, pair)| pair.dtype));
            let refused = refused.clone().float().cast(wide).to_device(&device);
            let [x, y] = [x, y].map(|c| c.clone().cast(wide).to_device(&device));
            let coefficients = Tensor::cat(vec![x, y, refused], 0).into_dispatch();
            let mut indices = Vec::with_capacity(pairs.len());
            let [mut a, mut b] = [Vec::new(), Vec::new()];
            for (index, pair) in pairs {
                indices.push(index);
                a.push(pair.a);
                b.push(pair.b);
            }
            let Floats(tensors) = Dispatch::combine(Floats(a), Floats(b), coefficients);
            combined.extend(indices.into_iter().zip(tensors));
        }
        combined
    }
}

#[cfg(not(any(feature = "cube", feature = "flex", feature = "ndarray")))]
mod kernels {
    use burn::backend::DispatchTensor;
    use burn::tensor::{Bool, Tensor};

    use super::Pair;

    pub(super) fn inner_products(_: Vec<&Pair>) -> Vec<[Tensor<1>; 3]> {
        Vec::new()
    }

    pub(super) fn combine(
        _: Vec<(usize, Pair)>,
        _: &[Tensor<1>; 2],
        _: &Tensor<1, Bool>,
    ) -> Vec<(usize, DispatchTensor)> {
        Vec::new()
    }
}
