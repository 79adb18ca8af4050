//! Formulas in steps.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::{Node, Operation, Source, Value};

/// What to work out. The numbers that it is made of are counted through: elements of tensors, constants, and what
/// each step makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Program {
    /// For each element, of which tensor it is, and which of its elements.
    pub(crate) elements: Vec<[usize; 2]>,
    /// How many constants there are.
    pub(crate) constants: usize,
    pub(crate) steps: Vec<Step>,
    /// The numbers that are asked for.
    pub(crate) outputs: Vec<usize>,
}

/// An operation on numbers that come before it; those that it does not take repeat the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    pub(crate) operation: Operation,
    pub(crate) arguments: [usize; 3],
}

impl Step {
    /// Those that it takes.
    pub(super) fn taken(&self) -> &[usize] {
        &self.arguments[..self.operation.arguments()]
    }
}

/// A program, and what it is run on.
pub(super) struct Listed {
    pub(super) tensors: Vec<Tensor<1>>,
    pub(super) constants: Vec<f64>,
    pub(super) program: Program,
}

impl Listed {
    /// Of numbers to be worked out.
    pub(super) fn of(values: Vec<Value>) -> Self {
        let mut list = List::default();
        let outputs: Vec<Number> = values.iter().map(|value| list.number(value)).collect();
        let List {
            tensors,
            elements,
            constants,
            steps,
            ..
        } = list;
        let count = |number: Number| match number {
            Number::Element(index) => index,
            Number::Constant(index) => elements.len() + index,
            Number::Made(index) => elements.len() + constants.len() + index,
        };
        let program = Program {
            constants: constants.len(),
            steps: (steps.into_iter())
                .map(|(operation, arguments)| Step {
                    operation,
                    arguments: arguments.map(count),
                })
                .collect(),
            outputs: outputs.into_iter().map(count).collect(),
            elements,
        };
        // Those that nobody else holds can be taken over by the operations on them.
        drop(values);
        let owned = |tensor: Arc<Tensor<1>>| Arc::try_unwrap(tensor);
        let tensors = tensors.into_iter().map(owned);
        Self {
            tensors: tensors
                .map(|tensor| tensor.unwrap_or_else(|tensor| (*tensor).clone()))
                .collect(),
            constants: constants.into_iter().map(f64::from_bits).collect(),
            program,
        }
    }

    /// The tensor whose elements are asked for, if that is all.
    pub(super) fn all_of_one(&self) -> Option<Tensor<1>> {
        let Program {
            elements, outputs, ..
        } = &self.program;
        let is_all = self.tensors.len() == 1
            && outputs.len() == self.tensors[0].shape().num_elements()
            && (outputs.iter().enumerate())
                .all(|(index, output)| elements.get(*output) == Some(&[0, index]));
        is_all.then(|| self.tensors[0].clone())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Number {
    Element(usize),
    Constant(usize),
    Made(usize),
}

#[derive(Default)]
struct List {
    tensors: Vec<Arc<Tensor<1>>>,
    elements: Vec<[usize; 2]>,
    constants: Vec<u64>,
    steps: Vec<(Operation, [Number; 3])>,
    of_nodes: HashMap<*const Node, Number>,
    of_steps: HashMap<(Operation, [Number; 3]), Number>,
}

impl List {
    fn number(&mut self, value: &Value) -> Number {
        let node = match value {
            Value::Host(value) => {
                return Number::Constant(index(&mut self.constants, value.to_bits(), u64::eq));
            }
            Value::Device(node) => node,
        };
        if let Some(known) = self.of_nodes.get(&Arc::as_ptr(node)) {
            return *known;
        }
        let number = match &node.source {
            Source::Element(tensor, element) => {
                let tensor = index(&mut self.tensors, tensor.clone(), Arc::ptr_eq);
                Number::Element(index(&mut self.elements, [tensor, *element], PartialEq::eq))
            }
            Source::Made(operation, arguments) => {
                let numbers: Vec<Number> =
                    arguments.iter().map(|value| self.number(value)).collect();
                let argument = |index: usize| *numbers.get(index).unwrap_or(&numbers[0]);
                let step = (*operation, [0, 1, 2].map(argument));
                *self.of_steps.entry(step).or_insert_with(|| {
                    self.steps.push(step);
                    Number::Made(self.steps.len() - 1)
                })
            }
        };
        self.of_nodes.insert(Arc::as_ptr(node), number);
        number
    }
}

/// Where it is in a list, from now on.
fn index<T>(list: &mut Vec<T>, item: T, is_same: impl Fn(&T, &T) -> bool) -> usize {
    match list.iter().position(|other| is_same(other, &item)) {
        Some(index) => index,
        None => {
            list.push(item);
            list.len() - 1
        }
    }
}
