use core::fmt;
use std::borrow::Cow;

use burn::backend::{DispatchTensor, TensorMetadata};
use burn::tensor::{DType, Device, Distribution, Shape, Tensor};

use crate::portable;

/// A parameter's part of a [`Vector`](crate::Vector): a tensor of any rank and type, without autodiff.
// Boxed, since lists of them are divided: the handle of a tensor is hundreds of bytes.
#[derive(Clone)]
pub struct Part(Box<Inner>);

#[derive(Clone)]
struct Inner {
    place: usize,
    device: Device,
    dtype: DType,
    rank: &'static Rank,
    /// Not there only while an operation has it.
    tensor: Option<DispatchTensor>,
}

/// A part whose tensor an operation has.
pub(crate) struct Shell(Box<Inner>);

impl Shell {
    /// With a tensor of the shape, the device and the type that the part had.
    pub(crate) fn filled(mut self, tensor: DispatchTensor) -> Part {
        self.0.tensor = Some(tensor);
        Part(self.0)
    }
}

/// The operations that need to know the rank.
struct Rank {
    number: usize,
    moved: fn(DispatchTensor, &Device, DType) -> DispatchTensor,
    zeros_like: fn(&DispatchTensor) -> DispatchTensor,
    flat: fn(DispatchTensor) -> Tensor<1>,
    shaped: fn(Tensor<1>, Shape) -> DispatchTensor,
    sum_of_squares: fn(&DispatchTensor, &DispatchTensor, Option<f64>) -> Tensor<1>,
    inner_product: fn(&DispatchTensor, &DispatchTensor) -> Tensor<1>,
    minus: fn(DispatchTensor, DispatchTensor) -> DispatchTensor,
    perturb:
        fn(DispatchTensor, DispatchTensor, &portable::Scale, f64, Option<f64>) -> DispatchTensor,
    combine: fn(DispatchTensor, Vec<DispatchTensor>, &[Tensor<1>]) -> DispatchTensor,
    filters: fn(&DispatchTensor, Tensor<1>, usize) -> Tensor<1>,
    noise: fn(&DispatchTensor, Option<usize>) -> DispatchTensor,
}

struct Ranked<const D: usize>;

impl<const D: usize> Ranked<D> {
    const RANK: Rank = Rank {
        number: D,
        moved: |tensor, device, dtype| {
            let tensor = Tensor::<D>::from_dispatch(tensor);
            tensor.to_device(device).cast(dtype).into_dispatch()
        },
        zeros_like: |tensor| read::<D>(tensor).zeros_like().into_dispatch(),
        flat: |tensor| {
            let tensor = Tensor::<D>::from_dispatch(tensor);
            let length = tensor.shape().num_elements();
            tensor.reshape([length])
        },
        shaped: |flat, shape| flat.reshape::<D, _>(shape).into_dispatch(),
        sum_of_squares: |weight, grad, eta| {
            portable::sum_of_squares(&read::<D>(weight), read(grad), eta)
        },
        inner_product: |a, b| portable::inner_product(read::<D>(a), read(b)),
        minus: |a, b| {
            let difference = Tensor::<D>::from_dispatch(a) - Tensor::from_dispatch(b);
            difference.into_dispatch()
        },
        perturb: |weight, grad, scale, rho, eta| {
            let weight = Tensor::<D>::from_dispatch(weight);
            portable::perturb(weight, Tensor::from_dispatch(grad), scale, rho, eta).into_dispatch()
        },
        combine: |a, others, coefficients| {
            let others: Vec<Tensor<D>> = others.into_iter().map(Tensor::from_dispatch).collect();
            portable::combine(Tensor::from_dispatch(a), &others, coefficients).into_dispatch()
        },
        filters: |weight, values, dim| {
            let weight = read::<D>(weight).cast(values.dtype());
            let values = values.reshape(weight.shape());
            let factor = norms(weight, Some(dim)) / norms(values.clone(), Some(dim));
            let length = values.shape().num_elements();
            (values * factor).reshape([length])
        },
        noise: |weight, dim| {
            let weight = read::<D>(weight);
            let wide = portable::accumulation_dtype([weight.dtype()]);
            let noise = weight
                .random_like(Distribution::Normal(0.0, 1.0))
                .cast(wide);
            let norms = norms(weight.clone().cast(wide), dim);
            (noise * norms).cast(weight.dtype()).into_dispatch()
        },
    };
}

/// The norms of the filters along a dimension, or of the whole.
fn norms<const D: usize>(tensor: Tensor<D>, dim: Option<usize>) -> Tensor<D> {
    let others = (0..D).filter(|&other| Some(other) != dim);
    others.fold(tensor.square(), Tensor::sum_dim).sqrt()
}

const PRESENT: &str = "no operation has it";

fn read<const D: usize>(tensor: &DispatchTensor) -> Tensor<D> {
    Tensor::from_dispatch(tensor.clone())
}

impl Part {
    /// A part of the parameter at this place in the module's order.
    pub fn new<const D: usize>(place: usize, tensor: Tensor<D>) -> Self {
        Self(Box::new(Inner {
            place,
            device: tensor.device(),
            dtype: tensor.dtype(),
            rank: &Ranked::<D>::RANK,
            tensor: Some(tensor.into_dispatch()),
        }))
    }

