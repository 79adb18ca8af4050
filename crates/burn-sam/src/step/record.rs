//! What is kept from step to step in records, under the path `sam` beside the module's own.

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_pack::Reader;

use super::memory::{Memory, Slot};
use super::walk::weights;
use crate::method::{Keep, Method};

impl Memory {
    /// The module with what is remembered.
    pub(crate) fn record<M: Module>(self, module: M) -> ModuleRecord {
        // Burn brings running statistics up to date when a module is validated, not when it is recorded.
        drop(module.valid());
        let memory = self.for_record(&module);
        Remembering { module, memory }.into_record()
    }

    /// Loads what a checkpoint holds, of this module with this memory; or, with a word in the log, of one
    /// with another memory or none.
    pub(crate) fn load<M: Module>(
        self,
        method: &Method,
        module: M,
        record: ModuleRecord,
    ) -> Result<(M, Self), RecordError> {
        let with = |memory: &Self| Remembering {
            module: module.clone(),
            memory: memory.clone(),
        };
        let names = names(&record)?;
        let of_sam = |name: &&String| name.starts_with("sam.");
        if !names.iter().any(|name| of_sam(&name)) {
            return self.anew(method, module.try_load_record(record)?, false);
        }
        let error = match with(&self).try_load_record(record.clone()) {
            Ok(Remembering { module, memory }) => {
                let memory = memory.loaded().rebound(&module);
                return Ok((module, memory));
            }
            Err(error) => error,
        };
        let foreign = names.iter().filter(|name| !of_sam(name)).count();
        // Nothing is left over but what is of SAM.
        let record = match foreign == module.clone().into_record().len() {
            true => record.allow_unused(true),
            false => record,
        };
        // As it is kept now or was before, of a module that had other parts frozen.
        for kept in [self.clone(), self.as_in_older(method)] {
            let Some(kept) = kept.of_those_in(&names) else {
                continue;
            };
            let loaded = with(&kept).try_load_record(record.clone());
            if let Ok(Remembering { module, memory }) = loaded {
                let memory = memory.loaded().turned_from(&kept, &self, &module);
                return Ok((module, memory));
            }
        }
        // With the memory of another method, which is left out.
        match module.try_load_record(record) {
            Ok(loaded) => self.anew(method, loaded, true),
            Err(_) => Err(error),
        }
    }

    /// A module that was loaded without what this method keeps, perhaps with what another one does.
    fn anew<M: Module>(
        self,
        method: &Method,
        module: M,
        has_memory: bool,
    ) -> Result<(M, Self), RecordError> {
        if !self.is_empty() {
            log::warn!(
                "the record has nothing that SAM's method keeps from step to step (sam.*): it starts anew"
            );
        }
        if has_memory {
            log::warn!(
                "the record has something that another method of SAM kept from step to step (sam.*): it is \
                 left out"
            );
        }
        let memory = Self::new(method, &module);
        Ok((module, memory))
    }

    /// As records from before have it.
    fn as_in_older(&self, method: &Method) -> Self {
        let mut older = self.clone();
        if let Some(keep) = &mut older.keep
            && let Some(former) = keep.former
        {
            keep.name = former.name;
        }
        let first = method.radius.law().former();
        (older.state.iter_mut())
            .for_each(|state| *state = with(state, |all| all.narrow(0, 0, first)));
        older
    }

    /// With the slots that a record has; nothing, if it has none of them.
    fn of_those_in(mut self, names: &[String]) -> Option<Self> {
        let Some(Keep { name, .. }) = self.keep else {
            return Some(self);
        };
        let is_there = |slot: &Slot| names.contains(&format!("sam.{name}.{}", slot.path));
        self.slots.retain(is_there);
        (!self.slots.is_empty()).then_some(self)
    }

    /// What a record had, as it is kept now.
    fn turned_from<M: Module>(mut self, record: &Self, now: &Self, module: &M) -> Self {
        let older = record.keep.map(|keep| keep.name) != now.keep.map(|keep| keep.name);
        self.keep = now.keep;
        if let (Some(state), Some(all)) = (&mut self.state, &now.state)
            && state.shape() != all.shape()
        {
            let (known, all) = (state.shape()[0], all.val());
            let unknown = all.clone().narrow(0, known, all.dims()[0] - known);
            *state = with(state, |state| Tensor::cat(vec![state, unknown], 0));
        }
        if let Some(former) = now.keep.and_then(|keep| keep.former).filter(|_| older) {
            let weights = weights(module);
            self.turn(|place, value| match weights.get(place) {
                Some(weight) => (former.turn)(value, weight.clone().flat()),
                None => value,
            });
        }
        self.rebound(module)
    }
}

