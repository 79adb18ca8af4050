//! The backends' own kernels, with all of a device's parts at once.

#[cfg(any(feature = "cube", feature = "flex", feature = "ndarray"))]
pub(crate) use with::{reduce, update};
#[cfg(not(any(feature = "cube", feature = "flex", feature = "ndarray")))]
pub(crate) use without::{reduce, update};

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
