//! What is kept from one step to the next: a count, and at most one vector of the weights' size.

use std::collections::HashMap;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_sam_kernels::{Pair, combine, inner_products};

use super::ascent::{climb_along_update, in_place_of};
use super::pairs::set_where;
use super::radius::{self, Factor};
use crate::{Ascent, Descent, Radius, SamConfig};

/// Which vector a method keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// MSAM: the weights at w + e(w) of the next step.
    Climbed,
    /// F-SAM: the average of the gradients at w.
    Average,
    /// LookSAM: the part of the last ascent's second gradient that is orthogonal to the first one.
    Orthogonal,
    /// Decoupled WSAM: nothing, but a way for what the passes found out to the update.
    Sharpness,
}

impl Kind {
    /// Its name in paths.
    fn name(self) -> &'static str {
        match self {
            Self::Climbed => "climbed",
            Self::Average => "average",
            Self::Orthogonal => "orthogonal",
            Self::Sharpness => "sharpness",
        }
    }
}

/// What is kept from step to step.
///
/// As a [`Module`] it is a part of what it is kept for, so that checkpoints hold it and devices are
/// changed with it. Its parameters have ids of their own: what a pass finds out is registered with the
/// gradients, under these, and takes the gradients' way through accumulation and over devices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Updates so far, if the method depends on it.
    count: Option<usize>,
    kind: Option<Kind>,
    vectors: Vec<Vector>,
    index: HashMap<ParamId, usize>,
    /// Summed over micro-batches and devices, the number of them.
    share: Option<Param<Tensor<1>>>,
    /// The first parameter's, for what is the host's in a record.
    device: Option<Device>,
    /// The learning rate of the last update, if rho follows it: in the precision that a record keeps.
    lr: Option<f32>,
    /// The state of the rule that sets rho.
    radius: Option<Param<Tensor<1>>>,
}

/// Which of these a method has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parts {
    counts: bool,
    kind: Option<Kind>,
    lr: bool,
    radius: bool,
}

impl Parts {
    fn of(sam: &SamConfig) -> Self {
        Self {
            counts: sam.counts_steps(),
            kind: sam.remembers(),
            lr: matches!(sam.radius(), Radius::LearningRate { .. }),
            radius: sam.radius().is_rule(),
        }
    }

    /// Of all methods there are.
    fn all() -> impl Iterator<Item = Self> {
        let kinds = [
            None,
            Some(Kind::Climbed),
            Some(Kind::Average),
            Some(Kind::Orthogonal),
            Some(Kind::Sharpness),
        ];
        let radii = [(false, false), (true, false), (false, true)];
        [false, true].into_iter().flat_map(move |counts| {
            kinds.into_iter().flat_map(move |kind| {
                radii.map(|(lr, radius)| Self {
                    counts,
                    kind,
                    lr,
                    radius,
                })
            })
        })
    }
}

/// A parameter's part of the vector, flat.
#[derive(Clone, Debug)]
struct Vector {
    path: String,
    value: Param<Tensor<1>>,
}

impl Memory {
    /// Whether a method keeps anything.
    pub(crate) fn is_kept_by(sam: &SamConfig) -> bool {
        Parts::of(sam) != Parts::default()
    }

    /// At the start of a training of this module.
    pub(crate) fn new<M: Module>(sam: &SamConfig, module: &M) -> Self {
        let mut memory = Self::with(Parts::of(sam), module);
        if let Some(state) = &mut memory.radius {
            let rho = state.val().narrow(0, 0, 1).ones_like() * sam.rho();
            let unknown = rho.ones_like() * f64::NAN;
            let of_losses = unknown.expand([radius::STATE - 1]);
            *state = Param::initialized(state.id, Tensor::cat(vec![rho, of_losses], 0));
        }
        memory
    }

