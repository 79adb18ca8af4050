//! The operations as an extension of Burn's backends: one implementation for each backend type.

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType, backend_extension,
};

#[cfg(feature = "cube")]
use crate::formula::Program;
use crate::operation::{Reduction, Update};

/// The two operations, on all tensors of a device.
///
/// The tensors of one index have the same shape and type; others may differ. No list is empty but those that
/// an operation does not read.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait ListBackend: Backend {
    /// Sums over two lists, of shape `[1]` or as the reduction has it, f64 if any tensor is.
    fn reduce(
        #[extension_type] a: Floats<Self>,
        #[extension_type] b: Floats<Self>,
        reduction: Reduction,
    ) -> FloatTensor<Self>;

    /// Writes over one list from others. The scalars are f64 if any tensor is.
    fn update(
        #[extension_type] read: Floats<Self>,
        #[extension_type] write: Floats<Self>,
        scalars: FloatTensor<Self>,
        update: Update,
    ) -> Floats<Self>;
}

/// Numbers worked out on a device, all at once.
#[cfg(feature = "cube")]
#[backend_extension(Cube)]
pub(crate) trait NumberBackend: Backend {
    /// What a program is asked for, of shape `[outputs]`. All tensors have one type, f64 or f32, and the shape `[elements]`.
    fn compute(
        #[extension_type] tensors: Floats<Self>,
        constants: Vec<f64>,
        program: Program,
    ) -> FloatTensor<Self>;
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
