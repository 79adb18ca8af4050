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

    /// With the slots that a record has; nothing, if it has none of them, or is another method's.
    fn of_those_in(mut self, names: &[String]) -> Option<Self> {
        let Some(Keep { name, .. }) = self.keep else {
            let mut own: Vec<String> = (self.numbers().into_iter())
                .filter_map(|(name, number)| number.map(|_| format!("sam.{name}")))
                .collect();
            own.extend(self.count.map(|_| "sam.count".to_string()));
            let is_own = (names.iter()).all(|name| !name.starts_with("sam.") || own.contains(name));
            return is_own.then_some(self);
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
        fn inside<V: ModuleVisitor>(visitor: &mut V, name: &str, visit: impl FnOnce(&mut V)) {
            visitor.enter_module(name, CONTAINER);
            visit(visitor);
            visitor.exit_module(name, CONTAINER);
        }

        if self.is_empty() {
            return;
        }
        inside(visitor, "sam", |visitor| {
            if let (Some(count), Some(share)) = (self.count, &self.share) {
                inside(visitor, "count", |v| v.visit_int(&as_param(count, share)));
            }
            for (name, number) in self.numbers() {
                if let Some(number) = number {
                    inside(visitor, name, |v| v.visit_float(&number));
                }
            }
            if let Some(keep) = self.keep {
                inside(visitor, keep.name, |visitor| {
                    for slot in &self.slots {
                        inside(visitor, &slot.path, |v| v.visit_float(&slot.param()));
                    }
                });
            }
        });
    }

    pub(crate) fn map<Mapper: ModuleMapper>(mut self, mapper: &mut Mapper) -> Self {
        fn inside<M: ModuleMapper, T>(
            mapper: &mut M,
            name: &str,
            map: impl FnOnce(&mut M) -> T,
        ) -> T {
            mapper.enter_module(name, CONTAINER);
            let mapped = map(mapper);
            mapper.exit_module(name, CONTAINER);
            mapped
        }

        if self.is_empty() {
            return self;
        }
        inside(mapper, "sam", |mapper| {
            if let (Some(count), Some(share)) = (self.count, &self.share) {
                let count = as_param(count, share);
                let count = inside(mapper, "count", |m| m.map_int(count));
                self.count = Some(count.val().into_scalar::<i64>() as usize);
            }
            let [share, lr, state, length] = (self.numbers()).map(|(name, number)| {
                number.map(|number| inside(mapper, name, |m| m.map_float(number)))
            });
            self.lr = lr.map(|lr| lr.val().into_scalar());
            (self.share, self.state, self.length) = (share, state, length);
            if let Some(keep) = self.keep {
                inside(mapper, keep.name, |mapper| {
                    for slot in &mut self.slots {
                        let param = slot.param();
                        slot.set_param(inside(mapper, &slot.path, |m| m.map_float(param)));
                    }
                });
            }
        });
        self
    }

    /// By their names; what is the host's as a record has it.
    fn numbers(&self) -> [(&'static str, Option<Param<Tensor<1>>>); 4] {
        let device = self.device_or_default();
        let param = |lr| Tensor::from_data([lr], (&device, DType::F32));
        let lr = (self.lr).map(|lr| Param::initialized(ParamId::new(), param(lr)));
        [
            ("share", self.share.clone()),
            ("lr", lr),
            ("radius", self.state.clone()),
            ("length", self.length.clone()),
        ]
    }
}

const CONTAINER: &str = "Struct:Memory";

fn as_param(count: usize, beside: &Param<Tensor<1>>) -> Param<Tensor<1, Int>> {
    let count = Tensor::from_ints([count as i32], &beside.val().device());
    Param::initialized(ParamId::new(), count)
}
