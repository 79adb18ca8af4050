//! Vectors of the weights' size: directions, gradients, products with the Hessian.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sam_kernels::portable::{sum_of_squares, total};
use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::StandardNormal;

use crate::step::in_place_of;

/// A part for each trainable parameter: its elements in their order, in f64 or f32.
#[derive(Clone)]
pub(super) struct Vector(Vec<Tensor<1>>);

impl Vector {
    pub(super) fn dot(&self, other: &Self) -> f64 {
        let products = self.0.iter().zip(&other.0);
        let sums = products.map(|(a, b)| (a.clone() * b.clone()).sum());
        read(total(sums.collect()))
    }

    pub(super) fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// This vector and `factor` times the other.
    pub(super) fn plus(self, other: &Self, factor: f64) -> Self {
        let pairs = self.0.into_iter().zip(&other.0);
        Self(pairs.map(|(a, b)| a + b.clone() * factor).collect())
    }

    pub(super) fn scaled(self, factor: f64) -> Self {
        Self(self.0.into_iter().map(|part| part * factor).collect())
    }
}

/// The parameters that require gradients, in the module's order. One that the module holds twice is
/// one.
pub(super) struct Trainable {
    indices: HashMap<ParamId, usize>,
    weights: usize,
    step: f64,
}

impl Trainable {
    pub(super) fn of<M: Module>(module: &M) -> Self {
        struct Find {
            indices: HashMap<ParamId, usize>,
            weights: usize,
            squares: Vec<Tensor<1>>,
            exact: bool,
        }

        impl ModuleVisitor for Find {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if !param.is_require_grad() || self.indices.contains_key(&param.id) {
                    return;
                }
                self.indices.insert(param.id, self.indices.len());
                let weight = param.val().inner();
                self.weights += weight.shape().num_elements();
                self.exact &= weight.dtype() == DType::F64;
                self.squares
                    .push(sum_of_squares(&weight, weight.clone(), None));
            }
        }

