//! The numbers that equations are made of: on the host where reading them waits for nothing, and elsewhere on the
//! device, of shape `[1]`. An equation is written once for both.

use core::ops::{Add, Div, Mul, Neg, Sub};

use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use burn_sam_kernels::portable::is_no_norm;
use burn_sam_kernels::{Coefficient, Coefficients, known};

/// A number.
#[allow(clippy::large_enum_variant, reason = "none outlives an equation")]
#[derive(Clone, Debug)]
pub(crate) enum Number {
    Host(f64),
    Device(Tensor<1>),
}

/// Whether something is so.
#[allow(clippy::large_enum_variant, reason = "none outlives an equation")]
#[derive(Clone, Debug)]
pub(crate) enum Flag {
    Host(bool),
    /// Of numbers of this type.
    Device(Tensor<1, Bool>, DType),
}

impl Number {
    /// Of a tensor of shape `[1]`.
    pub(crate) fn of(value: Tensor<1>) -> Self {
        let [value] = Self::all(value);
        value
    }

    /// Those in a tensor of shape `[N]`.
    pub(crate) fn all<const N: usize>(values: Tensor<1>) -> [Self; N] {
        if let Some(known) = known(&values) {
            return core::array::from_fn(|index| Self::Host(known[index]));
        }
        // The last one takes the tensor, whose end would be a message of its own on a device far away.
        let mut values = Some(values);
        core::array::from_fn(|index| {
            let all = match index + 1 == N {
                true => values.take(),
                false => values.clone(),
            };
            let all = all.expect("the last one is taken last");
            Self::Device(if N == 1 { all } else { all.narrow(0, index, 1) })
        })
    }

    /// A tensor of them, on another's device and in its type.
    pub(crate) fn tensor<const N: usize>(numbers: [Self; N], like: &Tensor<1>) -> Tensor<1> {
        if let Some(values) = numbers.iter().map(Self::host).collect::<Option<Vec<_>>>() {
            let data = TensorData::new(values, [N]);
            return Tensor::from_data(data, (&like.device(), like.dtype()));
        }
        let numbers = numbers.map(|number| beside(number.like(like), like));
        match N {
            1 => numbers.into_iter().next().expect("one"),
            _ => Tensor::cat(numbers.to_vec(), 0),
        }
    }

    pub(crate) fn host(&self) -> Option<f64> {
        match self {
            Self::Host(value) => Some(*value),
            Self::Device(_) => None,
        }
    }

    fn like(self, other: &Tensor<1>) -> Tensor<1> {
        match self {
            Self::Host(value) => full(value, &other.device(), other.dtype()),
            Self::Device(value) => value,
        }
    }

    fn map(self, host: impl Fn(f64) -> f64, device: impl Fn(Tensor<1>) -> Tensor<1>) -> Self {
        match self {
            Self::Host(value) => Self::Host(host(value)),
            Self::Device(value) => Self::Device(device(value)),
        }
    }

    pub(crate) fn sqrt(self) -> Self {
        self.map(f64::sqrt, Tensor::sqrt)
    }

    pub(crate) fn powf(self, power: f64) -> Self {
        self.map(|x| x.powf(power), |x| x.powf_scalar(power))
    }

    pub(crate) fn clamp(self, least: f64, most: f64) -> Self {
        self.map(|x| x.clamp(least, most), |x| x.clamp(least, most))
    }

    pub(crate) fn at_most(self, most: f64) -> Self {
        let host = |x| if x > most { most } else { x };
        self.map(host, |x| x.clamp_max(most))
    }

    /// The larger one; this one where one is NaN.
    pub(crate) fn max(self, other: impl Into<Self>) -> Self {
        let other = other.into();
        let is_less = self.is_below(&other);
        self.or_if(is_less, other)
    }

    /// The smaller one; this one where one is NaN.
    pub(crate) fn min(self, other: impl Into<Self>) -> Self {
        let other = other.into();
        let is_less = other.is_below(&self);
        self.or_if(is_less, other)
    }

    pub(crate) fn is_nan(&self) -> Flag {
        match self {
            Self::Host(value) => Flag::Host(value.is_nan()),
            Self::Device(value) => Flag::Device(value.clone().is_nan(), value.dtype()),
        }
    }

    pub(crate) fn is_not_finite(&self) -> Flag {
        match self {
            Self::Host(value) => Flag::Host(!value.is_finite()),
            Self::Device(value) => {
                let is_not_finite = value.clone().is_nan().bool_or(value.clone().is_inf());
                Flag::Device(is_not_finite, value.dtype())
            }
        }
    }

    /// Whether a norm, or the square of one, is infinite or NaN.
    pub(crate) fn is_no_norm(&self) -> Flag {
        match self {
            Self::Host(value) => Flag::Host(!value.is_finite()),
            Self::Device(value) => Flag::Device(is_no_norm(value.clone()), value.dtype()),
        }
    }

