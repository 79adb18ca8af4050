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
pub fn total(sums: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    let home = sums
        .iter()
        .find(|sum| sum.dtype() == DType::F64)
        .or(sums.first())?;
    let (device, dtype) = (home.device(), home.dtype());
    sums.into_iter()
        .map(|sum| sum.to_device(&device).cast(dtype))
        .reduce(|total, sum| total + sum)
}

/// The factor that all parameters share, 1 / (norm + eps) or so many times that, and whether it may be used.
///
/// A factor of 0 alone does not keep a gradient out, for 0 times infinity is NaN: `refused` has to
/// replace the gradient too.
#[derive(Clone, Debug)]
pub struct Scale {
    factor: Tensor<1>,
    /// True, on the device, where the norm is not finite or there is nothing to divide by.
    refused: Tensor<1, Bool>,
}

impl Scale {
    /// The scale for a squared norm of shape `[1]` (see [`total`]) and a stability constant.
    ///
    /// Where the norm is not finite, or is 0 with an `eps` of 0, the scale stands for no
    /// perturbation at all. That is decided on the device; nothing is read back. With a factor of all
    /// radii, of shape `[1]` on any device, it is so many times as large.
    pub fn new(squared_norm: Tensor<1>, eps: f64, factor: Option<Tensor<1>>) -> Self {
        let norm = squared_norm.sqrt();
        let scale = norm.clone().add_scalar(eps).recip();
        let factor = match factor {
            Some(factor) => scale.clone() * factor.to_device(&scale.device()).cast(scale.dtype()),
            None => scale,
        };
        let refused = norm
            .is_finite()
            .bool_and(factor.clone().is_finite())
            .bool_not();
        Self {
            factor: factor.mask_fill(refused.clone(), 0.0),
            refused,
        }
    }
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
    if weight.shape().num_elements() == 0 {
        return weight;
    }
    let (device, dtype) = (weight.device(), weight.dtype());
    let wide = accumulation_dtype([dtype]);
    let factor = scale.factor.clone().cast(wide).to_device(&device) * rho;
    let refused = scale.refused.clone().to_device(&device);

    let weight = weight.cast(wide);
    let grad = grad
        .cast(wide)
        .mask_fill(refused.reshape([1; D]).expand(weight.shape()), 0.0);
    // T g is scaled before it is multiplied by T again: each factor is at most rho, so that
    // nothing overflows which the formula itself does not.
    let ascent = match eta {
        None => grad * factor.reshape([1; D]),
        Some(eta) => {
            let t = magnitude(weight.clone(), eta);
            t.clone() * (t * grad * factor.reshape([1; D]))
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
/// is a, bit for bit.
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
    if a.shape().num_elements() == 0 {
        return a;
    }
    let (device, dtype, shape) = (a.device(), a.dtype(), a.shape());
    let wide = accumulation_dtype([dtype]);
    let expand = |flag: Tensor<1, Bool>| flag.reshape([1; D]).expand(shape.clone());
    let mut only_a: Option<Tensor<1, Bool>> = None;
    let mut sum: Option<Tensor<D>> = None;
    for (tensor, coefficient) in [&a].into_iter().chain(others).zip(coefficients) {
        let coefficient = coefficient.clone().to_device(&device).cast(wide);
        let term = tensor.clone().cast(wide) * coefficient.clone().reshape([1; D]);
        let unread = coefficient.clone().equal_elem(0.0);
        let term = term.mask_fill(expand(unread.clone()), 0.0);
        only_a = Some(match only_a {
            None => coefficient.equal_elem(1.0),
            Some(only_a) => only_a.bool_and(unread),
        });
        sum = Some(match sum {
            None => term,
            Some(sum) => sum + term,
        });
    }
    match sum.zip(only_a) {
        None => a,
        Some((sum, only_a)) => sum.cast(dtype).mask_where(expand(only_a), a),
    }
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
