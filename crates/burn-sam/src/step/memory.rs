//! What is kept from one step to the next: a count, the state of a law for rho, and at most one vector of the weights'
//! size. What that is, and where it comes from, is the method's to say.

use std::collections::HashSet;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sam_kernels::{Number, Part, Vector};

use super::survey::Survey;
use super::walk::{Leaf, each, each_parameter, trainable, weights};
use crate::method::{At, Factor, How, Keep, Method, Needs};

/// What is kept from step to step.
///
/// As a [`Module`] it is a part of what it is kept for, so that checkpoints hold it and devices are
/// changed with it. Its parameters have ids of their own: what a pass finds out is registered with the
/// gradients, under these, and takes the gradients' way through accumulation and over devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Updates so far, if the method depends on it.
    pub(super) count: Option<usize>,
    pub(super) keep: Option<Keep>,
    pub(super) slots: Vec<Slot>,
    /// Of the parameters of the module that it is kept for.
    ids: HashSet<ParamId>,
    /// Summed over micro-batches and devices, the number of them.
    pub(super) share: Option<Param<Tensor<1>>>,
    /// The first parameter's, for what is the host's in a record.
    pub(super) device: Option<Device>,
    /// The learning rate of the last update, if rho follows it: in the precision that a record keeps.
    pub(super) lr: Option<f32>,
    /// Of the law for rho.
    pub(super) state: Option<Param<Tensor<1>>>,
    /// What is kept of the gradients' lengths, if the descent has nothing else to go by.
    pub(super) length: Option<Param<Tensor<1>>>,
    /// Whether there has been a step.
    pub(super) is_under_way: bool,
    /// Whether the log has been told that something started anew.
    told_anew: bool,
    /// Whether it has been told what there is to say of the state.
    pub(super) told_state: bool,
}

/// A parameter's part of the vector.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) place: usize,
    /// The parameter's.
    pub(super) id: ParamId,
    pub(super) path: String,
    /// Its own, under which what is found out is reported, and recorded.
    pub(super) key: ParamId,
    /// In the parameter's shape, or flat.
    pub(super) value: Part,
    /// Whether nothing has entered it yet.
    pub(super) is_fresh: bool,
}

impl Slot {
    pub(super) fn set(&mut self, value: Part) {
        self.value = value;
        self.is_fresh = false;
    }

    /// As a record has it.
    pub(super) fn param(&self) -> Param<Tensor<1>> {
        Param::initialized(self.key, self.value.clone().flat())
    }

    pub(super) fn set_param(&mut self, param: Param<Tensor<1>>) {
        let value = param.val().without_autodiff();
        (self.key, self.value) = (param.id, Part::new(self.place, value));
    }

    fn len(&self) -> usize {
        self.value.shape().num_elements()
    }
}

impl Memory {
    /// Whether a method keeps anything.
    pub(crate) fn is_kept_by(method: &Method) -> bool {
        let numbers = method.needs() != Needs::default() || method.alone().is_some();
        method.keeps().is_some() || numbers
    }

