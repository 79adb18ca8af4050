use burn::backend::DispatchTensor;
use burn::tensor::{DType, Device, Tensor};

use crate::portable::{self, Scale};

/// One parameter that climbs: its value w, its gradient g, and its radius rho.
// Boxed, since lists of them are divided: the handles of two tensors are hundreds of bytes.
pub struct Parameter(Box<Inner>);

struct Inner {
    weight: DispatchTensor,
    grad: DispatchTensor,
    /// Whether `grad` is the weights before an update, which is what to climb along.
    is_before: bool,
    rho: f64,
    /// Of both tensors.
    device: Device,
    dtype: DType,
    /// The portable operations for its rank.
    sum_of_squares: fn(&Inner, Option<f64>) -> Tensor<1>,
    perturb: fn(Inner, &Scale, Option<f64>) -> DispatchTensor,
}

/// A parameter's value at w + e(w).
pub struct Climbed(DispatchTensor);

impl Climbed {
    /// The value, of w's shape, type and device. `D` is the rank of the parameter.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_dispatch(self.0)
    }
}

impl Parameter {
    /// A parameter.
    ///
    /// # Arguments
    ///
    /// * `weight` - its value w, of any shape, without autodiff.
    /// * `grad` - its gradient g, of the same shape and on the same device. Where nothing else
    ///   holds the gradient's memory, w + e(w) is written into it.
    /// * `rho` - its radius, in the units of the weights (of T's, if adaptive). With 0, it stays
    ///   at w, while its gradient counts in the norm.
    ///
    /// # Panics
    ///
    /// If the shapes or the devices of the two differ.
    pub fn new<const D: usize>(weight: Tensor<D>, grad: Tensor<D>, rho: f64) -> Self {
        assert_eq!(
            weight.shape(),
            grad.shape(),
            "a parameter and its gradient must have the same shape"
        );
        let device = weight.device();
        assert_eq!(
            device,
            grad.device(),
            "a parameter and its gradient must be on the same device"
        );
        // A gradient of another type has no buffer that the result could be written into.
        let dtype = weight.dtype();
        let grad = match grad.dtype() == dtype {
            true => grad,
            false => grad.cast(dtype),
        };
        Self(Box::new(Inner {
            weight: weight.into_dispatch(),
            grad: grad.into_dispatch(),
            is_before: false,
            rho,
            device,
            dtype,
            sum_of_squares: |parameter, eta| {
                let weight = Tensor::<D>::from_dispatch(parameter.weight.clone());
                let grad = Tensor::<D>::from_dispatch(parameter.grad.clone());
                portable::sum_of_squares(&weight, grad, eta)
            },
            perturb: |parameter, scale, eta| {
                let weight = Tensor::<D>::from_dispatch(parameter.weight);
                let grad = Tensor::<D>::from_dispatch(parameter.grad);
                portable::perturb(weight, grad, scale, parameter.rho, eta).into_dispatch()
            },
        }))
    }

    /// A parameter that climbs along its last update, w less its value before, rather than along a gradient.
    /// Without adaptive T, that is, with an `eta` of `None` in what it is given to.
    ///
    /// # Arguments
    ///
    /// * `weight` - its value w, of any shape, without autodiff.
    /// * `before` - its value before the update, of the same shape and type and on the same device. Where
    ///   nothing else holds its memory, w + e(w) is written into it.
    /// * `rho` - its radius.
    ///
    /// # Panics
    ///
    /// If the shapes or the devices of the two differ.
    pub fn of_update<const D: usize>(weight: Tensor<D>, before: Tensor<D>, rho: f64) -> Self {
        if has_kernels(&weight.device(), weight.dtype()) {
            let mut parameter = Self::new(weight, before, rho);
            parameter.0.is_before = true;
            return parameter;
        }
        let update = weight.clone() - before;
        Self::new(weight, update, rho)
    }

    /// Whether its backend has kernels of its own for its type.
    fn has_kernels(&self) -> bool {
        has_kernels(&self.0.device, self.0.dtype)
    }
}

