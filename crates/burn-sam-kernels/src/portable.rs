//! The operations as plain tensor operations: they run on every backend, and they are the
//! reference that every other implementation is tested against.
//!
//! Norms and perturbations are computed in f64 where the tensors are f64 and in f32 everywhere
//! else, so that half-precision gradients neither overflow nor vanish when squared.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use burn_sam_kernels::portable::{Scale, perturb, sum_of_squares, total};
//!
//! let device = Device::flex();
//! let weight = Tensor::<1>::from_floats([1.0, 2.0], &device);
//! let grad = Tensor::<1>::from_floats([3.0, 4.0], &device);
//!
//! let norm = total(vec![sum_of_squares(&weight, grad.clone(), None)]).unwrap();
//! let climbed = perturb(weight, grad, &Scale::new(norm, 0.0, None), 0.5, None);
//!
//! let [a, b] = climbed.into_data().to_vec::<f32>().unwrap()[..] else { unreachable!() };
//! assert!((a - 1.3).abs() < 1e-6 && (b - 2.4).abs() < 1e-6); // w + 0.5 g / 5
//! ```

use burn::tensor::{Bool, DType, FloatDType, Tensor};

/// The squared norm of one parameter's gradient, |T g|², as a tensor of shape `[1]`.
///
/// # Arguments
///
/// * `weight` - the parameter w, of any shape. Read only with `eta`.
/// * `grad` - its gradient g, of the same shape and on the same device.
/// * `eta` - `None` for plain SAM (T = 1), or the eta of ASAM's T = |w| + eta.
///
/// The sum is f64 for f64 gradients and f32 for all others. It is 0 for an empty tensor and not
/// finite if any gradient is not.
pub fn sum_of_squares<const D: usize>(
    weight: &Tensor<D>,
    grad: Tensor<D>,
    eta: Option<f64>,
) -> Tensor<1> {
    let wide = accumulation_dtype([grad.dtype()]);
    if grad.shape().num_elements() == 0 {
        return Tensor::zeros([1], (&grad.device(), DType::from(wide)));
    }
    let grad = grad.cast(wide);
    let grad = match eta {
        None => grad,
        Some(eta) => magnitude(weight.clone().cast(wide), eta) * grad,
    };
    grad.square().sum()
}

/// The sum of the given sums, of shape `[1]`, or `None` of none.
///
/// It is f64 if any of them is, and on the device of the first of that type.
pub fn total(mut sums: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    if sums.len() < 2 {
        return sums.pop();
    }
    let wide = sums.iter().find(|sum| sum.dtype() == DType::F64);
    let home = wide.unwrap_or(&sums[0]);
    let (device, dtype) = (home.device(), home.dtype());
    let beside = |sum: Tensor<1>| sum.to_device(&device).cast(dtype);
    Some(Tensor::cat(sums.into_iter().map(beside).collect(), 0).sum())
}

/// The factor that all parameters share, 1 / (norm + eps) or so many times that, and whether it may be used.
///
/// A factor of 0 alone does not keep a gradient out, for 0 times infinity is NaN: where it is refused, the gradient
/// is replaced too.
#[derive(Clone, Debug)]
pub struct Scale {
    pub(crate) factor: Tensor<1>,
    /// True, on the device, where the norm is not finite or there is nothing to divide by.
    pub(crate) refused: Tensor<1, Bool>,
}

impl Scale {
    /// The scale for a squared norm of shape `[1]` (see [`total`]) and a stability constant.
    ///
    /// Where the norm is not finite, or is 0 with an `eps` of 0, the scale stands for no
    /// perturbation at all. That is decided on the device; nothing is read back. With a factor of all
    /// radii, of shape `[1]` on any device, it is so many times as large.
    pub fn new(squared_norm: Tensor<1>, eps: f64, factor: Option<Tensor<1>>) -> Self {
        Self::of(squared_norm.sqrt() + eps, factor)
    }

    /// For a norm with eps.
    pub(crate) fn of(norm: Tensor<1>, factor: Option<Tensor<1>>) -> Self {
        let scale = norm.clone().recip();
        let factor = match factor {
            Some(factor) => factor.to_device(&scale.device()).cast(scale.dtype()) * scale,
            None => scale,
        };
        let refused = is_not_finite(norm * factor.clone());
        Self {
            factor: factor.mask_fill(refused.clone(), 0.0),
            refused,
        }
    }
}

/// Whether a number is NaN. Burn's `is_nan` is `x != x` on a remote device, and that is false on wgpu.
pub(crate) fn is_nan(number: Tensor<1>) -> Tensor<1, Bool> {
    number.lower_equal_elem(f64::INFINITY).bool_not()
}

/// Whether a number is infinite or NaN.
pub(crate) fn is_not_finite(number: Tensor<1>) -> Tensor<1, Bool> {
    (number * 0.0).equal_elem(0.0).bool_not()
}

/// The climbed parameter w + rho T² g / (norm + eps), of w's shape, type and device.
///
/// Equation 2 of [SAM](https://arxiv.org/abs/2010.01412), or of
/// [ASAM](https://arxiv.org/abs/2102.11600) with `eta`. Where `scale` stands for no perturbation,
/// the result is w, whatever the gradient holds.
///
/// # Arguments
///
/// * `weight` - the parameter w, of any shape.
/// * `grad` - its gradient g, of the same shape and on the same device.
/// * `scale` - 1 / (norm + eps), over all parameters.
/// * `rho` - the radius, in the units of the weights (of T's, if adaptive).
/// * `eta` - as for [`sum_of_squares`].
pub fn perturb<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    scale: &Scale,
    rho: f64,
    eta: Option<f64>,
) -> Tensor<D> {
    let device = weight.device();
    let wide = accumulation_dtype([weight.dtype()]);
    let factor = scale.factor.clone().to_device(&device).cast(wide) * rho;
    let refused = scale.refused.clone().to_device(&device);
    let (factor, refused) = (factor.reshape([1; D]), refused.reshape([1; D]));
    perturb_by(weight, grad, factor, refused, eta)
}

