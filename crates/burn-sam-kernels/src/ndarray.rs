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
        let grads: Vec<NdArrayTensor> = grads.0.into_iter().map(contiguous).collect();
        let weights: Vec<NdArrayTensor> = weights.0.into_iter().map(contiguous).collect();
        let mut pieces = Vec::new();
        for (index, grad) in grads.iter().enumerate() {
            by_type!(grad.dtype(), E => {
                let weight = weights.get(index).map(E::slice);
                pieces.extend(cpu::sum_of_squares(E::slice(grad), weight.zip(eta)));
            });
        }
        let sum: f64 = cpu::run(pieces).into_iter().sum();
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
        let squared_norm = contiguous(squared_norm);
        let squared_norm = by_type!(squared_norm.dtype(), E => first::<E>(&squared_norm));
        let weights: Vec<NdArrayTensor> = weights.0.into_iter().map(contiguous).collect();
        let mut climbed: Vec<NdArrayTensor> = grads.0.into_iter().map(contiguous).collect();
        let mut pieces = Vec::new();
        for ((weight, climbed), rho) in weights.iter().zip(&mut climbed).zip(rhos) {
            let Some(factor) = cpu::factor(squared_norm, eps, rho) else {
                *climbed = weight.clone();
                continue;
            };
            by_type!(weight.dtype(), E => {
                let grad = E::array(climbed).as_slice_mut().expect("contiguous");
                pieces.extend(cpu::perturb(E::slice(weight), grad, factor, eta));
            });
        }
        cpu::run(pieces);
        Floats(climbed)
    }
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

fn first<E: Stored>(tensor: &NdArrayTensor) -> f64 {
    E::slice(tensor)[0].widen().into()
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
