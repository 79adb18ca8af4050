//! Burn's CPU backend: on the tensors' own storage, in place where nothing else holds it.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, FloatDType, TensorData, bf16, f16};

use crate::backend::{AscentBackend, CombinationBackend, Floats};
use crate::cpu::{self, Keep, Reduction, Update};
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
        let (sums, wide) = reduce(&cpu::SumOfSquares { eta }, grads, weights);
        as_tensor([sums.into_iter().sum()], wide)
    }

    fn perturb(
        weights: Floats<Self>,
        grads: Floats<Self>,
        squared_norm: Tensor,
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

impl CombinationBackend for Flex {
    fn inner_products(a: Floats<Self>, b: Floats<Self>) -> Tensor {
        let (products, wide) = reduce(&cpu::InnerProducts, a, b);
        as_tensor(cpu::total(products), wide)
    }

    fn squared_distance(a: Floats<Self>, b: Floats<Self>) -> Tensor {
        let (sums, wide) = reduce(&cpu::SquaredDistance, a, b);
        as_tensor([sums.into_iter().sum()], wide)
    }

    fn extrapolate(
        weights: Floats<Self>,
        before: Floats<Self>,
        squared_norm: Tensor,
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

    fn combine(a: Floats<Self>, b: Floats<Self>, coefficients: Tensor) -> Floats<Self> {
        update(&cpu::Combine::new(&values(coefficients)), b, a)
    }
}

/// The sums of all pieces, and the type of their total.
fn reduce<R: Reduction>(
    reduction: &R,
    read: Floats<Flex>,
    other: Floats<Flex>,
) -> (Vec<R::Sum>, FloatDType) {
    let wide = accumulation_dtype(read.0.iter().chain(&other.0).map(Tensor::dtype));
    let [read, other] = [read, other].map(all_contiguous);
    let mut pieces = Vec::new();
    for (index, read) in read.iter().enumerate() {
        by_type!(read.dtype(), E => {
            let other = other.get(index).map(|other| other.as_slice().expect("contiguous"));
            pieces.extend(reduction.pieces(read.as_slice::<E>().expect("contiguous"), other));
        });
    }
    (cpu::run(pieces), wide)
}

/// Writes over the second list, where nothing else holds its tensors.
fn update<U: Update>(update: &U, read: Floats<Flex>, write: Floats<Flex>) -> Floats<Flex> {
    let [read, mut write] = [read, write].map(all_contiguous);
    let mut pieces = Vec::new();
    for (index, (read, write)) in read.iter().zip(&mut write).enumerate() {
        match update.keeps(index) {
            Some(Keep::Read) => *write = read.clone(),
            Some(Keep::Written) => {}
            None => {
                let (start, end) = write.layout().contiguous_offsets().expect("contiguous");
                by_type!(read.dtype(), E => {
                    let read = read.as_slice::<E>().expect("contiguous");
                    pieces.extend(update.pieces(index, read, &mut write.storage_mut()[start..end]));
                });
            }
        }
    }
    cpu::run(pieces);
    Floats(write)
}

fn as_tensor<const N: usize>(values: [f64; N], wide: FloatDType) -> Tensor {
    Tensor::from_data(match wide {
        FloatDType::F64 => TensorData::from(values),
        _ => TensorData::from(values.map(|value| value as f32)),
    })
}

fn values(tensor: Tensor) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn all_contiguous(tensors: Floats<Flex>) -> Vec<Tensor> {
    tensors.0.into_iter().map(contiguous).collect()
}

fn contiguous(tensor: Tensor) -> Tensor {
    match tensor.is_contiguous() {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}