    fn with<M: Module>(parts: Parts, module: &M) -> Self {
        let Parts {
            counts,
            kind,
            lr,
            radius,
        } = parts;
        let mut memory = Self {
            count: counts.then_some(0),
            kind,
            lr: lr.then_some(f32::NAN),
            ..Self::default()
        };
        if let Some(kind) = kind {
            let mut start = Start {
                kind,
                path: Vec::new(),
                memory: &mut memory,
            };
            module.visit(&mut start);
        }
        if counts {
            let device = module.devices().first().cloned().unwrap_or_default();
            let zero = Tensor::zeros([1], &device.inner());
            memory.share = Some(Param::initialized(ParamId::new(), zero));
        }
        let mut like = Like(None);
        module.visit(&mut like);
        memory.device = like.0.as_ref().map(|(device, _)| device.clone());
        if radius {
            let (device, dtype) = like.0.unwrap_or_else(|| (Device::default(), DType::F32));
            let state = Tensor::zeros([radius::STATE], (&device, dtype));
            memory.radius = Some(Param::initialized(ParamId::new(), state));
        }
        memory
    }

    fn parts(&self) -> Parts {
        Parts {
            counts: self.count.is_some(),
            kind: self.kind,
            lr: self.lr.is_some(),
            radius: self.radius.is_some(),
        }
    }

    /// For a module whose parameters have got other ids or have become others: what was kept under a path
    /// that is still there, with the same size, is kept on.
    pub(crate) fn rebind<M: Module>(self, module: &M) -> Self {
        let parts = self.parts();
        let mut kept: HashMap<String, Param<Tensor<1>>> = (self.vectors.into_iter())
            .map(|vector| (vector.path, vector.value))
            .collect();
        let mut memory = Self::with(parts, module);
        for vector in &mut memory.vectors {
            match kept.remove(&vector.path) {
                Some(value) if value.shape() == vector.value.shape() => vector.value = value,
                _ => {}
            }
        }
        Self {
            count: self.count,
            share: self.share,
            lr: self.lr,
            radius: self.radius,
            ..memory
        }
    }

    /// 1, on the vector's device, in the type that it is computed in.
    pub(crate) fn one(&self) -> Tensor<1> {
        let values = || self.vectors.iter().map(|vector| vector.value.val());
        let dtype = match values().any(|value| value.dtype() == DType::F64) {
            true => DType::F64,
            false => DType::F32,
        };
        let device = values().next().map(|value| value.device());
        Tensor::ones([1], (&device.unwrap_or_default(), dtype))
    }

    /// What all radii are multiplied by at the next step.
    pub(crate) fn factor(&self, sam: &SamConfig) -> Factor {
        match &self.radius {
            Some(state) => Factor {
                device: Some(state.val().narrow(0, 0, 1) / sam.rho()),
                ..Factor::ONE
            },
            None => {
                let since_start = self.count().saturating_sub(sam.start());
                let lr = self.lr.filter(|lr| !lr.is_nan()).map(f64::from);
                Factor::host(radius::factor(sam, since_start, lr))
            }
        }
    }

    fn device(&self) -> Device {
        self.device.clone().unwrap_or_default()
    }

    /// Rho at the next step, of shape `[1]`.
    pub(crate) fn rho(&self, sam: &SamConfig) -> Tensor<1> {
        match &self.radius {
            Some(state) => state.val().narrow(0, 0, 1),
            None => Tensor::from_data([sam.rho() * self.factor(sam).host], &self.device()),
        }
    }

