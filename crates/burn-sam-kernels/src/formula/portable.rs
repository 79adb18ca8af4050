//! Programs as plain tensor operations: the reference for every kernel.

use burn::tensor::{Bool, DType, Device, FloatDType, Tensor};

use super::program::{Listed, Program, Step};
use super::{Operation, Value};
use crate::counted::Counted;
use crate::portable::{accumulation_dtype, is_nan, is_not_finite};

/// What was worked out, of shape `[1]`.
#[allow(clippy::large_enum_variant, reason = "none outlives a program")]
#[derive(Clone, Debug)]
pub(crate) enum Worked {
    Host(f64),
    Number(Tensor<1>),
    /// Of numbers of this type.
    Flag(Tensor<1, Bool>, FloatDType),
}

use Worked::{Flag, Host, Number};

/// Each of them.
pub(crate) fn work_out(values: Vec<Value>) -> Vec<Worked> {
    Listed::of(values).worked_out()
}

impl Worked {
    /// As a tensor; of what the host knows, on this device and in this type.
    pub(crate) fn number(self, device: &Device, dtype: FloatDType) -> Tensor<1> {
        match self {
            Host(value) => Tensor::full([1], value, (device, DType::from(dtype))),
            Number(value) => value,
            Flag(..) => unreachable!("a flag is no number"),
        }
    }

    /// As a tensor; of what the host knows, on this device.
    pub(crate) fn flag(self, device: &Device) -> Tensor<1, Bool> {
        match self {
            Host(flag) => Tensor::from_data([flag != 0.0], device),
            Flag(flag, _) => flag,
            Number(_) => unreachable!("a number is no flag"),
        }
    }
}

impl Listed {
    /// What is asked for. A tensor is handed over to the last operation on it, for its end would be a message of its own
    /// to a device far away.
    pub(super) fn worked_out(self) -> Vec<Worked> {
        let Program {
            elements,
            constants,
            steps,
            outputs,
        } = self.program;
        let uses = times_taken(
            self.tensors.len(),
            elements.iter().map(|[tensor, _]| tensor),
        );
        let tensors = self.tensors.into_iter().zip(uses);
        let mut tensors: Vec<_> = tensors
            .map(|(tensor, times)| Counted::new(tensor, times))
            .collect();

        let count = elements.len() + constants + steps.len();
        let uses = times_taken(count, steps.iter().flat_map(Step::taken).chain(&outputs));
        let elements = elements.iter().map(|&[tensor, element]| {
            let tensor = tensors[tensor].take();
            Number(match tensor.shape().num_elements() {
                1 => tensor,
                _ => tensor.narrow(0, element, 1),
            })
        });
        let given = elements
            .chain(self.constants.into_iter().map(Host))
            .zip(&uses);
        let mut numbers: Vec<_> = given
            .map(|(number, times)| Counted::new(number, *times))
            .collect();
        for step in &steps {
            let arguments = step.taken().iter().map(|number| numbers[*number].take());
            let made = made(step.operation, arguments.collect());
            numbers.push(Counted::new(made, uses[numbers.len()]));
        }
        let outputs = outputs.into_iter().map(|output| numbers[output].take());
        outputs.collect()
    }
}

/// How often each of so many is taken.
fn times_taken<'a>(count: usize, taken: impl Iterator<Item = &'a usize>) -> Vec<usize> {
    let mut times = vec![0; count];
    for index in taken {
        times[*index] += 1;
    }
    times
}