/// As [`perturb`], by rho / (norm + eps), where that is not refused; both of as many dimensions.
pub(crate) fn perturb_by<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    factor: Tensor<D>,
    refused: Tensor<D, Bool>,
    eta: Option<f64>,
) -> Tensor<D> {
    if weight.shape().num_elements() == 0 {
        return weight;
    }
    let dtype = weight.dtype();
    let wide = accumulation_dtype([dtype]);
    let weight = weight.cast(wide);
    let grad = grad.cast(wide).mask_fill(refused, 0.0);
    // T g is scaled before it is multiplied by T again: each factor is at most rho, so that
    // nothing overflows which the formula itself does not.
    let ascent = match eta {
        None => grad * factor,
        Some(eta) => {
            let t = magnitude(weight.clone(), eta);
            t.clone() * (t * grad * factor)
        }
    };
    (weight + ascent).cast(dtype)
}

/// The inner product of two tensors of the same shape, on the same device, as a tensor of shape `[1]`.
///
/// It is f64 if either of them is and f32 otherwise, and 0 for empty tensors.
pub fn inner_product<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<1> {
    let wide = accumulation_dtype([a.dtype(), b.dtype()]);
    if a.shape().num_elements() == 0 {
        return Tensor::zeros([1], (&a.device(), DType::from(wide)));
    }
    (a.cast(wide) * b.cast(wide)).sum()
}

/// The linear combination of tensors, x a + y b + .., of a's type and device.
///
/// A tensor whose coefficient is 0 may hold anything. Where a alone counts, with a coefficient of 1, the result
/// is a.
///
/// # Arguments
///
/// * `a`, `others` - tensors of the same shape, on the same device.
/// * `coefficients` - of a and of each of the others, of shape `[1]`, on any device.
pub fn combine<const D: usize>(
    a: Tensor<D>,
    others: &[Tensor<D>],
    coefficients: &[Tensor<1>],
) -> Tensor<D> {
    let (device, dtype) = (a.device(), a.dtype());
    let wide = accumulation_dtype([dtype]);
    let coefficients = coefficients.iter().map(|value| {
        let value = value.clone().to_device(&device).cast(wide).reshape([1; D]);
        (value.clone(), value.equal_elem(0.0))
    });
    let tensors = [a].into_iter().chain(others.iter().cloned());
    sum_of_terms(tensors.zip(coefficients).collect())
}

/// As [`combine`], of each tensor with its coefficient and whether that is 0, both of as many dimensions.
pub(crate) fn sum_of_terms<const D: usize>(
    terms: Vec<(Tensor<D>, (Tensor<D>, Tensor<D, Bool>))>,
) -> Tensor<D> {
    let dtype = terms[0].0.dtype();
    let wide = accumulation_dtype([dtype]);
    let terms = terms.into_iter().map(|(tensor, (value, is_zero))| {
        if tensor.shape().num_elements() == 0 {
            return tensor.cast(wide);
        }
        // Of the two zeros, the one that leaves a sum as it is.
        (tensor.cast(wide) * value).mask_fill(is_zero, -0.0)
    });
    let sum = terms.reduce(|sum, term| sum + term);
    sum.expect("at least one term").cast(dtype)
}

/// A linear combination, of a's type, with coefficients that the host knows.
pub(crate) fn weighted<const D: usize>(
    a: Tensor<D>,
    others: Vec<Tensor<D>>,
    coefficients: &[f64],
) -> Tensor<D> {
    if coefficients.iter().all(|number| *number == 0.0) {
        return a.zeros_like();
    }
    let dtype = a.dtype();
    let wide = accumulation_dtype([dtype]);
    let terms = ([a].into_iter().chain(others).zip(coefficients))
        .filter(|(_, number)| **number != 0.0)
        .map(|(tensor, number)| match *number {
            1.0 => tensor.cast(wide),
            number => tensor.cast(wide) * number,
        });
    let sum = terms.reduce(|sum, term| sum + term);
    sum.expect("one that is not 0").cast(dtype)
}

/// So many times a tensor, of its type.
pub(crate) fn scaled<const D: usize>(a: Tensor<D>, times: Tensor<D>) -> Tensor<D> {
    let dtype = a.dtype();
    (a.cast(accumulation_dtype([dtype])) * times).cast(dtype)
}

/// So many times the way from one tensor to another, of their type.
pub(crate) fn way<const D: usize>(from: Tensor<D>, to: Tensor<D>, times: Tensor<D>) -> Tensor<D> {
    let dtype = from.dtype();
    let wide = accumulation_dtype([dtype]);
    ((to.cast(wide) - from.cast(wide)) * times).cast(dtype)
}

/// ASAM's T = |w| + eta.
fn magnitude<const D: usize>(weight: Tensor<D>, eta: f64) -> Tensor<D> {
    weight.abs().add_scalar(eta)
}

/// What tensors of these types are computed in together.
pub(crate) fn accumulation_dtype(dtypes: impl IntoIterator<Item = DType>) -> FloatDType {
    match dtypes.into_iter().any(|dtype| dtype == DType::F64) {
        true => FloatDType::F64,
        false => FloatDType::F32,
    }
}
