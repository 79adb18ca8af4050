//! The CPU backend on the ndarray crate: on the arrays' own storage, in place where nothing else
//! holds it.

use burn::backend::ndarray::{NdArrayTensor, SharedArray};
use burn::backend::tensor::FloatTensor;
use burn::backend::{NdArray, TensorMetadata};
use burn::tensor::{DType, FloatDType};

use crate::backend::{AscentBackend, CombinationBackend, Floats};
use crate::cpu::{self, Element, Keep, Reduction, Update};
use crate::portable::accumulation_dtype;

macro_rules! by_type {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            DType::F64 => {
                type $element = f64;
                $body
            }
            DType::F32 => {
                type $element = f32;
                $body
            }
            dtype => unreachable!("no kernel for {dtype:?}"),
        }
    };
}

impl AscentBackend for NdArray {
    fn sum_of_squares(
        weights: Floats<Self>,
        grads: Floats<Self>,
        eta: Option<f64>,
    ) -> FloatTensor<Self> {
        let (sums, wide) = reduce(&cpu::SumOfSquares { eta }, grads, weights);
        as_tensor([sums.into_iter().sum()], wide)
    }

    fn perturb(
        weights: Floats<Self>,
        grads: Floats<Self>,
        squared_norm: FloatTensor<Self>,
        rhos: Vec<f64>,
        eps: f64,
        eta: Option<f64>,
    ) -> Floats<Self> {
        let perturb = cpu::Perturb {
            squared_norm: values(squared_norm)[0],
            eps,
            rhos,
            eta,
        };
        update(&perturb, weights, grads)
    }
}

impl CombinationBackend for NdArray {
    fn inner_products(a: Floats<Self>, b: Floats<Self>) -> FloatTensor<Self> {
        let (products, wide) = reduce(&cpu::InnerProducts, a, b);
        as_tensor(cpu::total(products), wide)
    }

    fn squared_distance(a: Floats<Self>, b: Floats<Self>) -> FloatTensor<Self> {
        let (sums, wide) = reduce(&cpu::SquaredDistance, a, b);
        as_tensor([sums.into_iter().sum()], wide)
    }

    fn extrapolate(
        weights: Floats<Self>,
        before: Floats<Self>,
        squared_norm: FloatTensor<Self>,
        rhos: Vec<f64>,
        eps: f64,
    ) -> Floats<Self> {
        let perturb = cpu::Perturb {
            squared_norm: values(squared_norm)[0],
            eps,
            rhos,
            eta: None,
        };
        update(&cpu::Extrapolate(perturb), weights, before)
    }

    fn combine(a: Floats<Self>, b: Floats<Self>, coefficients: FloatTensor<Self>) -> Floats<Self> {
        update(&cpu::Combine::new(&values(coefficients)), b, a)
    }
}

/// The sums of all pieces, and the type of their total.
fn reduce<R: Reduction>(
    reduction: &R,
    read: Floats<NdArray>,
    other: Floats<NdArray>,
) -> (Vec<R::Sum>, FloatDType) {
    let wide = accumulation_dtype(read.0.iter().chain(&other.0).map(NdArrayTensor::dtype));
    let [read, other] = [read, other].map(all_contiguous);
    let mut pieces = Vec::new();
    for (index, read) in read.iter().enumerate() {
        by_type!(read.dtype(), E => {
            pieces.extend(reduction.pieces(E::slice(read), other.get(index).map(E::slice)));
        });
    }
    (cpu::run(pieces), wide)
}

/// Writes over the second list, where nothing else holds its tensors.
fn update<U: Update>(update: &U, read: Floats<NdArray>, write: Floats<NdArray>) -> Floats<NdArray> {
    let [read, mut write] = [read, write].map(all_contiguous);
    let mut pieces = Vec::new();
    for (index, (read, write)) in read.iter().zip(&mut write).enumerate() {
        match update.keeps(index) {
            Some(Keep::Read) => *write = read.clone(),
            Some(Keep::Written) => {}
            None => by_type!(read.dtype(), E => {
                let write = E::array(write).as_slice_mut().expect("contiguous");
                pieces.extend(update.pieces(index, E::slice(read), write));
            }),
        }
    }
    cpu::run(pieces);
    Floats(write)
}

fn as_tensor<const N: usize>(values: [f64; N], wide: FloatDType) -> NdArrayTensor {
    match wide {
        FloatDType::F64 => SharedArray::from_shape_vec(vec![N], values.to_vec()).map(Into::into),
        _ => {
            let values = values.map(|value| value as f32).to_vec();
            SharedArray::from_shape_vec(vec![N], values).map(Into::into)
        }
    }
    .expect("as many values as the shape has")
}

fn values(tensor: NdArrayTensor) -> Vec<f64> {
    let tensor = contiguous(tensor);
    by_type!(tensor.dtype(), E => widened::<E>(&tensor))
}

fn widened<E: Stored>(tensor: &NdArrayTensor) -> Vec<f64> {
    let values = E::slice(tensor).iter();
    values.map(|value| value.widen().into()).collect()
}

fn all_contiguous(tensors: Floats<NdArray>) -> Vec<NdArrayTensor> {
    tensors.0.into_iter().map(contiguous).collect()
}

/// The tensor in standard layout.
fn contiguous(mut tensor: NdArrayTensor) -> NdArrayTensor {
    by_type!(tensor.dtype(), E => {
        let array = E::array(&mut tensor);
        if !array.is_standard_layout() {
            *array = array.as_standard_layout().into_owned().into_shared();
        }
    });
    tensor
}

/// The types that have kernels.
trait Stored: Element {
    /// The elements of a contiguous tensor.
    fn slice(tensor: &NdArrayTensor) -> &[Self];
    fn array(tensor: &mut NdArrayTensor) -> &mut SharedArray<Self>;
}

macro_rules! stored {
    ($element:ty, $variant:ident) => {
        impl Stored for $element {
            fn slice(tensor: &NdArrayTensor) -> &[Self] {
                match tensor {
                    NdArrayTensor::$variant(storage) => storage.view().to_slice(),
                    tensor => unreachable!("{:?}", tensor.dtype()),
                }
                .expect("contiguous")
            }

            fn array(tensor: &mut NdArrayTensor) -> &mut SharedArray<Self> {
                match tensor {
                    NdArrayTensor::$variant(storage) => storage.ensure_owned(),
                    tensor => unreachable!("{:?}", tensor.dtype()),
                }
            }
        }
    };
}

stored!(f64, F64);
stored!(f32, F32);