/// What a step makes.
fn made(operation: Operation, arguments: Vec<Worked>) -> Worked {
    let mut arguments = arguments.into_iter();
    let mut next = || arguments.next().expect("as many as the operation takes");
    match operation {
        Operation::Add => arithmetic(next(), next(), [Tensor::add_scalar; 2], Tensor::add),
        Operation::Sub => {
            let turned = |y: Tensor<1>, x| y.mul_scalar(-1.0).add_scalar(x);
            arithmetic(next(), next(), [Tensor::sub_scalar, turned], Tensor::sub)
        }
        Operation::Mul => arithmetic(next(), next(), [Tensor::mul_scalar; 2], Tensor::mul),
        Operation::Div => {
            let turned = |y: Tensor<1>, x| y.recip().mul_scalar(x);
            arithmetic(next(), next(), [Tensor::div_scalar, turned], Tensor::div)
        }
        Operation::Powf => {
            let turned = |y: Tensor<1>, x| y.full_like(x).powf(y);
            arithmetic(next(), next(), [Tensor::powf_scalar, turned], Tensor::powf)
        }
        Operation::Sqrt => Number(number(next()).sqrt()),
        Operation::Clamp => match [next(), next(), next()] {
            [Number(x), Host(least), Host(most)] => Number(x.clamp(least, most)),
            _ => unreachable!("bounds are the host's"),
        },
        Operation::Select => selected(next(), next(), next()),
        Operation::Less => {
            let by = [Tensor::lower_elem, Tensor::greater_elem];
            comparison(next(), next(), by, Tensor::lower)
        }
        Operation::LessEqual => {
            let by = [Tensor::lower_equal_elem, Tensor::greater_equal_elem];
            comparison(next(), next(), by, Tensor::lower_equal)
        }
        Operation::Equal => comparison(next(), next(), [Tensor::equal_elem; 2], Tensor::equal),
        Operation::IsNan => flag_of(number(next()), is_nan),
        Operation::IsNotFinite => flag_of(number(next()), is_not_finite),
        Operation::Or => flags(next(), next(), Tensor::bool_or),
        Operation::And => flags(next(), next(), Tensor::bool_and),
        Operation::Not => {
            let (flag, dtype) = flag(next());
            Flag(flag.bool_not(), dtype)
        }
    }
}

type ByScalar<T> = fn(Tensor<1>, f64) -> T;
type OfBoth<T> = fn(Tensor<1>, Tensor<1>) -> T;

/// Of two numbers, by the operation for a second one that the host knows, for a first one, or for none.
fn of_two<T>(x: Worked, y: Worked, [by, turned]: [ByScalar<T>; 2], of_both: OfBoth<T>) -> T {
    match (x, y) {
        (Number(x), Host(y)) => by(x, y),
        (Host(x), Number(y)) => turned(y, x),
        (x, y) => of_both(number(x), number(y)),
    }
}

fn arithmetic(
    x: Worked,
    y: Worked,
    by: [ByScalar<Tensor<1>>; 2],
    of_both: OfBoth<Tensor<1>>,
) -> Worked {
    Number(of_two(x, y, by, of_both))
}

fn comparison(
    x: Worked,
    y: Worked,
    by: [ByScalar<Tensor<1, Bool>>; 2],
    of_both: OfBoth<Tensor<1, Bool>>,
) -> Worked {
    let on_device = [&x, &y].into_iter().find_map(|number| match number {
        Number(number) => Some(type_of(number)),
        _ => None,
    });
    let dtype = on_device.expect("one that is not the host's");
    Flag(of_two(x, y, by, of_both), dtype)
}

fn flag_of(number: Tensor<1>, of: fn(Tensor<1>) -> Tensor<1, Bool>) -> Worked {
    let dtype = type_of(&number);
    Flag(of(number), dtype)
}

fn type_of(number: &Tensor<1>) -> FloatDType {
    accumulation_dtype([number.dtype()])
}

fn flags(
    x: Worked,
    y: Worked,
    of_both: fn(Tensor<1, Bool>, Tensor<1, Bool>) -> Tensor<1, Bool>,
) -> Worked {
    let ((x, dtype), (y, _)) = (flag(x), flag(y));
    Flag(of_both(x, y), dtype)
}

fn selected(by: Worked, yes: Worked, no: Worked) -> Worked {
    let (flag, dtype) = flag(by);
    let device = flag.device();
    let no = no.number(&device, dtype);
    Number(match yes {
        Host(yes) => no.mask_fill(flag, yes),
        yes => no.mask_where(flag, yes.number(&device, dtype)),
    })
}

fn number(of: Worked) -> Tensor<1> {
    match of {
        Number(number) => number,
        _ => unreachable!("a number on the device"),
    }
}

fn flag(of: Worked) -> (Tensor<1, Bool>, FloatDType) {
    match of {
        Flag(flag, dtype) => (flag, dtype),
        _ => unreachable!("a flag on the device"),
    }
}
