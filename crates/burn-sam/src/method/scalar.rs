//! Numbers on the device, of shape `[1]`: what the equations have in common.

use burn::tensor::{Bool, Tensor};

/// This value, or 0 where it is not finite.
pub(crate) fn or_zero(value: Tensor<1>) -> Tensor<1> {
    let refused = is_not_finite(&value);
    value.mask_fill(refused, 0.0)
}

pub(crate) fn is_not_finite(value: &Tensor<1>) -> Tensor<1, Bool> {
    value.clone().is_nan().bool_or(value.clone().is_inf())
}

/// The values, or others where a flag is true.
pub(crate) fn set_where(
    [x, y]: [Tensor<1>; 2],
    flag: &Tensor<1, Bool>,
    [other_x, other_y]: [f64; 2],
) -> [Tensor<1>; 2] {
    [
        x.mask_fill(flag.clone(), other_x),
        y.mask_fill(flag.clone(), other_y),
    ]
}

/// The share of a vector h that is as long as g: min(1, |g| / |h|), of their squared norms; all of h where g is 0.
pub(crate) fn length_limit(gg: &Tensor<1>, hh: &Tensor<1>) -> Tensor<1> {
    let share = (gg.clone() / hh.clone()).sqrt().clamp_max(1.0);
    let nothing_to_compare = share.clone().is_nan().bool_or(gg.clone().equal_elem(0.0));
    share.mask_fill(nothing_to_compare, 1.0)
}

/// A value on another's device and in its type.
pub(crate) fn beside(value: Tensor<1>, other: &Tensor<1>) -> Tensor<1> {
    value.to_device(&other.device()).cast(other.dtype())
}

/// A value, or another where it is NaN: not known yet.
pub(crate) fn known_or(value: Tensor<1>, other: &Tensor<1>) -> Tensor<1> {
    let unknown = value.clone().is_nan();
    value.mask_where(unknown, other.clone())
}
