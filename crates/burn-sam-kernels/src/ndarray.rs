//! The CPU backend on the ndarray crate: on the arrays' own storage, in place where nothing else
//! holds it.

use burn::backend::ndarray::{NdArrayTensor, SharedArray};
use burn::backend::tensor::FloatTensor;
use burn::backend::{NdArray, TensorMetadata};
use burn::tensor::{DType, FloatDType};

use crate::backend::{AscentBackend, Floats};
use crate::cpu::{self, Element};
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
        let wide = accumulation_dtype(grads.0.iter().map(NdArrayTensor::dtype));
        let mut weights = weights.0.into_iter();
        let mut sum = 0.0;
        for grad in grads.0 {
            sum += by_type!(grad.dtype(), E => {
                let (grad, weight) = (array::<E>(grad), weights.next().map(array::<E>));
                cpu::sum_of_squares(slice(&grad), weight.as_ref().map(slice).zip(eta))
            });
        }
        match wide {
            FloatDType::F64 => SharedArray::from_elem(vec![1], sum).into(),
            _ => SharedArray::from_elem(vec![1], sum as f32).into(),
        }
    }

    fn perturb(
        weights: Floats<Self>,
        grads: Floats<Self>,
        squared_norm: FloatTensor<Self>,
        rhos: Vec<f64>,
        eps: f64,
        eta: Option<f64>,
    ) -> Floats<Self> {
        let squared_norm = by_type!(squared_norm.dtype(), E => first::<E>(squared_norm));
        let climb = |((weight, grad), rho): ((NdArrayTensor, NdArrayTensor), f64)| {
            let Some(factor) = cpu::factor(squared_norm, eps, rho) else {
                return weight;
            };
            by_type!(weight.dtype(), E => {
                let (weight, mut climbed) = (array::<E>(weight), array::<E>(grad));
                cpu::perturb(
                    slice(&weight),
                    climbed.as_slice_mut().expect("contiguous"),
                    factor,
                    eta,
                );
                climbed.into()
            })
        };
        Floats(
            (weights.0.into_iter().zip(grads.0).zip(rhos))
                .map(climb)
                .collect(),
        )
    }
}

/// The array of a tensor of this type, in standard layout.
fn array<E: Stored>(tensor: NdArrayTensor) -> SharedArray<E> {
    let array = E::stored(tensor);
    match array.is_standard_layout() {
        true => array,
        false => array.as_standard_layout().into_owned().into_shared(),
    }
}

fn first<E: Stored>(tensor: NdArrayTensor) -> f64 {
    array::<E>(tensor)[[0]].widen().into()
}

fn slice<E>(array: &SharedArray<E>) -> &[E] {
    array.as_slice().expect("contiguous")
}

/// The types that have kernels.
trait Stored: Element {
    fn stored(tensor: NdArrayTensor) -> SharedArray<Self>;
}

impl Stored for f64 {
    fn stored(tensor: NdArrayTensor) -> SharedArray<f64> {
        match tensor {
            NdArrayTensor::F64(storage) => storage.into_shared(),
            tensor => unreachable!("{:?} instead of f64", tensor.dtype()),
        }
    }
}

impl Stored for f32 {
    fn stored(tensor: NdArrayTensor) -> SharedArray<f32> {
        match tensor {
            NdArrayTensor::F32(storage) => storage.into_shared(),
            tensor => unreachable!("{:?} instead of f32", tensor.dtype()),
        }
    }
}
