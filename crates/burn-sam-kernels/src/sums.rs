//! What is summed over all parameters.

use burn::tensor::Tensor;

use crate::number::Number;
use crate::operation::Reduction;
use crate::part::Part;
use crate::vector::{Row, Vector, by_device, lists};
use crate::{kernels, portable};

/// Tensors of so few elements are put together before they are summed, where each operation costs more than to copy
/// them.
const FEW: usize = 1 << 14;
/// No more than that at a time: a backend may add them up one by one.
const MANY: usize = 1 << 16;

impl Vector {
    /// |v|²; `None` of no parts. The sum is f64 if any part is, and f32 otherwise. It is not finite if any element is not.
    pub fn squared_norm(&self) -> Option<Number> {
        let rows = self.iter().map(|part| (part, [None, None]));
        let [sum] = reduce(rows.collect(), Reduction::SquaredNorm { eta: None })?;
        Some(sum)
    }

    /// <a, a>, <a, b> and <b, b>, over the parameters of which both have a part; `None` if there is none. The sums are f64 if any part of a is, and f32 otherwise.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape.
    pub fn products(&self, other: &Self) -> Option<[Number; 3]> {
        let rows = (self.iter()).filter_map(|a| Some((a, [Some(other.like(a)?), None])));
        reduce(rows.collect(), Reduction::InnerProducts)
    }

    /// |v|², and how steep v is along a way: <v, to - from>, over the parameters of which all three have a part; `None` if there is none. The sums are f64 if any part of v is, and f32 otherwise.
    ///
    /// # Panics
    ///
    /// If the parts of a parameter differ in shape.
    pub fn slope(&self, from: &Self, to: &Self) -> Option<[Number; 2]> {
        let rows =
            (self.iter()).filter_map(|a| Some((a, [Some(to.like(a)?), Some(from.like(a)?)])));
        reduce(rows.collect(), Reduction::Slope)
    }
}

/// Sums over rows; `None` of no rows.
pub(crate) fn reduce<'a, const N: usize>(
    rows: Vec<Row<'a, &'a Part>>,
    reduction: Reduction,
) -> Option<[Number; N]> {
    let (with, without): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(a, _)| a.has_kernels());
    let by_kernels = by_device(with, |(a, _)| a).into_iter().map(|(_, rows)| {
        let (a, others) = lists(rows);
        Number::all(kernels::reduce(&a, &others, reduction))
    });
    let add = |sums: [Number; N], others: [Number; N]| {
        let mut others = others.into_iter();
        sums.map(|sum| sum + others.next().expect("as many"))
    };
    let portably = reduce_portably(without, reduction);
    by_kernels.chain(portably).reduce(add)
}

/// Sums over rows of parts without kernels; `None` of no rows.
fn reduce_portably<'a, const N: usize>(
    rows: Vec<Row<'a, &'a Part>>,
    reduction: Reduction,
) -> Option<[Number; N]> {
    let mut sums: [Vec<Tensor<1>>; N] = [const { Vec::new() }; N];
    let mut add = |of: Vec<Tensor<1>>| {
        for (sums, sum) in sums.iter_mut().zip(of) {
            sums.push(sum);
        }
    };
    let (small, large) =
        (rows.into_iter()).partition::<Vec<_>, _>(|(a, _)| a.shape().num_elements() <= FEW);
    for (a, others) in &large {
        let others = others.each_ref().map(Option::as_deref);
        add(a.portable_reduce(others, reduction));
    }
    for rows in alike(small) {
        let a = Part::joined(rows.iter().map(|(a, _)| *a)).expect("of at least one row");
        let others = [0, 1].map(|index| {
            let others = rows.iter().map(|(_, others)| others[index].as_deref());
            Part::joined(others.flatten())
        });
        let others = others.each_ref().map(Option::as_ref);
        add(a.portable_reduce(others, reduction));
    }
    let totals = sums.map(portable::total);
    let is_all = totals.iter().all(Option::is_some);
    is_all.then(|| totals.map(|total| Number::from(total.expect("seen before"))))
}

/// Rows by the first part's device and type, with no more elements than may be put together.
fn alike<'a>(rows: Vec<Row<'a, &'a Part>>) -> Vec<Vec<Row<'a, &'a Part>>> {
    let mut groups: Vec<(usize, Vec<Row<'a, &'a Part>>)> = Vec::new();
    for row in rows {
        let elements = row.0.shape().num_elements();
        let fits = |(count, group): &&mut (usize, Vec<Row<'a, &'a Part>>)| {
            let (first, part) = (group[0].0, row.0);
            let is_alike = first.device() == part.device() && first.dtype() == part.dtype();
            is_alike && *count + elements <= MANY
        };
        match groups.iter_mut().find(fits) {
            Some((count, group)) => {
                *count += elements;
                group.push(row);
            }
            None => groups.push((elements, vec![row])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
