//! The backends' own kernels, with all of a device's parts at once.

use burn::tensor::{Device, Tensor};

use crate::formula::Program;

#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
pub(crate) use with::{reduce, update};
#[cfg(not(any(feature = "cube", feature = "flex", feature = "ndarray")))]
pub(crate) use without::{reduce, update};

/// Whether a device's numbers are worked out there by a kernel.
pub(crate) fn computes(device: &Device) -> bool {
    if crate::internals::WITHOUT_KERNELS.get() {
        return false;
    }
    match device.as_dispatch() {
        // CubeCL's own CPU runtime is left to the portable path: nobody has tried it.
        #[cfg(feature = "cube")]
        burn::backend::DispatchDevice::Cube(device) => {
            device.runtime() != burn_cubecl::cubecl::RuntimeId::Cpu
        }
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// What a program is asked for, of shape `[outputs]`, on a device that has a kernel for that.
#[cfg(feature = "cube")]
pub(crate) fn compute(tensors: Vec<Tensor<1>>, constants: Vec<f64>, program: Program) -> Tensor<1> {
    use crate::backend::{Floats, NumberBackend};

    let tensors = tensors.into_iter().map(Tensor::into_dispatch);
    let made = burn::backend::Dispatch::compute(Floats(tensors.collect()), constants, program);
    Tensor::from_dispatch(made)
}

#[cfg(not(feature = "cube"))]
pub(crate) fn compute(_: Vec<Tensor<1>>, _: Vec<f64>, _: Program) -> Tensor<1> {
    unreachable!("no device computes")
}

#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
mod with {
    use std::borrow::Borrow;

    use burn::backend::Dispatch;
    use burn::tensor::{FloatDType, Tensor};

    use crate::backend::{Floats, ListBackend};
    use crate::operation::{Reduction, Update};
    use crate::part::Part;
    use crate::portable::accumulation_dtype;

    fn floats(parts: &[impl Borrow<Part>]) -> Floats<Dispatch> {
        let tensors = parts.iter().map(|part| part.borrow().tensor().clone());
        Floats(tensors.collect())
    }

    /// Sums over the parts of one device, and others of the same parameters.
    pub(crate) fn reduce(
        a: &[impl Borrow<Part>],
        b: &[impl Borrow<Part>],
        reduction: Reduction,
    ) -> Tensor<1> {
        Tensor::from_dispatch(Dispatch::reduce(floats(a), floats(b), reduction))
    }

    /// Writes over the parts of one device. The scalars are there, in the type that is computed in.
    pub(crate) fn update(
        read: &[impl Borrow<Part>],
        write: Vec<Part>,
        scalars: impl FnOnce(FloatDType) -> Tensor<1>,
        update: Update,
    ) -> Vec<Part> {
        let scalars = scalars(accumulation_dtype(write.iter().map(Part::dtype)));
        let (shells, write): (Vec<_>, Vec<_>) = write.into_iter().map(Part::into_shell).unzip();
        let Floats(written) =
            Dispatch::update(floats(read), Floats(write), scalars.into_dispatch(), update);
        let written = shells.into_iter().zip(written);
        written
            .map(|(shell, tensor)| shell.filled(tensor))
            .collect()
    }
}

#[cfg(not(any(feature = "cube", feature = "flex", feature = "ndarray")))]
mod without {
    use std::borrow::Borrow;

    use burn::tensor::{FloatDType, Tensor};

    use crate::operation::{Reduction, Update};
    use crate::part::Part;

    pub(crate) fn reduce(
        _: &[impl Borrow<Part>],
        _: &[impl Borrow<Part>],
        _: Reduction,
    ) -> Tensor<1> {
        unreachable!("no part has kernels")
    }

    pub(crate) fn update(
        _: &[impl Borrow<Part>],
        _: Vec<Part>,
        _: impl FnOnce(FloatDType) -> Tensor<1>,
        _: Update,
    ) -> Vec<Part> {
        unreachable!("no part has kernels")
    }
}