    /// Hands the losses at w and at w + e(w), without autodiff, to the rule that sets rho, with the gradients.
    pub(crate) fn report_losses(&self, grads: &mut GradientsParams, losses: [Tensor<1>; 2]) {
        if let Some(state) = &self.radius {
            grads.register(state.id, radius::report(&state.val(), losses));
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.unwrap_or(0)
    }

    /// Whether every step's gradients enter it.
    pub(crate) fn averages(&self) -> bool {
        self.kind == Some(Kind::Average)
    }

    fn is_empty(&self) -> bool {
        self.parts() == Parts::default()
    }

    /// The vector's part of a parameter, in its shape, on the device of `like`.
    pub(crate) fn get<const D: usize>(&self, id: ParamId, like: &Tensor<D>) -> Option<Tensor<D>> {
        let vector = &self.vectors[*self.index.get(&id)?];
        let value = vector.value.val().to_device(&like.device());
        Some(value.reshape(like.shape()))
    }

    /// The vector, of each parameter that has a gradient, in its shape.
    pub(crate) fn vectors_of<M: Module>(
        &self,
        module: &M,
        grads: &GradientsParams,
    ) -> GradientsParams {
        struct Vectors<'a> {
            memory: &'a Memory,
            grads: &'a GradientsParams,
            vectors: GradientsParams,
        }

        impl ModuleVisitor for Vectors<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(grad) = self.grads.get::<D>(param.id)
                    && let Some(vector) = self.memory.get(param.id, &grad)
                {
                    self.vectors.register(param.id, vector);
                }
            }
        }

        let mut vectors = Vectors {
            memory: self,
            grads,
            vectors: GradientsParams::new(),
        };
        module.visit(&mut vectors);
        vectors.vectors
    }

    /// The gradients g at w, for an average of them.
    pub(crate) fn report_all<M: Module>(
        &self,
        module: &M,
        reported: &GradientsParams,
        grads: &mut GradientsParams,
    ) {
        struct All<'a> {
            memory: &'a Memory,
            reported: &'a GradientsParams,
            grads: &'a mut GradientsParams,
        }

        impl ModuleVisitor for All<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(value) = self.reported.get::<D>(param.id) {
                    self.memory.report(self.grads, param.id, value);
                }
            }
        }

        module.visit(&mut All {
            memory: self,
            reported,
            grads,
        });
        if let Some(share) = &self.share {
            let one = share.val().ones_like();
            grads.register(share.id, one);
        }
    }

    /// Hands what a pass found out for a parameter to the update, with the gradients.
    pub(crate) fn report<const D: usize>(
        &self,
        grads: &mut GradientsParams,
        id: ParamId,
        value: Tensor<D>,
    ) {
        if let Some(index) = self.index.get(&id) {
            let length = value.shape().num_elements();
            grads.register(self.vectors[*index].value.id, value.reshape([length]));
        }
    }

    /// The module at w + e(w) of the next step.
    pub(crate) fn climbed<M: Module>(&self, module: M) -> M {
        module.map(&mut AtClimbed(self))
    }

    /// What was reported: taken out of the gradients, since no optimizer must see it.
    pub(crate) fn collect(&self, mut remove: impl FnMut(ParamId) -> Option<Tensor<1>>) -> Reports {
        Reports {
            share: (self.share.as_ref()).and_then(|share| remove(share.id)),
            losses: (self.radius.as_ref()).and_then(|state| remove(state.id)),
            vectors: (self.vectors.iter())
                .map(|vector| remove(vector.value.id))
                .collect(),
        }
    }

    /// An update of a module, and what is remembered of it.
    pub(crate) fn update<M: Module>(
        mut self,
        sam: &SamConfig,
        lr: &ModuleLearningRate,
        module: M,
        mut reports: Reports,
        update: impl FnOnce(M) -> M,
    ) -> (M, Self) {
        let losses = reports.losses.take();
        let before = (self.kind == Some(Kind::Climbed)).then(|| module.clone());
        let mut after = update(module);
        self.count = self.count.map(|count| count + 1);
        // Rounded, so that a run that goes on from a record is the same.
        self.lr = self.lr.map(|_| lr.base() as f32);
        if let (Some(state), Some(losses)) = (&mut self.radius, losses) {
            *state = Param::initialized(state.id, radius::next(sam, state.val(), losses));
        }
        match (self.kind, before) {
            (Some(Kind::Climbed), Some(before)) => self.climb_along_the_update(sam, before, &after),
            (Some(Kind::Sharpness), _) => after = self.descend(sam, lr, after, reports),
            (Some(Kind::Orthogonal), _) => {
                for (vector, report) in self.vectors.iter_mut().zip(reports.vectors) {
                    if let Some(report) = report {
                        vector.set(report);
                    }
                }
            }
            (Some(Kind::Average), _) => self.average(sam, reports),
            _ => {}
        }
        (after, self)
    }

    /// Decoupled WSAM: w - lr a (h - g).
    fn descend<M: Module>(
        &self,
        sam: &SamConfig,
        lr: &ModuleLearningRate,
        module: M,
        reports: Reports,
    ) -> M {
        let Descent::Wsam { gamma, .. } = sam.descent() else {
            return module;
        };
        module.map(&mut Descend {
            a: gamma / (1.0 - gamma),
            lr,
            path: Vec::new(),
            index: &self.index,
            reports: reports.vectors,
        })
    }

    /// MSAM: the next step's e(w) is rho u / |u| with the update u that has just been made.
    fn climb_along_the_update<M: Module>(&mut self, sam: &SamConfig, before: M, after: &M) {
        let mut weights = Weights(self, GradientsParams::new());
        before.visit(&mut weights);
        let weights = weights.1;
        // What climbs is written where the weights before the update were, if nothing else holds them.
        drop(before);
        let factor = self.factor(sam);
        climb_along_update(sam, &factor, after.clone(), weights).visit(&mut Keep(self));
    }

    /// F-SAM: m <- lambda m + (1 - lambda) g, beginning with the first g. Of gradients that are not
    /// finite nothing is remembered.
    fn average(&mut self, sam: &SamConfig, reports: Reports) {
        let Ascent::Friendly { lambda, .. } = sam.ascent() else {
            return;
        };
        let Some(share) = reports.share else { return };
        let (indices, pairs): (Vec<usize>, Vec<Pair>) = (self.vectors.iter().enumerate())
            .zip(reports.vectors)
            .filter_map(|((index, vector), report)| {
                let report = report?;
                let old = vector.value.val().to_device(&report.device());
                Some((index, Pair::new(old, report)))
            })
            .unzip();
        let Some([_, _, squares]) = inner_products(&pairs) else {
            return;
        };
        let refused = squares.clone().is_finite().bool_not();
        let share = share.to_device(&squares.device()).cast(squares.dtype());
        let (old, new) = match self.count() {
            // The first step, which is counted.
            1 => (0.0, 1.0),
            _ => (lambda, 1.0 - lambda),
        };
        let coefficients = [share.ones_like() * old, share.recip() * new];
        let coefficients = set_where(coefficients, &refused, [1.0, 0.0]);
        let averages = combine(pairs, &coefficients);
        for (index, average) in indices.into_iter().zip(averages) {
            self.vectors[index].set(average.into_tensor());
        }
    }

    /// The module with what is remembered.
    pub(crate) fn record<M: Module>(self, module: M) -> ModuleRecord {
        Remembering {
            module,
            memory: self,
        }
        .into_record()
    }

    /// Loads what a checkpoint holds, of this module with this memory; or, with a word in the log, of one
    /// with another memory or none.
    pub(crate) fn load<M: Module>(
        self,
        sam: &SamConfig,
        module: M,
        record: ModuleRecord,
    ) -> Result<(M, Self), RecordError> {
        let whole = Remembering {
            module: module.clone(),
            memory: self.clone(),
        };
        let error = match whole.try_load_record(record.clone()) {
            Ok(Remembering { module, memory }) => {
                let memory = memory.rebind(&module);
                return Ok((module, memory));
            }
            Err(error) => error,
        };
        // A record without any memory, or with that of another method.
        for parts in Parts::all() {
            let other = Remembering {
                memory: Self::with(parts, &module),
                module: module.clone(),
            };
            let other_is_empty = other.memory.is_empty();
            if let Ok(loaded) = other.try_load_record(record.clone()) {
                if !self.is_empty() {
                    log::warn!(
                        "the record has nothing that SAM's method keeps from step to step (sam.*): it \
                         starts anew"
                    );
                }
                if !other_is_empty {
                    log::warn!(
                        "the record has something that another method of SAM kept from step to step \
                         (sam.*): it is left out"
                    );
                }
                let memory = Self::new(sam, &loaded.module);
                return Ok((loaded.module, memory));
            }
        }
        Err(error)
    }
}