    pub(crate) fn is_below(&self, other: impl Into<Self>) -> Flag {
        match (self.clone(), other.into()) {
            (Self::Host(x), Self::Host(y)) => Flag::Host(x < y),
            (Self::Device(x), Self::Host(y)) => {
                let dtype = x.dtype();
                Flag::Device(x.lower_elem(y), dtype)
            }
            (x, Self::Device(y)) => {
                let (x, dtype) = (x.like(&y), y.dtype());
                Flag::Device(x.lower(y), dtype)
            }
        }
    }

    pub(crate) fn is_at_most(&self, value: f64) -> Flag {
        match self {
            Self::Host(x) => Flag::Host(*x <= value),
            Self::Device(x) => Flag::Device(x.clone().lower_equal_elem(value), x.dtype()),
        }
    }

    pub(crate) fn is(&self, value: f64) -> Flag {
        match self {
            Self::Host(x) => Flag::Host(*x == value),
            Self::Device(x) => Flag::Device(x.clone().equal_elem(value), x.dtype()),
        }
    }

    /// This number, or another where a flag is true.
    pub(crate) fn or_if(self, flag: Flag, other: impl Into<Self>) -> Self {
        let other = other.into();
        match flag {
            Flag::Host(false) => self,
            Flag::Host(true) => other,
            Flag::Device(flag, dtype) => Self::Device(match (self, other) {
                (Self::Device(value), Self::Host(other)) => value.mask_fill(flag, other),
                (value, Self::Device(other)) => value.like(&other).mask_where(flag, other),
                (Self::Host(value), Self::Host(other)) => {
                    full(value, &flag.device(), dtype).mask_fill(flag, other)
                }
            }),
        }
    }

    /// This number, or another where it is NaN: not known yet.
    pub(crate) fn or(self, other: impl Into<Self>) -> Self {
        let unknown = self.is_nan();
        self.or_if(unknown, other)
    }
}

impl Flag {
    /// Of shape `[1]`.
    pub(crate) fn tensor(self, device: &Device) -> Tensor<1, Bool> {
        match self {
            Self::Host(flag) => Tensor::from_data([flag], device),
            Self::Device(flag, _) => flag,
        }
    }

    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Host(x), Self::Host(y)) => Self::Host(x || y),
            (Self::Device(x, dtype), Self::Device(y, _)) => Self::Device(x.bool_or(y), dtype),
            (Self::Host(true), _) | (_, Self::Host(true)) => Self::Host(true),
            (flag, Self::Host(false)) | (Self::Host(false), flag) => flag,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Host(x), Self::Host(y)) => Self::Host(x && y),
            (Self::Device(x, dtype), Self::Device(y, _)) => Self::Device(x.bool_and(y), dtype),
            (Self::Host(false), _) | (_, Self::Host(false)) => Self::Host(false),
            (flag, Self::Host(true)) | (Self::Host(true), flag) => flag,
        }
    }

    pub(crate) fn not(self) -> Self {
        match self {
            Self::Host(flag) => Self::Host(!flag),
            Self::Device(flag, dtype) => Self::Device(flag.bool_not(), dtype),
        }
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Host(value)
    }
}

impl From<&Number> for Number {
    fn from(value: &Number) -> Self {
        value.clone()
    }
}

macro_rules! operators {
    ($($operator:ident, $method:ident, $by_scalar:ident;)*) => { $(
        impl<T: Into<Number>> $operator<T> for Number {
            type Output = Number;

            fn $method(self, other: T) -> Number {
                match (self, other.into()) {
                    (Self::Host(x), Self::Host(y)) => Self::Host(x.$method(y)),
                    (Self::Device(x), Self::Host(y)) => Self::Device(x.$by_scalar(y)),
                    (x, Self::Device(y)) => Self::Device(x.like(&y).$method(y)),
                }
            }
        }

        impl<T: Into<Number>> $operator<T> for &Number {
            type Output = Number;

            fn $method(self, other: T) -> Number {
                self.clone().$method(other)
            }
        }

        impl $operator<Number> for f64 {
            type Output = Number;

            fn $method(self, other: Number) -> Number {
                Number::Host(self).$method(other)
            }
        }
    )* };
}

operators! {
    Add, add, add_scalar;
    Sub, sub, sub_scalar;
    Mul, mul, mul_scalar;
    Div, div, div_scalar;
}

impl Neg for Number {
    type Output = Self;

    fn neg(self) -> Self {
        self.map(f64::neg, Tensor::neg)
    }
}

