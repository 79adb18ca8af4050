//! The operations as an extension of Burn's backends: one implementation for each backend type.

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType, backend_extension,
};

/// The operations on all parameters of a device.
///
/// The lists are not empty and have the same length. The tensors of one index have the same shape and
/// type; others may differ.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait AscentBackend: Backend {
    /// As [`squared_norm`](crate::squared_norm): of shape `[1]`, f64 if any tensor is. Without `eta`,
    /// there are no weights.
    fn sum_of_squares(
        #[extension_type] weights: Floats<Self>,
        #[extension_type] grads: Floats<Self>,
        eta: Option<f64>,
    ) -> FloatTensor<Self>;

    /// As [`perturb`](crate::perturb), with a rho for each parameter. The squared norm is f64 if any
    /// tensor is.
    fn perturb(
        #[extension_type] weights: Floats<Self>,
        #[extension_type] grads: Floats<Self>,
        squared_norm: FloatTensor<Self>,
        rhos: Vec<f64>,
        eps: f64,
        eta: Option<f64>,
    ) -> Floats<Self>;
}

/// The operations that the CPU backends alone have kernels for, on pairs of tensors. The lists are as those of
/// [`AscentBackend`].
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"))]
pub(crate) trait CombinationBackend: Backend {
    /// <a, a>, <a, b> and <b, b>, of shape `[3]`, f64 if any tensor is.
    fn inner_products(
        #[extension_type] a: Floats<Self>,
        #[extension_type] b: Floats<Self>,
    ) -> FloatTensor<Self>;

    /// The sum of (b - a)², of shape `[1]`, f64 if any tensor is.
    fn squared_distance(
        #[extension_type] a: Floats<Self>,
        #[extension_type] b: Floats<Self>,
    ) -> FloatTensor<Self>;

    /// As [`AscentBackend::perturb`] without `eta`, along the updates from the weights `before`.
    fn extrapolate(
        #[extension_type] weights: Floats<Self>,
        #[extension_type] before: Floats<Self>,
        squared_norm: FloatTensor<Self>,
        rhos: Vec<f64>,
        eps: f64,
    ) -> Floats<Self>;

    /// x a + y b of each pair, or a. The coefficients are x, y, and 1 for a or 0.
    fn combine(
        #[extension_type] a: Floats<Self>,
        #[extension_type] b: Floats<Self>,
        coefficients: FloatTensor<Self>,
    ) -> Floats<Self>;
}

/// A list of floating-point tensors. Burn's derive knows fields, not lists.
pub(crate) struct Floats<B: Backend>(pub(crate) Vec<FloatTensor<B>>);

impl<B: Backend> ExtensionType<B> for Floats<B> {
    type Target = Floats<burn::backend::Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor| DispatchTensor {
            kind: map_kind(BackendTensor::Float(tensor)),
            autodiff,
        };
        Floats(self.0.into_iter().map(wrap).collect())
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        let unwrap = |tensor| unwrap_kind(tensor).float();
        Self(target.0.into_iter().map(unwrap).collect())
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }
}
