//! What a step's passes find out: handed to the update with the gradients, and from there into what is kept.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, Param, ParamId};
use burn::optim::{GradientsParams, MultiGradientsParams};
use burn::tensor::Tensor;
use burn_sam_kernels::{Number, Part, Vector, known};

use super::descent::by_value;
use super::memory::{Memory, Slot};
use super::walk::{Leaf, each, each_with_path, replace};
use crate::method::{How, Method, Seen, beside, tensor_like};

/// Reports: registered with the gradients, under ids of their own.
impl Memory {
    /// Hands what a step's passes found out to the update, with the gradients.
    pub(crate) fn report(&self, grads: &mut GradientsParams, found: Vector) {
        for part in found {
            let slot = self
                .slots
                .binary_search_by_key(&part.place(), |slot| slot.place);
            if let Ok(index) = slot {
                grads.register(self.slots[index].key, part.flat());
            }
        }
        if let Some(share) = &self.share {
            let one = share.val().ones_like();
            grads.register(share.id, one);
        }
    }

    /// The same of what the law that sets rho has to see.
    pub(crate) fn report_seen(&self, method: &Method, grads: &mut GradientsParams, seen: Seen) {
        if let Some(state) = &self.state
            && let Some(report) = method.radius.law().report(&state.val(), seen)
        {
            grads.register(state.id, report);
        }
    }

    /// h as the base optimizer gets it where there is nothing at w to compare it with, and what is to be reported of its
    /// length. |h|² may be known.
    pub(super) fn limited(
        &self,
        method: &Method,
        h: Vector,
        hh: Option<Number>,
    ) -> (Vector, Option<Number>) {
        let (Some(alone), Some(kept)) = (method.alone(), &self.length) else {
            return (h, None);
        };
        let Some(hh) = hh.or_else(|| h.squared_norm()) else {
            return (h, None);
        };
        let (kept, of_h) = (Number::from(kept.val()), hh.sqrt());
        let share = (alone.share)(&kept, &of_h);
        let length = (alone.report)(&kept, &of_h);
        (h.scaled(share), Some(length))
    }

    /// Hands the length of a step's gradients to the update, with the gradients.
    pub(super) fn report_length(&self, grads: &mut GradientsParams, length: Number) {
        if let Some(kept) = &self.length {
            let report = tensor_like([length, 1.0.into()], &kept.val());
            grads.register(kept.id, report);
        }
    }
}

/// The update, which takes them.
impl Memory {
    /// What was reported: taken out of the gradients, since no optimizer must see it.
    fn collect(&self, grads: &mut impl ByParameter) -> Reports {
        let mut take = |param: &Param<Tensor<1>>| grads.take(param.id);
        Reports {
            share: self.share.as_ref().and_then(&mut take),
            losses: self.state.as_ref().and_then(&mut take),
            length: self.length.as_ref().and_then(&mut take),
            slots: (self.slots.iter())
                .map(|slot| grads.take(slot.key))
                .collect(),
        }
    }

    /// An update of a module, and what is remembered of it.
    pub(crate) fn update<M: Module, G: ByParameter>(
        mut self,
        method: &Method,
        lr: &ModuleLearningRate,
        module: M,
        mut grads: G,
        update: impl FnOnce(M, G) -> M,
    ) -> (M, Self) {
        let reports = self.collect(&mut grads);
        let how = self.keep.map(|keep| keep.how);
        if how == Some(How::Before) {
            self.keep_before(&module, &grads);
        }
        let mut after = update(module, grads);
        self.count = self.count.map(|count| count + 1);
        // Rounded, so that a run that goes on from a record is the same.
        self.lr = self.lr.map(|_| lr.base() as f32);
        if let (Some(state), Some(losses)) = (&mut self.state, reports.losses) {
            let next = method.radius.law().next(state.val(), losses, method.pace());
            *state = Param::initialized(state.id, next);
        }
        if let (Some(length), Some(alone)) = (&mut self.length, method.alone())
            && let Some(report) = reports.length
        {
            let kept = length.val();
            let [sum, count] = Number::all(beside(report, &kept));
            let next = (alone.next)(Number::from(kept.clone()), sum / count);
            *length = Param::initialized(length.id, tensor_like([next], &kept));
        }
        self.remark(method);
        self.is_under_way = true;
        match how {
            Some(How::Mean { decay }) => self.average(decay, reports.share, reports.slots),
            Some(How::Last) => {
                for (slot, report) in self.slots.iter_mut().zip(reports.slots) {
                    if let Some(report) = report {
                        slot.set(Part::new(slot.place, report));
                    }
                }
            }
            Some(How::Moves { times }) => after = self.moved(times, lr, after, reports.slots),
            Some(How::Before) | None => {}
        }
        (after, self)
    }