impl Vector {
    fn set(&mut self, value: Tensor<1>) {
        self.value = Param::initialized(self.value.id, value);
    }
}

/// What the passes of a step found out, summed over micro-batches and devices.
pub(crate) struct Reports {
    share: Option<Tensor<1>>,
    losses: Option<Tensor<1>>,
    vectors: Vec<Option<Tensor<1>>>,
}

/// The first parameter's device, and the type that its gradients are added up in.
struct Like(Option<(Device, DType)>);

impl ModuleVisitor for Like {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.0.is_none() {
            let weight = param.val().inner();
            let dtype = match weight.dtype() {
                DType::F64 => DType::F64,
                _ => DType::F32,
            };
            self.0 = Some((weight.device(), dtype));
        }
    }
}

/// Makes the vectors: zeros, or the weights.
struct Start<'a> {
    kind: Kind,
    path: Vec<String>,
    memory: &'a mut Memory,
}

impl ModuleVisitor for Start<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() || self.memory.index.contains_key(&param.id) {
            return;
        }
        let weight = param.val().inner();
        let weight = weight.reshape([param.shape().num_elements()]);
        let value = match self.kind {
            Kind::Climbed => weight,
            Kind::Average | Kind::Orthogonal => weight.zeros_like(),
            Kind::Sharpness => Tensor::zeros([1], (&weight.device(), weight.dtype())),
        };
        self.memory
            .index
            .insert(param.id, self.memory.vectors.len());
        self.memory.vectors.push(Vector {
            path: self.path.join("."),
            value: Param::initialized(ParamId::new(), value),
        });
    }
}