    /// At the start of a training of this module.
    pub(crate) fn new<M: Module>(method: &Method, module: &M) -> Self {
        let needs = method.needs();
        let (mut device, mut dtype) = (None, DType::F32);
        let mut ids = HashSet::new();
        each(module, |leaf| {
            ids.insert(leaf.id());
            if device.is_none() {
                let weight = leaf.weight();
                device = Some(weight.device().clone());
                if weight.dtype() == DType::F64 {
                    dtype = DType::F64;
                }
            }
        });
        let or_default = device.clone().unwrap_or_default();
        let start = method.radius.law().start(method.rho);
        let state = (!start.is_empty()).then(|| {
            let data = TensorData::new(start.clone(), [start.len()]);
            let state = Tensor::from_data(data, (&or_default, dtype));
            Param::initialized(ParamId::new(), state)
        });
        let length = method.alone().map(|_| {
            let unknown = Tensor::from_data([f64::NAN], (&or_default, dtype));
            Param::initialized(ParamId::new(), unknown)
        });
        let share = needs.count.then(|| {
            let zero = Tensor::zeros([1], &or_default);
            Param::initialized(ParamId::new(), zero)
        });
        Self {
            count: needs.count.then_some(0),
            keep: method.keeps(),
            slots: slots(method.keeps(), module),
            ids,
            share,
            device,
            lr: needs.lr.then_some(f32::NAN),
            state,
            length,
            is_under_way: false,
            told_anew: false,
            told_state: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        let on_host = self.count.is_some() || self.lr.is_some();
        let on_device = self.state.is_some() || self.length.is_some();
        self.keep.is_none() && !on_host && !on_device
    }

    /// For a module whose parameters have got other ids or have become others: what was kept under a path
    /// that is still there, with the same size, is kept on.
    pub(crate) fn rebound<M: Module>(self, module: &M) -> Self {
        self.for_module(module, |_, _| true)
    }

    /// For a module whose parameters may have become others since the last step: what is of another one starts anew,
    /// and all of it for another module.
    pub(crate) fn caught_up<M: Module>(self, method: &Method, module: &M) -> Self {
        if self.is_empty() {
            // Nothing is kept, or an update panicked that had it.
            return match Self::is_kept_by(method) {
                true => Self::new(method, module),
                false => self,
            };
        }
        let (mut is_known, mut ids) = (false, 0);
        each(module, |leaf| {
            ids += 1;
            is_known = is_known || self.ids.contains(&leaf.id());
        });
        if !is_known && ids > 0 {
            let mut anew = Self::new(method, module);
            anew.told_anew = self.told_anew || self.is_under_way;
            if self.is_under_way && !self.told_anew {
                log::warn!(
                    "the model is another than at the step before, with none of its parameters: all that SAM's method \
                     keeps from step to step starts anew. One SamSteps is for one model"
                );
            }
            return anew;
        }
        match self.fits(module) {
            true => self,
            false => self.for_module(module, |old, new| old.id == new.id),
        }
    }

    fn for_module<M: Module>(mut self, module: &M, is_kept: impl Fn(&Slot, &Slot) -> bool) -> Self {
        let before = core::mem::replace(&mut self.slots, slots(self.keep, module));
        self.ids.clear();
        each(module, |leaf| {
            self.ids.insert(leaf.id());
        });
        let mut anew = Vec::new();
        for slot in &mut self.slots {
            let is_same = |old: &&Slot| {
                old.path == slot.path && old.len() == slot.len() && is_kept(old, slot)
            };
            match before.iter().find(is_same) {
                Some(old) => {
                    (slot.key, slot.value) = (old.key, old.value.clone());
                    slot.is_fresh = old.is_fresh;
                }
                None if before
                    .iter()
                    .any(|old| old.path == slot.path && old.is_fresh) => {}
                None => anew.push(slot.path.as_str()),
            }
        }
        if self.is_under_way && !anew.is_empty() && !self.told_anew {
            log::warn!(
                "the model's parameters are others than at the step before: what SAM's method keeps from step to \
                 step starts anew for {}",
                anew.join(", ")
            );
            self.told_anew = true;
        }
        self
    }

    /// Whether there is a slot for each parameter that there should be one for, and no other.
    fn fits<M: Module>(&self, module: &M) -> bool {
        let (mut slots, mut fits) = (self.slots.iter(), true);
        if self.keep.is_some() {
            let is_of =
                |leaf: &Leaf<'_>, slot: &Slot| slot.place == leaf.place() && slot.id == leaf.id();
            each(
                module,
                trainable(|leaf| fits &= slots.next().is_some_and(|slot| is_of(&leaf, slot))),
            );
        }
        fits && slots.next().is_none()
    }

    /// What all radii are multiplied by at the next step.
    pub(crate) fn factor(&self, method: &Method) -> Factor {
        let law = method.radius.law();
        let at = At {
            rho: method.rho,
            since_start: self.count().saturating_sub(method.start),
            lr: self.lr.filter(|lr| !lr.is_nan()).map(f64::from),
        };
        let state = self.state.as_ref();
        Factor {
            host: law.factor(at),
            device: state.map(|state| Number::at(state.val(), 0) / method.rho),
            by_length: law.by_length(at),
        }
    }

    /// Rho at the next step, of shape `[1]`.
    pub(crate) fn rho(&self, method: &Method) -> Tensor<1> {
        match &self.state {
            Some(state) => state.val().narrow(0, 0, 1),
            None => {
                let rho = method.rho * self.factor(method).host;
                Tensor::from_data([rho], &self.device_or_default())
            }
        }
    }

    pub(super) fn device_or_default(&self) -> Device {
        self.device.clone().unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.count.unwrap_or(0)
    }

    /// The vector, of the parameters that `like` has a part of; nothing before anything has entered it.
    pub(crate) fn vector(&self, survey: &Survey, like: &Vector) -> Option<Vector> {
        let mut slots = self.slots.iter().peekable();
        let mut kept = Vector::with_capacity(self.slots.len());
        for (place, id) in survey.trainable_ids() {
            while slots.next_if(|slot| slot.place < place).is_some() {}
            let slot = slots.next_if(|slot| slot.place == place && slot.id == id && !slot.is_fresh);
            if let (Some(slot), Some(part)) = (slot, like.get(place))
                && slot.len() == part.shape().num_elements()
            {
                let value = match slot.value.shape() == part.shape() {
                    true => slot.value.clone(),
                    false => part.shaped(slot.value.clone().flat()),
                };
                kept.push(value.moved(part.device(), part.dtype()));
            }
        }
        (!kept.is_empty()).then_some(kept)
    }

    /// The weights before the last update, for the climb of this step to be written into them: an update follows, which
    /// keeps others.
    pub(crate) fn lend(&mut self, method: &Method, survey: &Survey) -> Option<Vector> {
        let is_before = self.keep.is_some_and(|keep| keep.how == How::Before);
        if !is_before || !method.climbs_at(self.count()) {
            return None;
        }
        let lent = self.vector(survey, &survey.weights)?;
        let nothing = Tensor::<1>::zeros([1], &self.device_or_default());
        for slot in &mut self.slots {
            slot.value = Part::new(slot.place, nothing.clone());
            slot.is_fresh = true;
        }
        Some(lent)
    }

    pub(crate) fn moved_to(mut self, device: &Device) -> Self {
        let device = device.clone().inner();
        let moved =
            |param: &Param<Tensor<1>>| Param::initialized(param.id, param.val().to_device(&device));
        self.device = self.device.map(|_| device.clone());
        self.share = self.share.as_ref().map(moved);
        self.state = self.state.as_ref().map(moved);
        self.length = self.length.as_ref().map(moved);
        for slot in &mut self.slots {
            let dtype = slot.value.dtype();
            slot.value = slot.value.clone().moved(&device, dtype);
        }
        self
    }

    /// With other values, made of the parameters' places and the values.
    pub(super) fn turn(&mut self, f: impl Fn(usize, Tensor<1>) -> Tensor<1>) {
        for slot in &mut self.slots {
            let value = f(slot.place, slot.value.clone().flat());
            slot.set(Part::new(slot.place, value));
        }
    }

    /// For a record of the module that it is kept for.
    pub(super) fn for_record<M: Module>(mut self, module: &M) -> Self {
        if self.keep.is_some_and(|keep| keep.how == How::Before)
            && self.slots.iter().any(|slot| slot.is_fresh)
        {
            let weights = weights(module);
            for slot in self.slots.iter_mut().filter(|slot| slot.is_fresh) {
                // No update is one of nothing.
                if let Some(weight) = weights.get(slot.place) {
                    slot.set(weight.clone());
                }
            }
        }
        self
    }

    /// With what a record has.
    pub(super) fn loaded(mut self) -> Self {
        self.is_under_way = self.count != Some(0);
        let is_mean = (self.keep).is_some_and(|keep| matches!(keep.how, How::Mean { .. }));
        for slot in &mut self.slots {
            let first = || slot.value.clone().flat().into_data().iter::<f64>().next();
            let is_unknown = is_mean && first().is_some_and(f64::is_nan);
            slot.is_fresh = self.count == Some(0) || is_unknown;
        }
        self
    }
}

/// A slot for each parameter that requires gradients.
fn slots<M: Module>(keep: Option<Keep>, module: &M) -> Vec<Slot> {
    let Some(Keep { how, .. }) = keep else {
        return Vec::new();
    };
    let mut slots = Vec::new();
    each_parameter(module, |leaf| {
        let weight = leaf.weight();
        let flat = |value: Tensor<1>| Part::new(leaf.place(), value);
        let value = match how {
            How::Before => weight,
            How::Last => weight.zeros_like(),
            // Not known yet, in records too.
            How::Mean { .. } => flat(weight.flat().zeros_like() * f64::NAN),
            How::Moves { .. } => flat(Tensor::zeros([1], (weight.device(), weight.dtype()))),
        };
        slots.push(Slot {
            place: leaf.place(),
            id: leaf.id(),
            path: leaf.path(),
            key: ParamId::new(),
            value,
            is_fresh: true,
        });
    });
    slots
}
