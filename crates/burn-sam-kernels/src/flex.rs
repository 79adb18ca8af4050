//! Burn's CPU backend: on the tensors' own storage, in place where nothing else holds it.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, FloatDType, TensorData, bf16, f16};

use crate::backend::{AscentBackend, Floats};
use crate::cpu;
use crate::portable::accumulation_dtype;

type Tensor = FloatTensor<Flex>;

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
            DType::F16 => {
                type $element = f16;
                $body
            }
            DType::BF16 => {
                type $element = bf16;
                $body
            }
            dtype => unreachable!("no kernel for {dtype:?}"),
        }
    };
}

impl AscentBackend for Flex {
    fn sum_of_squares(weights: Floats<Self>, grads: Floats<Self>, eta: Option<f64>) -> Tensor {
        let wide = accumulation_dtype(grads.0.iter().map(Tensor::dtype));
        let grads: Vec<Tensor> = grads.0.into_iter().map(contiguous).collect();
        let weights: Vec<Tensor> = weights.0.into_iter().map(contiguous).collect();
        let mut pieces = Vec::new();
        for (index, grad) in grads.iter().enumerate() {
            by_type!(grad.dtype(), E => {
                let weight = weights.get(index).map(|weight| weight.as_slice().expect("contiguous"));
                let grad = grad.as_slice::<E>().expect("contiguous");
                pieces.extend(cpu::sum_of_squares(grad, weight.zip(eta)));
            });
        }
        let sum: f64 = cpu::run(pieces).into_iter().sum();
        Tensor::from_data(match wide {
            FloatDType::F64 => TensorData::from([sum]),
            _ => TensorData::from([sum as f32]),
        })
    }

    fn perturb(
        weights: Floats<Self>,
        grads: Floats<Self>,
        squared_norm: Tensor,
        rhos: Vec<f64>,
        eps: f64,
        eta: Option<f64>,
    ) -> Floats<Self> {
        let squared_norm = squared_norm.into_data().iter::<f64>().next();
        let squared_norm = squared_norm.expect("a sum has one element");
        let weights: Vec<Tensor> = weights.0.into_iter().map(contiguous).collect();
        let mut climbed: Vec<Tensor> = grads.0.into_iter().map(contiguous).collect();
        let mut pieces = Vec::new();
        for ((weight, climbed), rho) in weights.iter().zip(&mut climbed).zip(rhos) {
            let Some(factor) = cpu::factor(squared_norm, eps, rho) else {
                *climbed = weight.clone();
                continue;
            };
            let (start, end) = climbed.layout().contiguous_offsets().expect("contiguous");
            by_type!(weight.dtype(), E => {
                let weight = weight.as_slice::<E>().expect("contiguous");
                let grad = &mut climbed.storage_mut()[start..end];
                pieces.extend(cpu::perturb(weight, grad, factor, eta));
            });
        }
        cpu::run(pieces);
        Floats(climbed)
    }
}

fn contiguous(tensor: Tensor) -> Tensor {
    match tensor.is_contiguous() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}