#[allow(unused_variables)] // `dtype`, where no backend has any.
pub(crate) fn has_kernels(device: &Device, dtype: DType) -> bool {
    #[allow(unreachable_patterns)]
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(_) => {
            matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
        }
        #[cfg(feature = "ndarray")]
        burn::backend::DispatchDevice::NdArray(_) => {
            matches!(dtype, DType::F64 | DType::F32)
        }
        // CubeCL's own CPU runtime is left to the portable path: nobody has tried it.
        #[cfg(feature = "cube")]
        burn::backend::DispatchDevice::Cube(device) => {
            device.runtime() != burn_cubecl::cubecl::RuntimeId::Cpu
                && matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
        }
        _ => false,
    }
}

/// The squared norm of all gradients, the sum of (T g)², of shape `[1]`; `None` of no parameters.
///
/// # Arguments
///
/// * `parameters` - over all devices and groups.
/// * `eta` - `None` for plain SAM (T = 1), or the eta of ASAM's T = |w| + eta.
///
/// The sum is f64 if any parameter is, and f32 otherwise. It is not finite if any gradient is not.
pub fn squared_norm(parameters: &[Parameter], eta: Option<f64>) -> Option<Tensor<1>> {
    let (with_kernels, without): (Vec<&Parameter>, Vec<&Parameter>) =
        (parameters.iter()).partition(|parameter| parameter.has_kernels());
    let mut sums = kernels::sums_of_squares(with_kernels, eta);
    sums.extend(
        (without.into_iter()).map(|parameter| (parameter.0.sum_of_squares)(&parameter.0, eta)),
    );
    portable::total(sums)
}

/// Each parameter at w + rho T² g / (norm + eps), in the order given.
///
/// Equation 2 of [SAM](https://arxiv.org/abs/2010.01412), or of
/// [ASAM](https://arxiv.org/abs/2102.11600) with `eta`. Where the norm is not finite, or is 0 with
/// an `eps` of 0, every parameter stays at w, whatever its gradient holds.
///
/// # Arguments
///
/// * `parameters` - the parameters.
/// * `squared_norm` - as from [`squared_norm`], of shape `[1]`, on any device.
/// * `eps` - the stability constant.
/// * `eta` - as for [`squared_norm`].
/// * `factor` - what all rhos are multiplied by, of shape `[1]`, on any device; `None` is 1.
pub fn perturb(
    parameters: Vec<Parameter>,
    squared_norm: Tensor<1>,
    eps: f64,
    eta: Option<f64>,
    factor: Option<Tensor<1>>,
) -> Vec<Climbed> {
    let mut climbed: Vec<Option<Climbed>> = parameters.iter().map(|_| None).collect();
    let mut with_kernels = Vec::with_capacity(parameters.len());
    let mut without = Vec::new();
    for (index, parameter) in parameters.into_iter().enumerate() {
        if parameter.0.rho == 0.0 {
            climbed[index] = Some(Climbed(parameter.0.weight));
        } else if parameter.has_kernels() {
            with_kernels.push((index, parameter));
        } else {
            without.push((index, parameter));
        }
    }
    if !without.is_empty() {
        let scale = Scale::new(squared_norm.clone(), eps, factor.clone());
        for (index, parameter) in without {
            climbed[index] = Some(Climbed((parameter.0.perturb)(*parameter.0, &scale, eta)));
        }
    }
    let of_all: Vec<Tensor<1>> = [squared_norm].into_iter().chain(factor).collect();
    for (index, tensor) in kernels::perturb(with_kernels, &of_all, eps, eta) {
        climbed[index] = Some(Climbed(tensor));
    }
    let all: Option<Vec<Climbed>> = climbed.into_iter().collect();
    all.expect("each parameter took one of the three ways")
}

/// The value of a tensor of shape `[1]`, if it can be had without waiting for a device: on the CPU backends that have
/// kernels here.
pub fn known(value: &Tensor<1>) -> Option<f64> {
    #[allow(unreachable_patterns)]
    match value.device().as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(_) => value.clone().into_data().iter::<f64>().next(),
        #[cfg(feature = "ndarray")]
        burn::backend::DispatchDevice::NdArray(_) => value.clone().into_data().iter::<f64>().next(),
        _ => None,
    }
}

/// The backends' own kernels, with all of a device's parameters at once.
#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
mod kernels {
    use burn::backend::{Dispatch, DispatchTensor};
    use burn::tensor::Tensor;

    use super::{Parameter, by_device, scalars};
    use crate::backend::{Along, Floats, ListBackend, Reduction, Update};

