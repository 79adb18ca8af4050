//! Vectors of the weights' size, on the way to the host: directions, gradients, products with the Hessian.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use burn_sam_kernels::{self as kernels, Number, Part};
use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::StandardNormal;

use crate::step::{Leaf, each_parameter, each_with_path, replace};

/// A part for each trainable parameter: its elements in their order, in f64 or f32.
#[derive(Clone)]
pub(super) struct Vector(kernels::Vector);

impl Vector {
    pub(super) fn dot(&self, other: &Self) -> f64 {
        let products = self.0.products(&other.0);
        read(products.map(|[_, product, _]| product))
    }

    pub(super) fn norm(&self) -> f64 {
        read(self.0.squared_norm()).sqrt()
    }

    /// This vector and `factor` times the other.
    pub(super) fn plus(self, other: &Self, factor: f64) -> Self {
        Self(self.0.combine(1.0, &[(&other.0, factor)]))
    }

    pub(super) fn scaled(self, factor: f64) -> Self {
        Self(self.0.scaled(factor))
    }
}

/// The parameters that require gradients, in the module's order. One that the module holds twice is told by its first
/// place.
pub(super) struct Trainable {
    places: Vec<usize>,
    weights: usize,
    step: f64,
}

impl Trainable {
    pub(super) fn of<M: Module>(module: &M) -> Self {
        let (mut found, mut exact) = (kernels::Vector::new(), true);
        each_parameter(module, |leaf| {
            let weight = leaf.weight();
            exact &= weight.dtype() == DType::F64;
            found.push(weight);
        });
        // Halfway, in digits, between the rounding of the gradients and the curve between them.
        let precision = match exact {
            true => f64::EPSILON,
            false => f64::from(f32::EPSILON),
        };
        let norm = read(found.squared_norm()).sqrt();
        Self {
            places: found.iter().map(Part::place).collect(),
            weights: found.iter().map(|part| part.shape().num_elements()).sum(),
            step: precision.cbrt() * (1.0 + norm),
        }
    }

    /// The number of weights.
    pub(super) fn len(&self) -> usize {
        self.weights
    }

    /// How far to go for a difference of gradients.
    pub(super) fn step(&self) -> f64 {
        self.step
    }

    /// What `f` makes of each of the parameters.
    fn parts<M: Module>(
        &self,
        module: &M,
        mut f: impl FnMut(&Leaf<'_>, Part) -> Part,
    ) -> kernels::Vector {
        let mut parts = kernels::Vector::with_capacity(self.places.len());
        each_with_path(module, |leaf| {
            if self.places.binary_search(&leaf.place()).is_ok() {
                parts.push(f(&leaf, leaf.weight()));
            }
        });
        parts
    }

    /// A direction of independent normal values times `sign`, divided by ASAM's T if there is an eta, in the
    /// parameters' shapes and types.
    pub(super) fn normal<M: Module>(
        &self,
        module: &M,
        rng: &mut StdRng,
        eta: Option<f64>,
        sign: f64,
    ) -> kernels::Vector {
        self.parts(module, |_, weight| {
            let dtype = weight.dtype();
            let mut value = || sign * rng.sample::<f64, _>(StandardNormal);
            let values = draw(&weight, &mut value, dtype);
            let values = match eta {
                None => values,
                Some(eta) => {
                    // Where T is 0, nothing moves.
                    let t = weight.clone().flat().abs().add_scalar(eta);
                    let still = t.clone().equal_elem(0.0);
                    (values / t).mask_fill(still, 0.0)
                }
            };
            weight.shaped(values)
        })
    }

    /// A vector of 1 and -1, each as likely.
    pub(super) fn signs<M: Module>(&self, module: &M, rng: &mut StdRng) -> Vector {
        Vector(self.parts(module, |leaf, weight| {
            let mut sign = || if rng.random::<bool>() { 1.0 } else { -1.0 };
            flat(leaf, draw(&weight, &mut sign, wide(weight.dtype())))
        }))
    }

    /// A random vector whose filters are as long as the module's: nothing if there is no filter.
    pub(super) fn filters<M: Module>(&self, module: &M, rng: &mut StdRng) -> Option<Vector> {
        let mut found = false;
        let filters = self.parts(module, |leaf, weight| {
            let dtype = wide(weight.dtype());
            flat(
                leaf,
                match leaf.filter_dim() {
                    None => weight.flat().zeros_like().cast(dtype),
                    Some(dim) => {
                        found = true;
                        let mut value = || rng.sample::<f64, _>(StandardNormal);
                        let values = draw(&weight, &mut value, dtype);
                        weight.filters_like(values, dim)
                    }
                },
            )
        });
        found.then_some(Vector(filters))
    }

    /// The vector from the module's weights to the other's, or the path of a parameter that the other
    /// does not have in the same shape.
    pub(super) fn towards<M: Module>(&self, module: &M, other: &M) -> Result<Vector, String> {
        let mut there: HashMap<String, (Shape, Tensor<1>)> = HashMap::new();
        each_with_path(other, |leaf| {
            let weight = leaf.weight();
            let dtype = wide(weight.dtype());
            there.insert(leaf.path(), (weight.shape(), weight.flat().cast(dtype)));
        });
        let mut missing = None;
        let way = self.parts(module, |leaf, weight| {
            let (shape, dtype) = (weight.shape(), wide(weight.dtype()));
            let here = weight.flat().cast(dtype);
            let path = leaf.path();
            flat(
                leaf,
                match there.remove(&path) {
                    Some((other, there)) if other == shape => {
                        there.to_device(&here.device()).cast(dtype) - here
                    }
                    _ => {
                        missing.get_or_insert(path);
                        here
                    }
                },
            )
        });
        match missing {
            None => Ok(Vector(way)),
            Some(path) => Err(path),
        }
    }

    /// The gradients as a vector: 0 where there is none.
    pub(super) fn flatten<M: Module>(&self, module: &M, grads: kernels::Vector) -> Vector {
        Vector(self.parts(module, |leaf, weight| {
            let dtype = wide(weight.dtype());
            let values = match grads.get(leaf.place()) {
                Some(grad) => grad.clone().flat(),
                None => weight.flat().zeros_like(),
            };
            flat(leaf, values.cast(dtype))
        }))
    }

    /// The module at w + factor v.
    pub(super) fn displace<M: Module>(&self, module: M, vector: &Vector, factor: f64) -> M {
        let displaced = self.parts(&module, |leaf, weight| {
            let part = vector.0.get(leaf.place()).expect("a part of each");
            let way = part.clone().flat() * factor;
            let moved = weight.clone().flat().cast(way.dtype()) + way;
            weight.shaped(moved.cast(weight.dtype()))
        });
        replace(module, displaced)
    }
}

/// Values of a parameter in their order.
fn flat(leaf: &Leaf<'_>, values: Tensor<1>) -> Part {
    Part::new(leaf.place(), values)
}

/// The type that a weight's part of a vector is computed in.
fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// Whether all gradients are finite.
pub(super) fn are_finite(grads: &kernels::Vector) -> bool {
    read(grads.squared_norm()).is_finite()
}

/// As many values as a part has, in their order.
fn draw(like: &Part, value: &mut impl FnMut() -> f64, dtype: DType) -> Tensor<1> {
    let len = like.shape().num_elements();
    let values: Vec<f64> = (0..len).map(|_| value()).collect();
    let device: &Device = like.device();
    Tensor::from_data(TensorData::new(values, [len]), (device, dtype))
}

/// The value of a sum, which is 0 of nothing.
fn read(sum: Option<Number>) -> f64 {
    sum.map_or(0.0, |sum| sum.read())
}