impl Coefficient for Number {
    fn all(of: Vec<Self>) -> Coefficients {
        if let Some(numbers) = of.iter().map(Self::host).collect() {
            return Coefficients::Numbers(numbers);
        }
        let on_device = of.iter().find_map(|number| match number {
            Self::Device(value) => Some(value.clone()),
            Self::Host(_) => None,
        });
        let like = on_device.expect("one that is not on the host");
        let values = of.into_iter().map(|number| number.like(&like));
        Coefficients::Values(values.collect())
    }
}

/// The share of a vector h that is as long as g: min(1, |g| / |h|), of their squared norms; all of h where g is 0.
pub(crate) fn length_limit(gg: &Number, hh: &Number) -> Number {
    let share = (gg.clone() / hh.clone()).sqrt().at_most(1.0);
    let nothing_to_compare = share.is_nan().or(gg.is(0.0));
    share.or_if(nothing_to_compare, 1.0)
}

fn full(value: f64, device: &Device, dtype: DType) -> Tensor<1> {
    Tensor::full([1], value, (device, dtype))
}

/// A value on another's device and in its type.
pub(crate) fn beside(value: Tensor<1>, other: &Tensor<1>) -> Tensor<1> {
    value.to_device(&other.device()).cast(other.dtype())
}

#[cfg(test)]
mod tests {
    use burn_sam_kernels::Vector;
    use proptest::prelude::*;

    use super::*;
    use crate::method::tests::{PLACES, numbers, read, values, vector};

    fn any_number() -> impl Strategy<Value = f64> {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0];
        prop_oneof![-10.0..10.0f64, prop::sample::select(odd.to_vec())]
    }

    fn is(flag: Flag) -> bool {
        let flag = flag.tensor(&Device::flex());
        flag.into_data().iter::<bool>().next().unwrap()
    }

    /// All that equations do with numbers.
    fn all(x: Number, y: Number) -> Vec<f64> {
        let flag = x.is_below(&y);
        let numbers = [
            &x + &y,
            &x - &y,
            &x * &y,
            &x / &y,
            2.0 - y.clone(),
            &y / 3.0,
            -x.clone(),
            x.clone().sqrt(),
            x.clone().powf(-0.05),
            x.clone().clamp(-1.0, 2.0),
            x.clone().at_most(2.0),
            x.clone().max(&y),
            x.clone().min(&y),
            x.clone().or(&y),
            x.clone().or_if(flag.clone(), &y),
            x.clone().or_if(flag.clone(), 7.0),
            length_limit(&x, &y),
        ];
        let flags = [
            flag.clone(),
            x.is_below(1.0),
            x.is_nan(),
            x.is_not_finite(),
            (&x * &x).is_no_norm(),
            x.is_at_most(0.0),
            x.is(0.0),
            flag.clone().not(),
            flag.clone().or(x.is_nan()),
            flag.and(y.is_not_finite()),
        ];
        let flags = flags.map(|flag| f64::from(is(flag)));
        numbers.map(read).into_iter().chain(flags).collect()
    }

    proptest! {
        #[test]
        fn an_equation_is_the_same_on_the_host_and_on_the_device(x in any_number(), y in any_number()) {
            let [host, device] = PLACES;
            let expected = all(host(x), host(y));
            for (of_x, of_y) in [(device, device), (host, device), (device, host)] {
                for (index, (value, expected)) in all(of_x(x), of_y(y)).iter().zip(&expected).enumerate() {
                    let is_same = value == expected
                        || (value - expected).abs() <= 1e-12 * expected.abs()
                        || (value.is_nan() && expected.is_nan());
                    prop_assert!(is_same, "{index}: {value} for {expected}, of {x} and {y}");
                }
            }
        }

        #[test]
        fn what_is_put_into_a_tensor_comes_back(x in any_number(), y in any_number()) {
            let like = numbers(&[0.0]);
            for (of_x, of_y) in PLACES.into_iter().flat_map(|x| PLACES.map(|y| (x, y))) {
                let tensor = Number::tensor([of_x(x), of_y(y)], &like);
                prop_assert_eq!(tensor.dims(), [2]);
                let values = Number::all::<2>(tensor).map(read);
                prop_assert_eq!(values.map(f64::to_bits), [x, y].map(f64::to_bits));
            }
        }
    }

    #[test]
    fn vectors_are_multiplied_by_them_wherever_they_are() {
        let combined = |x, y| {
            let v: Vector = vector(&[1.0, 2.0]);
            values(&v.combine(x, &[(&vector(&[10.0, f64::NAN]), y)]))
        };
        for (x, y) in PLACES.into_iter().flat_map(|x| PLACES.map(|y| (x, y))) {
            assert_eq!(combined(x(3.0), y(0.0)), [3.0, 6.0]);
            assert_eq!(combined(x(3.0), y(0.5))[0], 8.0);
        }
    }
}