/// Another value of the same parameter.
fn with(param: &Param<Tensor<1>>, f: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Param<Tensor<1>> {
    Param::initialized(param.id, f(param.val()))
}

/// The paths of what a record holds, which it says only as a file.
fn names(record: &ModuleRecord) -> Result<Vec<String>, RecordError> {
    let reader = Reader::from_bytes(record.clone().into_bytes()?)?;
    Ok((reader.tensor_names().into_iter())
        .map(str::to_string)
        .collect())
}

/// A module and what is remembered beside it.
#[derive(Clone, Debug)]
struct Remembering<M> {
    module: M,
    memory: Memory,
}

impl<M: Module> Module for Remembering<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.module.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            module: self.module.to_device(device),
            memory: self.memory.moved_to(device),
        }
    }

    fn train(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        self.module.visit(visitor);
        self.memory.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        Self {
            module: self.module.map(mapper),
            memory: self.memory.map(mapper),
        }
    }
}

/// Under the path `sam`.
impl Memory {
    pub(crate) fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        if self.is_empty() {
            return;
        }
        visitor.enter_module("sam", "Struct:Memory");
        if let (Some(count), Some(share)) = (self.count, &self.share) {
            visitor.enter_module("count", "Struct:Memory");
            visitor.visit_int(&as_param(count, share));
            visitor.exit_module("count", "Struct:Memory");
        }
        if let Some(share) = &self.share {
            visitor.enter_module("share", "Struct:Memory");
            visitor.visit_float(share);
            visitor.exit_module("share", "Struct:Memory");
        }
        if let Some(lr) = self.lr {
            visitor.enter_module("lr", "Struct:Memory");
            visitor.visit_float(&lr_as_param(lr, &self.device_or_default()));
            visitor.exit_module("lr", "Struct:Memory");
        }
        if let Some(state) = &self.state {
            visitor.enter_module("radius", "Struct:Memory");
            visitor.visit_float(state);
            visitor.exit_module("radius", "Struct:Memory");
        }
        if let Some(length) = &self.length {
            visitor.enter_module("length", "Struct:Memory");
            visitor.visit_float(length);
            visitor.exit_module("length", "Struct:Memory");
        }
        if let Some(keep) = self.keep {
            visitor.enter_module(keep.name, "Struct:Memory");
            for slot in &self.slots {
                visitor.enter_module(&slot.path, "Struct:Memory");
                visitor.visit_float(&slot.value);
                visitor.exit_module(&slot.path, "Struct:Memory");
            }
            visitor.exit_module(keep.name, "Struct:Memory");
        }
        visitor.exit_module("sam", "Struct:Memory");
    }

    pub(crate) fn map<Mapper: ModuleMapper>(mut self, mapper: &mut Mapper) -> Self {
        if self.is_empty() {
            return self;
        }
        mapper.enter_module("sam", "Struct:Memory");
        if let (Some(count), Some(share)) = (self.count, &self.share) {
            mapper.enter_module("count", "Struct:Memory");
            let count = mapper.map_int(as_param(count, share));
            self.count = Some(count.val().into_scalar::<i64>() as usize);
            mapper.exit_module("count", "Struct:Memory");
        }
        mapper.enter_module("share", "Struct:Memory");
        self.share = self.share.map(|share| mapper.map_float(share));
        mapper.exit_module("share", "Struct:Memory");
        mapper.enter_module("lr", "Struct:Memory");
        let device = self.device_or_default();
        self.lr = self.lr.map(|lr| {
            let lr = mapper.map_float(lr_as_param(lr, &device));
            lr.val().into_scalar::<f32>()
        });
        mapper.exit_module("lr", "Struct:Memory");
        mapper.enter_module("radius", "Struct:Memory");
        self.state = self.state.map(|state| mapper.map_float(state));
        mapper.exit_module("radius", "Struct:Memory");
        mapper.enter_module("length", "Struct:Memory");
        self.length = self.length.map(|length| mapper.map_float(length));
        mapper.exit_module("length", "Struct:Memory");
        if let Some(keep) = self.keep {
            mapper.enter_module(keep.name, "Struct:Memory");
            for slot in &mut self.slots {
                mapper.enter_module(&slot.path, "Struct:Memory");
                slot.value = mapper.map_float(slot.value.clone());
                mapper.exit_module(&slot.path, "Struct:Memory");
            }
            mapper.exit_module(keep.name, "Struct:Memory");
        }
        mapper.exit_module("sam", "Struct:Memory");
        self
    }
}

fn lr_as_param(lr: f32, device: &Device) -> Param<Tensor<1>> {
    let lr = Tensor::from_data([lr], (device, DType::F32));
    Param::initialized(ParamId::new(), lr)
}

fn as_param(count: usize, beside: &Param<Tensor<1>>) -> Param<Tensor<1, Int>> {
    let count = Tensor::from_ints([count as i32], &beside.val().device());
    Param::initialized(ParamId::new(), count)
}
