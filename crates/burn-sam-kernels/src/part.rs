use core::fmt;
use std::borrow::Cow;

use burn::backend::{DispatchTensor, TensorMetadata};
use burn::tensor::{Bool, DType, Device, Distribution, Shape, Tensor};

use crate::operation::Reduction;
use crate::portable;
use crate::shared::{Choice, Factor, Mask};

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
    reduce: fn([&DispatchTensor; 3], Reduction) -> Vec<Tensor<1>>,
    perturb: fn([DispatchTensor; 4], Option<f64>) -> DispatchTensor,
    minus: fn(DispatchTensor, DispatchTensor) -> DispatchTensor,
    sum_of_terms: fn(Vec<[DispatchTensor; 3]>) -> DispatchTensor,
    weighted: fn(DispatchTensor, Vec<DispatchTensor>, &[f64]) -> DispatchTensor,
    scaled: fn(DispatchTensor, DispatchTensor) -> DispatchTensor,
    choice: fn(DispatchTensor, DispatchTensor, DispatchTensor) -> DispatchTensor,
    way: fn([DispatchTensor; 3]) -> DispatchTensor,
    spread: fn(Tensor<1>) -> DispatchTensor,
    spread_flag: fn(Tensor<1, Bool>) -> DispatchTensor,
    expanded: fn(Tensor<1, Bool>, Shape) -> DispatchTensor,
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
            match D {
                1 => Tensor::from_dispatch(tensor.into_dispatch()),
                _ => {
                    let length = tensor.shape().num_elements();
                    tensor.reshape([length])
                }
            }
        },
        shaped: |flat, shape| match D {
            1 if flat.shape() == shape => flat.into_dispatch(),
            _ => flat.reshape::<D, _>(shape).into_dispatch(),
        },
        reduce: |tensors, reduction| {
            let [a, b, c] = tensors.map(read::<D>);
            match reduction {
                Reduction::SquaredNorm { eta } => vec![portable::sum_of_squares(&b, a, eta)],
                Reduction::SquaredDistance => unreachable!("a path writes its update down"),
                Reduction::InnerProducts => vec![
                    portable::inner_product(a.clone(), a.clone()),
                    portable::inner_product(a, b.clone()),
                    portable::inner_product(b.clone(), b),
                ],
                Reduction::Slope => {
                    // In half precision, the difference would be rounded.
                    let wide = portable::accumulation_dtype([a.dtype()]);
                    let way = b.cast(wide) - c.cast(wide);
                    vec![
                        portable::inner_product(a.clone(), a.clone()),
                        portable::inner_product(a, way),
                    ]
                }
            }
        },
        perturb: |[weight, grad, factor, refused], eta| {
            let [weight, grad, factor] = [weight, grad, factor].map(Tensor::<D>::from_dispatch);
            let refused = Tensor::from_dispatch(refused);
            portable::perturb_by(weight, grad, factor, refused, eta).into_dispatch()
        },
        minus: |a, b| {
            let difference = Tensor::<D>::from_dispatch(a) - Tensor::from_dispatch(b);
            difference.into_dispatch()
        },
        sum_of_terms: |terms| {
            let terms = terms.into_iter().map(|[tensor, value, is_zero]| {
                let coefficient = (Tensor::from_dispatch(value), Tensor::from_dispatch(is_zero));
                (Tensor::<D>::from_dispatch(tensor), coefficient)
            });
            portable::sum_of_terms(terms.collect()).into_dispatch()
        },
        weighted: |a, others, coefficients| {
            let others = others.into_iter().map(Tensor::from_dispatch).collect();
            let a = Tensor::<D>::from_dispatch(a);
            portable::weighted(a, others, coefficients).into_dispatch()
        },
        scaled: |a, times| {
            let [a, times] = [a, times].map(Tensor::<D>::from_dispatch);
            portable::scaled(a, times).into_dispatch()
        },
        choice: |a, flag, instead| {
            let [a, instead] = [a, instead].map(Tensor::<D>::from_dispatch);
            a.mask_where(Tensor::from_dispatch(flag), instead)
                .into_dispatch()
        },
        way: |tensors| {
            let [from, to, times] = tensors.map(Tensor::<D>::from_dispatch);
            portable::way(from, to, times).into_dispatch()
        },
        spread: |value| match D {
            1 => value.into_dispatch(),
            _ => value.reshape([1; D]).into_dispatch(),
        },
        spread_flag: |flag| match D {
            1 => flag.into_dispatch(),
            _ => flag.reshape([1; D]).into_dispatch(),
        },
        expanded: |flag, shape| {
            let expanded: Tensor<D, Bool> = match D {
                1 => flag.expand(shape),
                _ => flag.reshape([1; D]).expand(shape),
            };
            expanded.into_dispatch()
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

    pub(crate) fn in_type_of(self, other: &Self) -> Self {
        let device = self.device().clone();
        self.moved(&device, other.dtype())
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
        let zeros_like = self.0.rank.zeros_like;
        self.clone().with(|tensor| zeros_like(&tensor))
    }

    /// Values, in their order, of shape `[elements]`, whose filters along this dimension are scaled to be as long
    /// as this part's.
    pub fn filters_like(&self, values: Tensor<1>, dim: usize) -> Tensor<1> {
        (self.0.rank.filters)(self.tensor(), values, dim)
    }

    /// Normal values, each filter along this dimension (or the whole, if there is none) times the norm of this part's,
    /// in its shape and type. They are drawn by Burn on the device, and so after its seed.
    pub fn noise(&self, dim: Option<usize>) -> Self {
        let noise = self.0.rank.noise;
        self.clone().with(|tensor| noise(&tensor, dim))
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

    /// The sums over this part and two others of its parameter, if the reduction reads them.
    pub(crate) fn portable_reduce(
        &self,
        others: [Option<&Self>; 2],
        reduction: Reduction,
    ) -> Vec<Tensor<1>> {
        let [b, c] = others.map(|other| other.unwrap_or(self).tensor());
        (self.0.rank.reduce)([self.tensor(), b, c], reduction)
    }

    /// The elements of several parts of one device and type, in any shape; nothing of no parts.
    pub(crate) fn joined<'a>(parts: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let (some, empty): (Vec<&Self>, Vec<&Self>) =
            parts.partition(|part| part.shape().num_elements() > 0);
        match some[..] {
            [] => empty.first().map(|part| (*part).clone()),
            [part] => Some(part.clone()),
            [first, ..] => {
                let flat = some.iter().map(|part| (*part).clone().flat());
                Some(Self::new(first.place(), Tensor::cat(flat.collect(), 0)))
            }
        }
    }

    /// This weight, climbed along a gradient by rho times a factor, or not at all.
    pub(crate) fn portable_perturb(
        self,
        grad: Self,
        (factor, refused): (&Factor, &Mask),
        rho: f64,
        eta: Option<f64>,
    ) -> Self {
        let perturb = self.0.rank.perturb;
        let (factor, refused) = (factor.beside(&self, rho), refused.beside(&self));
        self.with(|weight| perturb([weight, grad.into_dispatch(), factor, refused], eta))
    }

    pub(crate) fn portable_minus(self, other: Self) -> Self {
        let minus = self.0.rank.minus;
        self.with(|tensor| minus(tensor, other.into_dispatch()))
    }

    /// With coefficients on the device, each with whether it is 0.
    pub(crate) fn portable_sum(self, others: Vec<Self>, coefficients: &[(Factor, Mask)]) -> Self {
        let sum_of_terms = self.0.rank.sum_of_terms;
        let values: Vec<[DispatchTensor; 2]> = (coefficients.iter())
            .map(|(value, is_zero)| [value.beside(&self, 1.0), is_zero.beside(&self)])
            .collect();
        self.with(|tensor| {
            let others = others.into_iter().map(Self::into_dispatch);
            let tensors = [tensor].into_iter().chain(others);
            let terms = tensors.zip(values);
            sum_of_terms(
                terms
                    .map(|(tensor, [value, is_zero])| [tensor, value, is_zero])
                    .collect(),
            )
        })
    }

    /// With coefficients that the host knows.
    pub(crate) fn portable_weighted(self, others: Vec<Self>, coefficients: &[f64]) -> Self {
        let weighted = self.0.rank.weighted;
        let others = others.into_iter().map(Self::into_dispatch).collect();
        self.with(|tensor| weighted(tensor, others, coefficients))
    }

    pub(crate) fn portable_scaled(self, times: &Factor) -> Self {
        let (scaled, times) = (self.0.rank.scaled, times.beside(&self, 1.0));
        self.with(|tensor| scaled(tensor, times))
    }

    /// This part, or another one where a flag is true.
    pub(crate) fn portable_choice(self, flag: &Choice, instead: Self) -> Self {
        if self.shape().num_elements() == 0 {
            return self;
        }
        let (choice, flag) = (self.0.rank.choice, flag.beside(&self));
        self.with(|tensor| choice(tensor, flag, instead.into_dispatch()))
    }

    /// So many times the way from here.
    pub(crate) fn portable_way(self, to: Self, times: &Factor) -> Self {
        let (way, times) = (self.0.rank.way, times.beside(&self, 1.0));
        self.with(|from| way([from, to.into_dispatch(), times]))
    }

    /// A number, of shape `[1; D]`.
    pub(crate) fn spread(&self, value: Tensor<1>) -> DispatchTensor {
        (self.0.rank.spread)(value)
    }

    pub(crate) fn spread_flag(&self, flag: Tensor<1, Bool>) -> DispatchTensor {
        (self.0.rank.spread_flag)(flag)
    }

    /// A flag, in this part's shape.
    pub(crate) fn expanded(&self, flag: Tensor<1, Bool>) -> DispatchTensor {
        (self.0.rank.expanded)(flag, self.shape())
    }

    /// How many dimensions it has.
    pub(crate) fn rank(&self) -> usize {
        self.0.rank.number
    }

    /// With another tensor of the same shape, device and type.
    fn with(self, f: impl FnOnce(DispatchTensor) -> DispatchTensor) -> Self {
        let (shell, tensor) = self.into_shell();
        shell.filled(f(tensor))
    }

    /// Whether its backend has kernels of its own for its type.
    #[allow(unreachable_patterns)]
    pub(crate) fn has_kernels(&self) -> bool {
        if crate::internals::WITHOUT_KERNELS.get() {
            return false;
        }
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
            _ => {
                crate::kernels::computes(self.device())
                    && matches!(_dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
            }
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