    /// The tensor.
    ///
    /// # Panics
    ///
    /// If its rank is not `D`.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        assert_eq!(self.0.rank.number, D, "a part of another rank");
        Tensor::from_dispatch(self.into_dispatch())
    }

    /// Its parameter's place in the module's order.
    pub fn place(&self) -> usize {
        self.0.place
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.tensor().shape()
    }

    /// On this device, in this type.
    pub fn moved(self, device: &Device, dtype: DType) -> Self {
        if device == self.device() && dtype == self.dtype() {
            return self;
        }
        let moved = self.0.rank.moved;
        let (mut shell, tensor) = self.into_shell();
        (shell.0.device, shell.0.dtype) = (device.clone(), dtype);
        shell.filled(moved(tensor, device, dtype))
    }

    /// Its elements in their order, of shape `[elements]`.
    pub fn flat(self) -> Tensor<1> {
        let flat = self.0.rank.flat;
        flat(self.into_dispatch())
    }

    /// Elements in their order, in this part's shape and at its place.
    pub fn shaped(&self, flat: Tensor<1>) -> Self {
        Self(Box::new(Inner {
            place: self.0.place,
            device: flat.device(),
            dtype: flat.dtype(),
            rank: self.0.rank,
            tensor: Some((self.0.rank.shaped)(flat, self.shape())),
        }))
    }

    /// As many zeros.
    pub fn zeros_like(&self) -> Self {
        let (shell, tensor) = self.clone().into_shell();
        let zeros = (self.0.rank.zeros_like)(&tensor);
        shell.filled(zeros)
    }

    /// Values, in their order, of shape `[elements]`, whose filters along this dimension are scaled to be as long
    /// as this part's.
    pub fn filters_like(&self, values: Tensor<1>, dim: usize) -> Tensor<1> {
        (self.0.rank.filters)(self.tensor(), values, dim)
    }

    /// Normal values, each filter along this dimension (or the whole, if there is none) times the norm of this part's,
    /// in its shape and type. They are drawn by Burn on the device, and so after its seed.
    pub fn noise(&self, dim: Option<usize>) -> Self {
        let (shell, tensor) = self.clone().into_shell();
        let noise = (self.0.rank.noise)(&tensor, dim);
        shell.filled(noise)
    }

    pub(crate) fn into_shell(mut self) -> (Shell, DispatchTensor) {
        let tensor = self.0.tensor.take().expect(PRESENT);
        (Shell(self.0), tensor)
    }

    pub(crate) fn tensor(&self) -> &DispatchTensor {
        self.0.tensor.as_ref().expect(PRESENT)
    }

    pub(crate) fn into_dispatch(self) -> DispatchTensor {
        self.0.tensor.expect(PRESENT)
    }

    /// Another one of the same parameter, moved to a device and cast to a type.
    ///
    /// # Panics
    ///
    /// If it has another shape.
    pub(crate) fn beside<'a>(
        &self,
        other: &'a Self,
        device: &Device,
        dtype: DType,
    ) -> Cow<'a, Self> {
        assert_eq!(
            self.shape(),
            other.shape(),
            "the parts of a parameter must have the same shape"
        );
        match *device == other.0.device && dtype == other.0.dtype {
            true => Cow::Borrowed(other),
            false => Cow::Owned(other.clone().moved(device, dtype)),
        }
    }

    /// |T v|², where this is v, and T is 1 or |w| + eta.
    pub(crate) fn portable_sum_of_squares(&self, weight: &Self, eta: Option<f64>) -> Tensor<1> {
        (self.0.rank.sum_of_squares)(weight.tensor(), self.tensor(), eta)
    }

    pub(crate) fn portable_inner_product(&self, other: &Self) -> Tensor<1> {
        (self.0.rank.inner_product)(self.tensor(), other.tensor())
    }

    pub(crate) fn portable_minus(self, other: Self) -> Self {
        let minus = self.0.rank.minus;
        let (shell, tensor) = self.into_shell();
        shell.filled(minus(tensor, other.into_dispatch()))
    }

    /// This weight, climbed along a gradient.
    pub(crate) fn portable_perturb(
        self,
        grad: Self,
        scale: &portable::Scale,
        rho: f64,
        eta: Option<f64>,
    ) -> Self {
        let perturb = self.0.rank.perturb;
        let (shell, tensor) = self.into_shell();
        shell.filled(perturb(tensor, grad.into_dispatch(), scale, rho, eta))
    }

    pub(crate) fn portable_combine(
        self,
        others: Vec<Cow<'_, Self>>,
        coefficients: &[Tensor<1>],
    ) -> Self {
        let combine = self.0.rank.combine;
        let (shell, tensor) = self.into_shell();
        let others = others.iter().map(|other| other.tensor().clone()).collect();
        shell.filled(combine(tensor, others, coefficients))
    }

    /// Whether its backend has kernels of its own for its type.
    #[allow(unreachable_patterns)]
    pub(crate) fn has_kernels(&self) -> bool {
        let _dtype = self.dtype();
        match self.device().as_dispatch() {
            #[cfg(feature = "flex")]
            burn::backend::DispatchDevice::Flex(_) => {
                matches!(_dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
            }
            #[cfg(feature = "ndarray")]
            burn::backend::DispatchDevice::NdArray(_) => {
                matches!(_dtype, DType::F64 | DType::F32)
            }
            // CubeCL's own CPU runtime is left to the portable path: nobody has tried it.
            #[cfg(feature = "cube")]
            burn::backend::DispatchDevice::Cube(device) => {
                device.runtime() != burn_cubecl::cubecl::RuntimeId::Cpu
                    && matches!(_dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("place", &self.place())
            .field("shape", &self.shape())
            .field("dtype", &self.dtype())
            .field("device", self.device())
            .finish()
    }
}