    pub(super) fn sums_of_squares(parameters: Vec<&Parameter>, eta: Option<f64>) -> Vec<Tensor<1>> {
        by_device(parameters, |parameter| &parameter.0.device)
            .into_iter()
            .map(|(_, parameters)| {
                let tensors = |tensor: fn(&Parameter) -> &DispatchTensor| {
                    Floats(parameters.iter().map(|p| tensor(p).clone()).collect())
                };
                // All of a device's parameters are of the same kind.
                let reduction = match parameters[0].0.is_before {
                    false => Reduction::SquaredNorm { eta },
                    true => Reduction::SquaredDistance,
                };
                let weights = match reduction {
                    Reduction::SquaredNorm { eta: None } => Floats(Vec::new()),
                    _ => tensors(|parameter| &parameter.0.weight),
                };
                let grads = tensors(|parameter| &parameter.0.grad);
                Tensor::from_dispatch(Dispatch::reduce(grads, weights, reduction))
            })
            .collect()
    }

    pub(super) fn perturb(
        parameters: Vec<(usize, Parameter)>,
        of_all: &[Tensor<1>],
        eps: f64,
        eta: Option<f64>,
    ) -> Vec<(usize, DispatchTensor)> {
        let mut climbed = Vec::new();
        for (device, parameters) in by_device(parameters, |(_, parameter)| &parameter.0.device) {
            let dtypes = parameters.iter().map(|(_, parameter)| parameter.0.dtype);
            let of_all = scalars(of_all, dtypes, &device);
            let mut indices = Vec::with_capacity(parameters.len());
            let mut weights = Vec::with_capacity(parameters.len());
            let mut grads = Vec::with_capacity(parameters.len());
            let mut rhos = Vec::with_capacity(parameters.len());
            let along = match parameters[0].1.0.is_before {
                false => Along::Gradient { eta },
                true => Along::Update,
            };
            for (index, parameter) in parameters {
                let parameter = *parameter.0;
                indices.push(index);
                weights.push(parameter.weight);
                grads.push(parameter.grad);
                rhos.push(parameter.rho);
            }
            let update = Update::Perturb { rhos, eps, along };
            let Floats(tensors) = Dispatch::update(Floats(weights), Floats(grads), of_all, update);
            climbed.extend(indices.into_iter().zip(tensors));
        }
        climbed
    }
}

/// Values of shape `[1]` as one tensor on a device, in what tensors of these types are computed in.
#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
pub(crate) fn scalars(
    values: &[Tensor<1>],
    dtypes: impl IntoIterator<Item = DType>,
    device: &Device,
) -> DispatchTensor {
    let wide = portable::accumulation_dtype(dtypes);
    let on_device = |value: &Tensor<1>| value.clone().cast(wide).to_device(device);
    match values {
        [value] => on_device(value),
        values => Tensor::cat(values.iter().map(on_device).collect(), 0),
    }
    .into_dispatch()
}

#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
pub(crate) fn by_device<P>(items: Vec<P>, device: impl Fn(&P) -> &Device) -> Vec<(Device, Vec<P>)> {
    let Some(first) = items.first().map(|item| device(item).clone()) else {
        return Vec::new();
    };
    if items.iter().all(|item| *device(item) == first) {
        return vec![(first, items)];
    }
    let mut groups: Vec<(Device, Vec<P>)> = Vec::new();
    for item in items {
        let on = device(&item);
        match groups.iter().position(|(device, _)| device == on) {
            Some(index) => groups[index].1.push(item),
            None => groups.push((on.clone(), vec![item])),
        }
    }
    groups
}

#[cfg(not(any(feature = "cube", feature = "flex", feature = "ndarray")))]
mod kernels {
    use burn::backend::DispatchTensor;
    use burn::tensor::Tensor;

    use super::Parameter;

    pub(super) fn sums_of_squares(_: Vec<&Parameter>, _: Option<f64>) -> Vec<Tensor<1>> {
        Vec::new()
    }

    pub(super) fn perturb(
        _: Vec<(usize, Parameter)>,
        _: &[Tensor<1>],
        _: f64,
        _: Option<f64>,
    ) -> Vec<(usize, DispatchTensor)> {
        Vec::new()
    }
}