/// The weights of the parameters that are remembered.
struct Weights<'a>(&'a Memory, GradientsParams);

impl ModuleVisitor for Weights<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.0.index.contains_key(&param.id) {
            self.1.register(param.id, param.val().inner());
        }
    }
}

/// Keeps a module's weights.
struct Keep<'a>(&'a mut Memory);

impl ModuleVisitor for Keep<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(index) = self.0.index.get(&param.id) {
            let weight = param.val().inner();
            let length = weight.shape().num_elements();
            self.0.vectors[*index].set(weight.reshape([length]));
        }
    }
}

/// Puts the climbed weights in the place of those at w.
struct AtClimbed<'a>(&'a Memory);

impl ModuleMapper for AtClimbed<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        match self.0.get(id, &param.val().inner()) {
            Some(climbed) => param.map(|weight| in_place_of(weight, climbed, id)),
            None => param,
        }
    }
}

/// Moves each weight along what was reported for it.
struct Descend<'a> {
    a: f64,
    lr: &'a ModuleLearningRate,
    path: Vec<String>,
    index: &'a HashMap<ParamId, usize>,
    reports: Vec<Option<Tensor<1>>>,
}

impl ModuleMapper for Descend<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let report = (self.index.get(&id)).and_then(|index| self.reports[*index].take());
        let Some(report) = report else { return param };
        let lr = self.lr.lr_from_param(id, Some(&self.path.join(".")));
        param.map(|weight| {
            let w = weight.clone().inner();
            let report = report.to_device(&w.device()).reshape(w.shape());
            in_place_of(weight, w - report * (lr * self.a), id)
        })
    }
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
            visitor.visit_float(&lr_as_param(lr, &self.device()));
            visitor.exit_module("lr", "Struct:Memory");
        }
        if let Some(state) = &self.radius {
            visitor.enter_module("radius", "Struct:Memory");
            visitor.visit_float(state);
            visitor.exit_module("radius", "Struct:Memory");
        }
        if let Some(kind) = self.kind {
            visitor.enter_module(kind.name(), "Struct:Memory");
            for vector in &self.vectors {
                visitor.enter_module(&vector.path, "Struct:Memory");
                visitor.visit_float(&vector.value);
                visitor.exit_module(&vector.path, "Struct:Memory");
            }
            visitor.exit_module(kind.name(), "Struct:Memory");
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
        let device = self.device();
        self.lr = self.lr.map(|lr| {
            let lr = mapper.map_float(lr_as_param(lr, &device));
            lr.val().into_scalar::<f32>()
        });
        mapper.exit_module("lr", "Struct:Memory");
        mapper.enter_module("radius", "Struct:Memory");
        self.radius = self.radius.map(|state| mapper.map_float(state));
        mapper.exit_module("radius", "Struct:Memory");
        if let Some(kind) = self.kind {
            mapper.enter_module(kind.name(), "Struct:Memory");
            for vector in &mut self.vectors {
                mapper.enter_module(&vector.path, "Struct:Memory");
                vector.value = mapper.map_float(vector.value.clone());
                mapper.exit_module(&vector.path, "Struct:Memory");
            }
            mapper.exit_module(kind.name(), "Struct:Memory");
        }
        mapper.exit_module("sam", "Struct:Memory");
        self
    }

    pub(crate) fn moved_to(mut self, device: &Device) -> Self {
        let device = device.clone().inner();
        let moved =
            |param: &Param<Tensor<1>>| Param::initialized(param.id, param.val().to_device(&device));
        self.device = self.device.map(|_| device.clone());
        self.share = self.share.as_ref().map(moved);
        self.radius = self.radius.as_ref().map(moved);
        for vector in &mut self.vectors {
            vector.value = moved(&vector.value);
        }
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
