//! The numbers that vectors are multiplied by, and what is made of them.

use core::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Tensor};

use crate::formula::{self, Operation, Value};
use crate::known;
use crate::portable::accumulation_dtype;

/// A number: the host's, or a device's.
///
/// What is made of a device's numbers is not worked out before it is asked for, and then all of it together: where the
/// device has kernels, in one launch. Nothing waits for the device.
///
/// It is f64 if a number that it is made of is, and f32 otherwise. Numbers on several devices are worked out where the first
/// one of the widest type is.
///
/// ```
/// use burn::tensor::{Device, FloatDType, Tensor};
/// use burn_sam_kernels::Number;
///
/// let device = Device::flex();
/// let [x, y] = Number::all(Tensor::from_floats([3.0, f32::NAN], &device));
/// let norm = (&x * &x + 16.0).sqrt();
/// let known = y.or(0.5);
///
/// let values = Number::tensor([norm, known], &device, FloatDType::F32);
/// assert_eq!(values.into_data().to_vec::<f32>().unwrap(), [5.0, 0.5]);
/// ```
#[derive(Clone, Debug)]
pub struct Number(Value);

/// Whether something is so, as a [`Number`] is a number.
#[derive(Clone, Debug)]
pub struct Flag(Value);

impl Number {
    /// Those in a tensor of shape `[N]`, without autodiff.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    pub fn all<const N: usize>(values: Tensor<1>) -> [Self; N] {
        assert_eq!(values.dims(), [N], "a tensor of so many numbers");
        Self::each(values).try_into().expect("as many numbers")
    }

    /// One of those in a tensor of shape `[N]`, without autodiff.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    pub fn at(values: Tensor<1>, index: usize) -> Self {
        let [count] = values.dims();
        assert!(index < count, "number {index} of {count}");
        Self::each(values).swap_remove(index)
    }

    fn each(values: Tensor<1>) -> Vec<Self> {
        if let Some(known) = known(&values) {
            return known.into_iter().map(Self::from).collect();
        }
        let wide = accumulation_dtype([values.dtype()]);
        let values = Arc::new(values.cast(wide));
        let [count] = values.dims();
        (0..count)
            .map(|index| Self(Value::element(values.clone(), index)))
            .collect()
    }

    /// A tensor of them, of shape `[N]`.
    pub fn tensor<const N: usize>(
        numbers: [Self; N],
        device: &Device,
        dtype: FloatDType,
    ) -> Tensor<1> {
        stack(numbers.to_vec(), device, dtype)
    }

    /// Its value, if the host knows it.
    pub fn host(&self) -> Option<f64> {
        self.0.host()
    }

    /// Its value, for which this waits where the host does not know it.
    pub fn read(&self) -> f64 {
        self.host().unwrap_or_else(|| {
            let value = formula::alone(self.0.clone()).into_data();
            value.iter().next().expect("one number")
        })
    }

    fn made<const N: usize>(operation: Operation, arguments: [&Self; N]) -> Self {
        Self(Value::made(
            operation,
            arguments.map(|number| number.0.clone()),
        ))
    }

    /// Its square root.
    pub fn sqrt(&self) -> Self {
        Self::made(Operation::Sqrt, [self])
    }

    /// To this power, of a finite number above 0; of another one, what the device makes of it. On some devices it is of no
    /// more than f32's precision.
    pub fn powf(&self, power: f64) -> Self {
        Self::made(Operation::Powf, [self, &power.into()])
    }

    /// No less than the one bound, and no more than the other. NaN stays NaN.
    pub fn clamp(&self, least: f64, most: f64) -> Self {
        Self::made(Operation::Clamp, [self, &least.into(), &most.into()])
    }

    /// The larger one; this one where one is NaN.
    pub fn max(&self, other: impl Into<Self>) -> Self {
        let other = other.into();
        self.or_if(&self.is_below(&other), other)
    }

    /// The smaller one; this one where one is NaN.
    pub fn min(&self, other: impl Into<Self>) -> Self {
        let other = other.into();
        self.or_if(&other.is_below(self), other)
    }

    /// This number, or another where a flag is true.
    pub fn or_if(&self, flag: &Flag, other: impl Into<Self>) -> Self {
        match flag.host() {
            Some(false) => self.clone(),
            Some(true) => other.into(),
            None => {
                let arguments = [flag.0.clone(), other.into().0, self.0.clone()];
                Self(Value::made(Operation::Select, arguments))
            }
        }
    }

    /// This number, or another where it is NaN: not known yet.
    pub fn or(&self, other: impl Into<Self>) -> Self {
        self.or_if(&self.is_nan(), other)
    }

    fn flag<const N: usize>(operation: Operation, arguments: [&Self; N]) -> Flag {
        Flag(Self::made(operation, arguments).0)
    }

    /// Whether it is NaN.
    pub fn is_nan(&self) -> Flag {
        Self::flag(Operation::IsNan, [self])
    }

    /// Whether it is infinite or NaN.
    pub fn is_not_finite(&self) -> Flag {
        Self::flag(Operation::IsNotFinite, [self])
    }

    /// Whether it is less than another one.
    pub fn is_below(&self, other: impl Into<Self>) -> Flag {
        Self::flag(Operation::Less, [self, &other.into()])
    }

    /// Whether it is another one or less.
    pub fn is_at_most(&self, other: impl Into<Self>) -> Flag {
        Self::flag(Operation::LessEqual, [self, &other.into()])
    }

    /// Whether it is another one.
    pub fn is(&self, other: impl Into<Self>) -> Flag {
        Self::flag(Operation::Equal, [self, &other.into()])
    }

    pub(crate) fn into_value(self) -> Value {
        self.0
    }
}