    /// The weights of those parameters that are about to be updated. What else moves a parameter (an average of others'
    /// weights, say) is no update.
    fn keep_before<M: Module>(&mut self, module: &M, grads: &impl ByParameter) {
        let mut slots = self.slots.iter_mut().peekable();
        each(module, |leaf| {
            let is_it = |slot: &&mut Slot| slot.place == leaf.place() && slot.id == leaf.id();
            if let Some(slot) = slots.next_if(is_it) {
                match grads.is_of(&leaf) {
                    true => slot.set(leaf.weight()),
                    false => slot.is_fresh = true,
                }
            }
        });
    }

    /// Says once what there is to say of the state, where reading it waits for nothing.
    fn remark(&mut self, method: &Method) {
        let Some(state) = self.state.as_ref().filter(|_| !self.told_state) else {
            return;
        };
        if let Some(state) = known(&state.val())
            && let Some(remark) = method.radius.law().remark(&state)
        {
            log::warn!("{remark}");
            self.told_state = true;
        }
    }

    /// m <- decay m + (1 - decay) r, beginning with the first report r. Of reports that are not finite nothing is
    /// remembered.
    fn average(&mut self, decay: f64, share: Option<Tensor<1>>, reports: Vec<Option<Tensor<1>>>) {
        let Some(share) = share else { return };
        let (mut means, mut found) = (Vector::new(), Vector::new());
        for (slot, report) in self.slots.iter().zip(reports) {
            if let Some(report) = report {
                let mean = slot.value.clone().flat().to_device(&report.device());
                means.push(Part::new(slot.place, mean));
                found.push(Part::new(slot.place, report));
            }
        }
        let Some(squares) = found.squared_norm() else {
            return;
        };
        let share = Number::from(share);
        let refused = squares.is_not_finite();
        let is_fresh: Vec<bool> = self.slots.iter().map(|slot| slot.is_fresh).collect();
        let places: Vec<usize> = self.slots.iter().map(|slot| slot.place).collect();
        let index = |place: usize| places.binary_search(&place).expect("a slot's place");
        for fresh in [true, false] {
            let (old, new) = match fresh {
                true => (0.0, 1.0),
                false => (decay, 1.0 - decay),
            };
            let x = Number::from(old).or_if(&refused, 1.0);
            let y = (new / share.clone()).or_if(&refused, 0.0);
            let means = means
                .clone()
                .filtered(|place| is_fresh[index(place)] == fresh);
            for part in means.combine(x, &[(&found, y)]) {
                self.slots[index(part.place())].set(part);
            }
        }
    }

    /// The module with each weight moved by minus the learning rate times so much of what was reported.
    fn moved<M: Module>(
        &self,
        times: f64,
        lr: &ModuleLearningRate,
        module: M,
        reports: Vec<Option<Tensor<1>>>,
    ) -> M {
        let mut reports: Vec<(usize, Tensor<1>)> = (self.slots.iter().zip(reports))
            .filter_map(|(slot, report)| Some((slot.place, report?)))
            .rev()
            .collect();
        let (mut found, mut at_w, mut lrs) = (Vector::new(), Vector::new(), Vec::new());
        each_with_path(&module, |leaf| {
            lrs.push(0.0);
            if let Some((_, report)) = reports.pop_if(|(place, _)| *place == leaf.place()) {
                let weight = leaf.weight();
                found.push(weight.shaped(report));
                at_w.push(weight);
                lrs[leaf.place()] = lr.lr_from_param(leaf.id(), Some(&leaf.path()));
            }
        });
        let moved = by_value(at_w, |place| lrs[place]).into_iter();
        let moved = moved.map(|(lr, weights)| weights.combine(1.0, &[(&found, -lr * times)]));
        replace(module, moved.reduce(Vector::merged).unwrap_or_default())
    }
}

/// Gradients by parameter, of one device or of several.
pub(crate) trait ByParameter {
    fn take(&mut self, id: ParamId) -> Option<Tensor<1>>;
    fn is_of(&self, leaf: &Leaf<'_>) -> bool;
}

impl ByParameter for GradientsParams {
    fn take(&mut self, id: ParamId) -> Option<Tensor<1>> {
        self.remove(id)
    }

    fn is_of(&self, leaf: &Leaf<'_>) -> bool {
        leaf.is_in(self)
    }
}

impl ByParameter for MultiGradientsParams {
    fn take(&mut self, id: ParamId) -> Option<Tensor<1>> {
        Some(self.remove(id)?.0)
    }

    fn is_of(&self, leaf: &Leaf<'_>) -> bool {
        self.grads.iter().any(|(grads, _)| leaf.is_in(grads))
    }
}

/// What the passes of a step found out, summed over micro-batches and devices.
struct Reports {
    share: Option<Tensor<1>>,
    losses: Option<Tensor<1>>,
    length: Option<Tensor<1>>,
    slots: Vec<Option<Tensor<1>>>,
}
