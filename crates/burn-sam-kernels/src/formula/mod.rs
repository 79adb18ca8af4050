//! Numbers worked out of others: at once where the host knows them, and elsewhere all together, when they are asked for.
//!
//! What is asked for becomes a [`Program`], in which what occurs twice is worked out once. A backend with kernels takes
//! it whole; every other one gets an operation for each step.

mod operation;
mod portable;
mod program;

use std::sync::Arc;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use crate::kernels;
use crate::portable::accumulation_dtype;
pub(crate) use operation::Operation;
pub(crate) use portable::{Worked, work_out};
use program::Listed;
pub(crate) use program::Program;
#[cfg(feature = "wgpu")]
pub(crate) use program::Step;

/// A number, or a flag as one.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Host(f64),
    Device(Arc<Node>),
}

/// What is not known yet.
#[derive(Debug)]
pub(crate) struct Node {
    source: Source,
    home: Home,
}

#[derive(Debug)]
enum Source {
    /// So many'th of a tensor.
    Element(Arc<Tensor<1>>, usize),
    Made(Operation, Vec<Value>),
}

/// Where a number is worked out, and in what type: f64 or f32.
#[derive(Clone, Debug, PartialEq)]
struct Home {
    device: Device,
    dtype: FloatDType,
}

impl Value {
    /// An element of a tensor in f64 or f32.
    pub(crate) fn element(tensor: Arc<Tensor<1>>, index: usize) -> Self {
        let home = Home {
            device: tensor.device(),
            dtype: accumulation_dtype([tensor.dtype()]),
        };
        let source = Source::Element(tensor, index);
        Self::Device(Arc::new(Node { source, home }))
    }

    /// Made of others. What is on another device, or in f32 where one is in f64, is moved.
    pub(crate) fn made<const N: usize>(operation: Operation, arguments: [Self; N]) -> Self {
        let Some(home) = home(&arguments) else {
            let mut numbers = [f64::NAN; 3];
            for (number, argument) in numbers.iter_mut().zip(&arguments) {
                *number = argument.host().expect("all are the host's");
            }
            return Self::Host(operation.on_host(numbers));
        };
        let arguments = arguments.into_iter().map(|argument| argument.at(&home));
        let source = Source::Made(operation, arguments.collect());
        Self::Device(Arc::new(Node { source, home }))
    }

    pub(crate) fn host(&self) -> Option<f64> {
        match self {
            Self::Host(value) => Some(*value),
            Self::Device(_) => None,
        }
    }

    fn home(&self) -> Option<&Home> {
        match self {
            Self::Host(_) => None,
            Self::Device(node) => Some(&node.home),
        }
    }

    fn is_flag(&self) -> bool {
        match self {
            Self::Host(_) => false,
            Self::Device(node) => {
                matches!(node.source, Source::Made(operation, _) if operation.makes_flag())
            }
        }
    }

    fn at(self, home: &Home) -> Self {
        if self.home().is_none_or(|own| own == home) {
            return self;
        }
        if self.is_flag() {
            let number = Self::made(Operation::Select, [self, Self::Host(1.0), Self::Host(0.0)]);
            return Self::made(Operation::Equal, [number.at(home), Self::Host(1.0)]);
        }
        let moved = tensor(vec![self], &home.device, home.dtype);
        Self::element(Arc::new(moved), 0)
    }
}

/// Where these can be worked out together: in f64, if one of them is. `None` of the host's.
fn home(values: &[Value]) -> Option<Home> {
    let mut homes = values.iter().filter_map(Value::home);
    let first = homes.next()?;
    let is_wide = |home: &&Home| home.dtype == FloatDType::F64;
    let wide = [first].into_iter().chain(homes).find(is_wide);
    Some(wide.unwrap_or(first).clone())
}

/// Numbers one after the other, in a tensor.
pub(crate) fn tensor(values: Vec<Value>, device: &Device, dtype: FloatDType) -> Tensor<1> {
    let count = values.len();
    let Some(home) = home(&values) else {
        let numbers = values.iter().map(|value| value.host().expect("the host's"));
        let data = TensorData::new(numbers.collect(), [count]);
        return Tensor::from_data(data, (device, DType::from(dtype)));
    };
    let beside = |tensor: Tensor<1>| tensor.to_device(device).cast(dtype);
    let is_at_home = |value: &Value| value.home().is_none_or(|own| *own == home);
    if values.iter().all(is_at_home) {
        let listed = Listed::of(values);
        return beside(match listed.all_of_one() {
            Some(tensor) => tensor,
            None if kernels::computes(&home.device) => {
                kernels::compute(listed.tensors, listed.constants, listed.program)
            }
            None => stacked(listed.worked_out(), &home.device, home.dtype),
        });
    }
    stacked(work_out(values), device, dtype)
}

/// A number in a tensor of its own, where it is worked out.
pub(crate) fn alone(value: Value) -> Tensor<1> {
    let home = value.home().expect("not the host's").clone();
    tensor(vec![value], &home.device, home.dtype)
}

/// Portably.
fn stacked(numbers: Vec<Worked>, device: &Device, dtype: FloatDType) -> Tensor<1> {
    let numbers = numbers
        .into_iter()
        .map(|number| number.number(device, dtype));
    let mut numbers: Vec<Tensor<1>> = numbers
        .map(|number| number.to_device(device).cast(dtype))
        .collect();
    match numbers.len() {
        1 => numbers.remove(0),
        _ => Tensor::cat(numbers, 0),
    }
}
