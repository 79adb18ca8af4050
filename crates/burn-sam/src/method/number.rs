//! What several equations share.

use burn::tensor::Tensor;
use burn_sam_kernels::Number;

/// The share of a vector h that is as long as g: min(1, |g| / |h|), of their squared norms; all of h where g is 0.
pub(crate) fn length_limit(gg: &Number, hh: &Number) -> Number {
    let share = (gg / hh).sqrt().clamp(0.0, 1.0);
    let nothing_to_compare = share.is_nan().or(&gg.is(0.0));
    share.or_if(&nothing_to_compare, 1.0)
}

/// A value on another's device and in its type.
pub(crate) fn beside(value: Tensor<1>, other: &Tensor<1>) -> Tensor<1> {
    value.to_device(&other.device()).cast(other.dtype())
}

/// Numbers in a tensor, on another's device and in its type.
pub(crate) fn tensor_like<const N: usize>(numbers: [Number; N], other: &Tensor<1>) -> Tensor<1> {
    Number::tensor(numbers, &other.device(), other.dtype().into())
}