/// Numbers one after the other, in a tensor.
pub(crate) fn stack(numbers: Vec<Number>, device: &Device, dtype: FloatDType) -> Tensor<1> {
    let values = numbers.into_iter().map(Number::into_value);
    formula::tensor(values.collect(), device, dtype)
}

impl Flag {
    /// What it is, if the host knows it.
    pub fn host(&self) -> Option<bool> {
        self.0.host().map(|flag| flag != 0.0)
    }

    /// Whether one of the two is so.
    pub fn or(&self, other: &Self) -> Self {
        self.beside(other, Operation::Or, true)
    }

    /// Whether both are so.
    pub fn and(&self, other: &Self) -> Self {
        self.beside(other, Operation::And, false)
    }

    /// By an operation that one flag of this kind decides alone, whatever the other one is.
    fn beside(&self, other: &Self, operation: Operation, decisive: bool) -> Self {
        match (self.host(), other.host()) {
            (Some(flag), _) if flag == decisive => self.clone(),
            (_, Some(flag)) if flag != decisive => self.clone(),
            (None, None) => Self(Value::made(operation, [self.0.clone(), other.0.clone()])),
            _ => other.clone(),
        }
    }

    /// Whether it is not so.
    pub fn not(&self) -> Self {
        Self(Value::made(Operation::Not, [self.0.clone()]))
    }

    pub(crate) fn into_value(self) -> Value {
        self.0
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self(Value::Host(value))
    }
}

impl From<&Number> for Number {
    fn from(value: &Number) -> Self {
        value.clone()
    }
}

/// Of shape `[1]`, without autodiff.
impl From<Tensor<1>> for Number {
    fn from(value: Tensor<1>) -> Self {
        let [value] = Self::all(value);
        value
    }
}

impl From<bool> for Flag {
    fn from(flag: bool) -> Self {
        Self(Value::Host(f64::from(flag)))
    }
}

macro_rules! operators {
    ($($operator:ident, $method:ident;)*) => { $(
        impl<T: Into<Number>> $operator<T> for Number {
            type Output = Number;

            fn $method(self, other: T) -> Number {
                (&self).$method(other)
            }
        }

        impl<T: Into<Number>> $operator<T> for &Number {
            type Output = Number;

            fn $method(self, other: T) -> Number {
                Number::made(Operation::$operator, [self, &other.into()])
            }
        }

        impl $operator<Number> for f64 {
            type Output = Number;

            fn $method(self, other: Number) -> Number {
                Number::from(self).$method(other)
            }
        }
    )* };
}

operators! {
    Add, add;
    Sub, sub;
    Mul, mul;
    Div, div;
}

impl Neg for Number {
    type Output = Self;

    fn neg(self) -> Self {
        self * -1.0
    }
}