        let mut found = Find {
            indices: HashMap::new(),
            weights: 0,
            squares: Vec::new(),
            exact: true,
        };
        module.visit(&mut found);
        // Halfway, in digits, between the rounding of the gradients and the curve between them.
        let precision = match found.exact {
            true => f64::EPSILON,
            false => f64::from(f32::EPSILON),
        };
        let norm = read(total(found.squares)).sqrt();
        Self {
            indices: found.indices,
            weights: found.weights,
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

    /// A direction of independent normal values times `sign`, divided by ASAM's T if there is an eta,
    /// as the gradients of the parameters.
    pub(super) fn normal<M: Module>(
        &self,
        module: &M,
        rng: &mut StdRng,
        eta: Option<f64>,
        sign: f64,
    ) -> GradientsParams {
        struct Draw<'a> {
            trainable: &'a Trainable,
            rng: &'a mut StdRng,
            eta: Option<f64>,
            sign: f64,
            direction: GradientsParams,
        }

        impl ModuleVisitor for Draw<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let known = self.direction.get::<D>(param.id).is_some();
                if known || !self.trainable.indices.contains_key(&param.id) {
                    return;
                }
                let weight = param.val().inner();
                let mut value = || self.sign * self.rng.sample::<f64, _>(StandardNormal);
                let values = draw(weight.dims(), &mut value, &weight.device(), weight.dtype());
                let values = match self.eta {
                    None => values,
                    Some(eta) => {
                        // Where T is 0, nothing moves.
                        let t = weight.abs().add_scalar(eta);
                        let still = t.clone().equal_elem(0.0);
                        (values / t).mask_fill(still, 0.0)
                    }
                };
                self.direction.register(param.id, values);
            }
        }

        let mut draw = Draw {
            trainable: self,
            rng,
            eta,
            sign,
            direction: GradientsParams::new(),
        };
        module.visit(&mut draw);
        draw.direction
    }

    /// A vector of 1 and -1, each as likely.
    pub(super) fn signs<M: Module>(&self, module: &M, rng: &mut StdRng) -> Vector {
        struct Signs<'a> {
            trainable: &'a Trainable,
            rng: &'a mut StdRng,
            parts: Vec<Tensor<1>>,
        }

        impl ModuleVisitor for Signs<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if self.trainable.is_at(self.parts.len(), param.id) {
                    let (len, device, dtype) = flat(&param.val().inner());
                    let mut sign = || if self.rng.random::<bool>() { 1.0 } else { -1.0 };
                    self.parts.push(draw([len], &mut sign, &device, dtype));
                }
            }
        }

        let mut signs = Signs {
            trainable: self,
            rng,
            parts: Vec::new(),
        };
        module.visit(&mut signs);
        Vector(signs.parts)
    }

    /// A random vector whose filters are as long as the module's: nothing if there is no filter.
    pub(super) fn filters<M: Module>(&self, module: &M, rng: &mut StdRng) -> Option<Vector> {
        struct Filters<'a> {
            trainable: &'a Trainable,
            rng: &'a mut StdRng,
            container: String,
            found: bool,
            parts: Vec<Tensor<1>>,
        }

        impl ModuleVisitor for Filters<'_> {
            fn enter_module(&mut self, _name: &str, container_type: &str) {
                self.container = container_type.to_string();
            }

            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if !self.trainable.is_at(self.parts.len(), param.id) {
                    return;
                }
                let weight = param.val().inner();
                let (len, device, dtype) = flat(&weight);
                self.parts.push(match filter_dim::<D>(&self.container) {
                    None => Tensor::zeros([len], (&device, dtype)),
                    Some(dim) => {
                        self.found = true;
                        let mut value = || self.rng.sample::<f64, _>(StandardNormal);
                        let random = draw(weight.dims(), &mut value, &device, dtype);
                        let norms = |tensor: Tensor<D>| {
                            let others = (0..D).filter(|&other| other != dim);
                            others.fold(tensor.square(), Tensor::sum_dim).sqrt()
                        };
                        let factor = norms(weight.cast(dtype)) / norms(random.clone());
                        (random * factor).reshape([len])
                    }
                });
            }
        }

        let mut filters = Filters {
            trainable: self,
            rng,
            container: String::new(),
            found: false,
            parts: Vec::new(),
        };
        module.visit(&mut filters);
        filters.found.then_some(Vector(filters.parts))
    }

    /// The vector from the module's weights to the other's, or the path of a parameter that the other
    /// does not have in the same shape.
    pub(super) fn towards<M: Module>(&self, module: &M, other: &M) -> Result<Vector, String> {
        #[derive(Default)]
        struct Collect {
            path: Vec<String>,
            /// In the module's order: paths, ids, shapes, values.
            found: Vec<(String, ParamId, Vec<usize>, Tensor<1>)>,
        }

        impl ModuleVisitor for Collect {
            fn enter_module(&mut self, name: &str, _container_type: &str) {
                self.path.push(name.to_string());
            }

            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.path.pop();
            }

            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let weight = param.val().without_autodiff();
                let (len, _, dtype) = flat(&weight);
                let dims = weight.dims().to_vec();
                let values = weight.reshape([len]).cast(dtype);
                (self.found).push((self.path.join("."), param.id, dims, values));
            }
        }

        let [from, to] = [module, other].map(|module| {
            let mut collect = Collect::default();
            module.visit(&mut collect);
            collect.found
        });
        let mut to: HashMap<_, _> = (to.into_iter())
            .map(|(path, _, dims, values)| (path, (dims, values)))
            .collect();
        let mut parts = Vec::new();
        for (path, id, dims, values) in from {
            if self.is_at(parts.len(), id) {
                match to.remove(&path) {
                    Some((other, there)) if other == dims => {
                        let there = there.to_device(&values.device()).cast(values.dtype());
                        parts.push(there - values);
                    }
                    _ => return Err(path),
                }
            }
        }
        Ok(Vector(parts))
    }

    /// The gradients as a vector: 0 where there is none.
    pub(super) fn flatten<M: Module>(&self, module: &M, grads: GradientsParams) -> Vector {
        struct Flatten<'a> {
            trainable: &'a Trainable,
            grads: GradientsParams,
            parts: Vec<Tensor<1>>,
        }

        impl ModuleVisitor for Flatten<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if self.trainable.is_at(self.parts.len(), param.id) {
                    let (len, device, dtype) = flat(&param.val().inner());
                    self.parts.push(match self.grads.remove::<D>(param.id) {
                        Some(grad) => grad.reshape([len]).cast(dtype),
                        None => Tensor::zeros([len], (&device, dtype)),
                    });
                }
            }
        }

        let mut flatten = Flatten {
            trainable: self,
            grads,
            parts: Vec::new(),
        };
        module.visit(&mut flatten);
        Vector(flatten.parts)
    }

    /// Whether a parameter is the one of this index. In the module's order, each is so the first time
    /// that it comes.
    fn is_at(&self, index: usize, id: ParamId) -> bool {
        self.indices.get(&id) == Some(&index)
    }

    /// The module at w + factor v.
    pub(super) fn displace<M: Module>(&self, module: M, vector: &Vector, factor: f64) -> M {
        struct Displace<'a>(&'a Trainable, &'a Vector, f64);

        impl ModuleMapper for Displace<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some(&index) = self.0.indices.get(&param.id) else {
                    return param;
                };
                let id = param.id;
                param.map(|parameter| {
                    let weight = parameter.clone().inner();
                    let part = self.1.0[index].clone() * self.2;
                    let moved = weight.clone().cast(part.dtype()) + part.reshape(weight.dims());
                    in_place_of(parameter, moved.cast(weight.dtype()), id)
                })
            }
        }

        module.map(&mut Displace(self, vector, factor))
    }
}

/// The length of a weight's part of a vector, its device, and the type that it is computed in.
fn flat<const D: usize>(weight: &Tensor<D>) -> (usize, Device, DType) {
    let dtype = match weight.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    (weight.shape().num_elements(), weight.device(), dtype)
}

/// The dimension along which a parameter of a container has its filters, if it has any.
fn filter_dim<const D: usize>(container: &str) -> Option<usize> {
    let layer = container.strip_prefix("Struct:").unwrap_or(container);
    match D {
        0 | 1 => None,
        _ if layer.starts_with("ConvTranspose") => Some(1),
        2 if layer != "Embedding" => Some(1),
        _ => Some(0),
    }
}

/// Whether all gradients are finite.
pub(super) fn are_finite<M: Module>(module: &M, grads: &GradientsParams) -> bool {
    struct Squares<'a>(&'a GradientsParams, Vec<Tensor<1>>);

    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.0.get::<D>(param.id) {
                self.1.push(sum_of_squares(&grad, grad.clone(), None));
            }
        }
    }

    let mut squares = Squares(grads, Vec::new());
    module.visit(&mut squares);
    read(total(squares.1)).is_finite()
}

fn draw<const D: usize>(
    dims: [usize; D],
    value: &mut impl FnMut() -> f64,
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| value()).collect();
    Tensor::from_data(TensorData::new(values, dims), (device, dtype))
}

/// The value of a sum, which is 0 of nothing.
fn read(sum: Option<Tensor<1>>) -> f64 {
    let value = sum.and_then(|sum| sum.into_data().iter::<f64>().next());
    value.unwrap_or_default()
}
