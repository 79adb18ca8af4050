//! Numbers and flags of shape `[1]` beside tensors of other ranks, types and devices: made once for all tensors alike,
//! and handed over to the last of them.

use core::cell::RefCell;

use burn::backend::DispatchTensor;
use burn::tensor::{Bool, Device, FloatDType, Shape, Tensor};

use crate::counted::Counted;
use crate::part::Part;
use crate::portable::accumulation_dtype;

/// A tensor and others that are made of it, one for each key.
#[derive(Clone, Debug)]
struct Shared<T, K>(RefCell<Made<T, K>>);

#[derive(Clone, Debug)]
struct Made<T, K> {
    value: Counted<T>,
    /// How often each is asked for, and what was made for it.
    of: Vec<(K, usize, Option<Counted<DispatchTensor>>)>,
}

impl<T: Clone, K: PartialEq> Shared<T, K> {
    /// To be asked for these keys, as often as they are there.
    fn new(value: T, keys: impl Iterator<Item = K>) -> Self {
        let mut of: Vec<(K, usize, Option<Counted<DispatchTensor>>)> = Vec::new();
        for key in keys {
            match of.iter_mut().find(|(other, ..)| *other == key) {
                Some((_, count, _)) => *count += 1,
                None => of.push((key, 1, None)),
            }
        }
        let value = Counted::new(value, of.len());
        Self(RefCell::new(Made { value, of }))
    }

    fn get(&self, key: &K, make: impl FnOnce(T) -> DispatchTensor) -> DispatchTensor {
        let Made { value, of } = &mut *self.0.borrow_mut();
        let (_, count, made) =
            (of.iter_mut().find(|(other, ..)| other == key)).expect("a key that was announced");
        made.get_or_insert_with(|| Counted::new(make(value.take()), *count))
            .take()
    }
}

/// A number, in any multiple.
#[derive(Clone, Debug)]
pub(crate) struct Factor(Shared<Tensor<1>, (Device, FloatDType, usize, u64)>);

impl Factor {
    /// For operations on these parts, each with a multiple of the number.
    pub(crate) fn new<'a>(value: Tensor<1>, parts: impl Iterator<Item = (&'a Part, f64)>) -> Self {
        Self(Shared::new(
            value,
            parts.map(|(part, times)| Self::key(part, times)),
        ))
    }

    /// So many times the number, of shape `[1; D]`, for one operation on this part, in the type that it is computed in.
    pub(crate) fn beside(&self, part: &Part, times: f64) -> DispatchTensor {
        let key = Self::key(part, times);
        self.0.get(&key, |value| {
            let value = value.to_device(part.device()).cast(key.1);
            part.spread(if times == 1.0 { value } else { value * times })
        })
    }

    fn key(part: &Part, times: f64) -> (Device, FloatDType, usize, u64) {
        let wide = accumulation_dtype([part.dtype()]);
        (part.device().clone(), wide, part.rank(), times.to_bits())
    }
}

/// A flag, for [`Tensor::mask_fill`], which spreads it on every backend.
#[derive(Clone, Debug)]
pub(crate) struct Mask(Shared<Tensor<1, Bool>, (Device, usize)>);

impl Mask {
    /// For operations on these parts.
    pub(crate) fn new<'a>(value: Tensor<1, Bool>, parts: impl Iterator<Item = &'a Part>) -> Self {
        Self(Shared::new(
            value,
            parts.map(|part| (part.device().clone(), part.rank())),
        ))
    }

    /// Of shape `[1; D]`, for one operation on this part.
    pub(crate) fn beside(&self, part: &Part) -> DispatchTensor {
        let key = (part.device().clone(), part.rank());
        (self.0).get(&key, |value| {
            part.spread_flag(value.to_device(part.device()))
        })
    }
}

/// A flag, for [`Tensor::mask_where`], which does not on all.
#[derive(Clone, Debug)]
pub(crate) struct Choice(Shared<Tensor<1, Bool>, (Device, Shape)>);

impl Choice {
    /// For operations on these parts.
    pub(crate) fn new<'a>(value: Tensor<1, Bool>, parts: impl Iterator<Item = &'a Part>) -> Self {
        Self(Shared::new(
            value,
            parts.map(|part| (part.device().clone(), part.shape())),
        ))
    }

    /// Of the shape of this part, for one operation on it.
    pub(crate) fn beside(&self, part: &Part) -> DispatchTensor {
        let key = (part.device().clone(), part.shape());
        (self.0).get(&key, |value| part.expanded(value.to_device(part.device())))
    }
}
