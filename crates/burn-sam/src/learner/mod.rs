//! SAM in Burn's `Learner`.

mod metric;

use core::any::{Any, TypeId, type_name};
use core::ops::Deref;
use std::sync::Arc;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{
    Content, Devices, Lora, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, Param, ParamGroup, QLora, Quantizer, Reparameterizer,
};
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};
use burn::train::{
    ClassificationOutput, InferenceStep, MultiLabelClassificationOutput, RegressionOutput,
    SequenceOutput, TrainOutput, TrainStep,
};

use crate::SamConfig;
use crate::diagnostics::{Batch, LearnerModule};
use crate::part::AscentPart;
use crate::step::{ByParameter, Memory, Pass, Passes, Survey, Want, passes, take};
use metric::Steps;
pub use metric::{LossAtWMetric, RhoMetric, SharpnessMetric};

impl SamConfig {
    /// Wraps a model, so that Burn's `Learner` trains it with SAM. That is the whole change, with
    /// any of Burn's optimizers:
    ///
    /// ```
    /// # use burn::optim::SgdConfig;
    /// # use burn::train::{Learner, LearnerModel, TrainStep};
    /// # use burn_sam::{SamConfig, SamModel};
    /// # fn learner<M: LearnerModel>(model: M) -> Learner<SamModel<M>>
    /// # where
    /// #     <M as TrainStep>::Input: Clone,
    /// # {
    /// let learner = Learner::new(
    ///     SamConfig::new().init(model), // was: model
    ///     SgdConfig::new().init(),
    ///     0.1,
    /// );
    /// # learner
    /// # }
    /// ```
    ///
    /// The training's result is a [`SamModel`]: use it as the model that it is, or take the model out
    /// with [`into_inner`](SamModel::into_inner).
    ///
    /// # Panics
    ///
    /// If the [ascent fraction](Self::with_ascent_fraction) is not 1: then it takes
    /// [`init_on_part`](Self::init_on_part). Or if `model` is a [`SamModel`] already, whose two passes
    /// would become four.
    pub fn init<M: LearnerModule>(&self, model: M) -> SamModel<M>
    where
        M::Input: Batch,
    {
        assert!(
            self.ascent_part().is_whole(),
            "the ascent_fraction is below 1, but SamConfig::init does not know how to take part of a \
             batch: tell it with SamConfig::init_on_part"
        );
        self.wrap(model, None)
    }

    /// Wraps a model as [`init`](Self::init) does, for a configuration with an
    /// [ascent fraction](Self::with_ascent_fraction): `take` makes the part of a batch that the ascent
    /// uses, out of the parts of its tensors.
    ///
    /// ```
    /// use burn::tensor::{Int, Tensor};
    /// # use burn::train::{LearnerModel, TrainStep};
    /// use burn_sam::SamConfig;
    ///
    /// #[derive(Clone)]
    /// struct Batch {
    ///     images: Tensor<4>,
    ///     labels: Tensor<1, Int>,
    /// }
    ///
    /// # fn wrap<M: LearnerModel + TrainStep<Input = Batch>>(model: M) {
    /// let sam = SamConfig::new().with_ascent_fraction(0.125);
    /// let model = sam.init_on_part(model, |batch: &Batch, part| Batch {
    ///     images: part.of(&batch.images),
    ///     labels: part.of(&batch.labels),
    /// });
    /// # }
    /// ```
    ///
    /// With a fraction of 1, `take` is not called and all is as with `init`.
    pub fn init_on_part<M, F>(&self, model: M, take: F) -> SamModel<M>
    where
        M: LearnerModule,
        M::Input: Batch,
        F: Fn(&M::Input, AscentPart) -> M::Input + Send + Sync + 'static,
    {
        let part = self.ascent_part();
        match part.is_whole() {
            true => self.wrap(model, None),
            false => self.wrap(model, Some(Arc::new(move |batch| take(batch, part)))),
        }
    }

    fn wrap<M: TrainStep + Module>(&self, model: M, part: Option<Part<M::Input>>) -> SamModel<M> {
        self.refuse_idle();
        // All SamModels have the same name up to their parameter; types cannot say `not a SamModel`.
        let (own, _) = type_name::<SamModel<M>>()
            .split_once('<')
            .expect("it has a parameter");
        let of_model = type_name::<M>().split_once('<');
        assert!(
            of_model.is_none_or(|(name, _)| name != own),
            "SamConfig::init got a SamModel, whose training step already takes SAM's two passes: wrapped \
             once more it would take four. Wrap the model itself, or take it out with \
             SamModel::into_inner"
        );
        SamModel {
            sam: self.clone(),
            memory: Memory::new(self.method(), &model),
            model,
            part,
            loss: loss_of_burns(),
            sharpness: None,
            radius: None,
            loss_at_w: None,
        }
    }
}

/// A model that Burn's `Learner` trains with SAM or another method of [`SamConfig`], with any base optimizer.
/// From [`SamConfig::init`].
///
/// With SAM, its training step runs two passes of the model's own: one at the weights w, whose output the
/// metrics see and which updates running statistics, and one at w + e(w), whose gradients the
/// optimizer gets. With [`SamConfig::auto`] it runs one, at w + e(w), or at w in the first 20 steps and each 20th, which
/// alone update running statistics; metrics see that one. All else is the model's: as a [`Module`] it has the same parameters under the
/// same paths, so records and parameter groups are those of the model, and a checkpoint made with SAM
/// can be loaded without it, and the other way round. It derefs to the model (`result.model.forward(..)`),
/// and can be a field of another module. Printed, as in the Learner's summary, it shows SAM's settings
/// and the model.
///
/// The input of the training step is cloned for the second pass, hence `Clone`.
///
/// With an [ascent fraction](SamConfig::with_ascent_fraction) below 1 the second pass is the one that
/// sees the whole batch: the metrics see its output, which is that of the climbed weights, and it
/// updates running statistics.
///
/// What a method keeps from step to step (MSAM, LookSAM, F-SAM, the count of steps, a radius that sets itself with the
/// means of its losses, the learning rate if rho follows it) is in its records under
/// the path `sam`, and resumes exactly. A record of another method, or of the model alone, loads too, with a
/// word in the log; into a model without SAM, such a record loads with
/// [`allow_unused`](ModuleRecord::allow_unused).
///
/// * With gradient accumulation, each micro-batch climbs on its own.
/// * With several devices, each climbs on its own share of the batch, which is the paper's
///   m-sharpness.
/// * Gradient clipping applies to the second pass's gradients.
pub struct SamModel<M: TrainStep> {
    sam: SamConfig,
    model: M,
    memory: Memory,
    part: Option<Part<M::Input>>,
    loss: Option<Loss<M::Output>>,
    sharpness: Option<Steps<[Tensor<1>; 2]>>,
    radius: Option<Steps<Tensor<1>>>,
    loss_at_w: Option<Steps<Tensor<1>>>,
}

/// Makes part of a batch.
type Part<Input> = Arc<dyn Fn(&Input) -> Input + Send + Sync>;

/// The loss in what a training step returns.
type Loss<Output> = Arc<dyn Fn(&Output) -> Tensor<1> + Send + Sync>;

/// That of Burn's own outputs.
fn loss_of_burns<Output: 'static>() -> Option<Loss<Output>> {
    fn find(output: &dyn Any) -> Option<Tensor<1>> {
        let classification = (output.downcast_ref()).map(|o: &ClassificationOutput| &o.loss);
        let labels = || (output.downcast_ref()).map(|o: &MultiLabelClassificationOutput| &o.loss);
        let regression = || output.downcast_ref().map(|o: &RegressionOutput| &o.loss);
        let sequence = || output.downcast_ref().map(|o: &SequenceOutput| &o.loss);
        let loss = classification.or_else(labels).or_else(regression);
        loss.or_else(sequence).cloned()
    }

    let known = [
        TypeId::of::<ClassificationOutput>(),
        TypeId::of::<MultiLabelClassificationOutput>(),
        TypeId::of::<RegressionOutput>(),
        TypeId::of::<SequenceOutput>(),
    ];
    known.contains(&TypeId::of::<Output>()).then(|| {
        let loss = |output: &Output| find(output).expect("it is one of these");
        Arc::new(loss) as Loss<Output>
    })
}

impl<M: TrainStep> SamModel<M> {
    /// The model.
    pub fn into_inner(self) -> M {
        self.model
    }

    /// SAM's settings.
    pub fn config(&self) -> &SamConfig {
        &self.sam
    }

    /// Names the loss, `[1]` or one value a sample, of what the model's training step returns, for a
    /// [radius that sets itself](crate::Radius::Rule). That of Burn's own outputs (`ClassificationOutput`,
    /// `RegressionOutput` and so on) is known; [`sharpness`](Self::sharpness) and [`loss_at_w`](Self::loss_at_w) name it too.
    ///
    /// With [`SamConfig::auto`], which estimates the loss at w from the gradients, it must be the loss that the training
    /// step differentiates, with the same scale.
    pub fn with_loss(self, loss: impl Fn(&M::Output) -> Tensor<1> + Send + Sync + 'static) -> Self {
        Self {
            loss: Some(Arc::new(loss)),
            ..self
        }
    }

    /// The radius rho of the next training step, of shape `[1]`, of every parameter that no group matches.
    pub fn rho(&self) -> Tensor<1> {
        self.memory.rho(self.sam.method())
    }

    /// A metric that shows the radius rho of each training step, beside the loss in the dashboard and the logs of
    /// Burn's `Learner`: that of every parameter that no group matches.
    ///
    /// A model has one such metric: another call takes the place of the one before.
    pub fn rho_metric(&mut self) -> RhoMetric {
        let (metric, steps) = RhoMetric::new();
        self.radius = Some(steps);
        metric
    }

    /// A metric that shows how sharp the loss is where the training is. `loss` gives the loss,
    /// `[1]` or one value a sample, of what the model's training step returns; it is named for all that needs it,
    /// as with [`with_loss`](Self::with_loss).
    ///
    /// A model has one such metric: another call takes the place of the one before.
    ///
    /// ```
    /// use burn::train::metric::LossMetric;
    /// # use burn::train::{ClassificationOutput, LearnerModel, SupervisedTraining, TrainStep};
    /// # use burn_sam::{SamConfig, SamModel};
    ///
    /// # fn training<M>(model: M, training: SupervisedTraining<SamModel<M>>)
    /// # where
    /// #     M: LearnerModel + TrainStep<Output = ClassificationOutput>,
    /// #     <M as TrainStep>::Input: Clone,
    /// # {
    /// let mut model = SamConfig::new().init(model);
    /// let sharpness = model.sharpness(|output| output.loss.clone());
    /// let training = training
    ///     .metric_train_numeric(LossMetric::new())
    ///     .metric_train_numeric(sharpness);
    /// # }
    /// ```
    pub fn sharpness(
        &mut self,
        loss: impl Fn(&M::Output) -> Tensor<1> + Send + Sync + 'static,
    ) -> SharpnessMetric {
        let (metric, steps) = SharpnessMetric::new();
        self.loss = Some(Arc::new(loss));
        self.sharpness = Some(steps);
        metric
    }

    /// A metric that shows the loss at w of each training step, also of a method whose only pass is at w + e(w). `loss` is
    /// as for [`sharpness`](Self::sharpness).
    ///
    /// A model has one such metric: another call takes the place of the one before.
    pub fn loss_at_w(
        &mut self,
        loss: impl Fn(&M::Output) -> Tensor<1> + Send + Sync + 'static,
    ) -> LossAtWMetric {
        let (metric, steps) = LossAtWMetric::new();
        self.loss = Some(Arc::new(loss));
        self.loss_at_w = Some(steps);
        metric
    }

    /// The update of the model, and what is remembered of it.
    fn update<G: ByParameter>(
        self,
        lr: &ModuleLearningRate,
        grads: G,
        update: impl FnOnce(M, G) -> M,
    ) -> Self
    where
        M: Module,
    {
        let method = self.sam.method();
        let (model, memory) = (self.memory).update(method, lr, self.model, grads, update);
        Self {
            memory: memory.caught_up(method, &model),
            model,
            ..self
        }
    }

    /// A change after which the model's parameters may be others.
    fn map_parameters(self, f: impl FnOnce(M) -> M) -> Self
    where
        M: Module,
    {
        let model = f(self.model);
        let memory = self.memory.rebound(&model);
        Self {
            model,
            memory,
            ..self
        }
    }

    fn map_model(self, f: impl FnOnce(M) -> M) -> Self {
        Self {
            model: f(self.model),
            ..self
        }
    }
}

/// The model.
impl<M: TrainStep> Deref for SamModel<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.model
    }
}

impl<M: TrainStep + Clone> Clone for SamModel<M> {
    fn clone(&self) -> Self {
        Self {
            sam: self.sam.clone(),
            model: self.model.clone(),
            memory: self.memory.clone(),
            part: self.part.clone(),
            loss: self.loss.clone(),
            sharpness: self.sharpness.clone(),
            radius: self.radius.clone(),
            loss_at_w: self.loss_at_w.clone(),
        }
    }
}

impl<M: TrainStep + core::fmt::Debug> core::fmt::Debug for SamModel<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SamModel")
            .field("sam", &self.sam)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl<M> TrainStep for SamModel<M>
where
    M: TrainStep + Module,
    M::Input: Clone,
{
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        let (part, counted) = match &self.part {
            None => (item.clone(), Pass::AtW),
            Some(part) => (part(&item), Pass::Climbed),
        };
        let mut item = Some(item);
        let (method, memory) = (self.sam.method(), &self.memory);
        let want = Want {
            counted,
            rise: self.sharpness.is_some() || self.loss_at_w.is_some(),
        };
        // Another micro-batch may climb along what is kept once more, so that it is not lent.
        let at_w = (&self.model, Survey::of(method, &self.model), None);
        let mut taken = passes(method, memory, at_w, want, |model, at| {
            let (model, item) = match at {
                Pass::Plain | Pass::Climbed => (model, item.take().expect("once")),
                // What the update is made of must be the same for all workers.
                Pass::AtW if method.descends_along_first_gradients() => (model, part.clone()),
                Pass::AtW | Pass::Between => (model.map(&mut Local), part.clone()),
            };
            let output = model.step(item);
            (output.item, take(&model, output.grads))
        });
        if let Some(radius) = &self.radius {
            radius.push(Some(memory.rho(method)));
        }
        let loss_of = |output: &M::Output| Some(self.loss.as_ref()?(output).without_autodiff());
        if let Some(loss_at_w) = &self.loss_at_w {
            loss_at_w.push(metric::loss_at_w(&taken, loss_of));
        }
        if let Some(sharpness) = &self.sharpness {
            sharpness.push(metric::losses(&taken, loss_of));
        }
        if method.needs().losses {
            assert!(
                self.loss.is_some(),
                "radius rule sets rho from the losses of a step, and what the model's training step returns \
                 ({}) is none of Burn's own outputs: say where its loss is, with SamModel::with_loss",
                type_name::<M::Output>()
            );
            if let Some(seen) = taken.seen(loss_of) {
                memory.report_seen(method, &mut taken.grads, seen);
            }
        }
        let Passes { at_w, climbed } = taken.passes;
        let grads = taken.grads;
        let [preferred, other] = match counted {
            Pass::Climbed => [climbed, at_w],
            _ => [at_w, climbed],
        };
        let item = preferred.or(other).expect("a step has a pass");
        TrainOutput { grads, item }
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let lr = lr_module.clone();
        self.update(&lr, grads, |model, grads| {
            model.optimize(optim, lr_module, grads)
        })
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        let lr = lr_module.clone();
        self.update(&lr, grads, |model, grads| {
            model.optimize_multi(optim, lr_module, grads)
        })
    }
}

/// Takes parameters out of the distribution over workers (Burn's `DistributedDataParallel`), which
/// would sum their gradients over all workers: each worker climbs along its own.
struct Local;

impl ModuleMapper for Local {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !(param.is_initialized() && param.is_require_grad() && param.is_distributed()) {
            return param;
        }
        param.map(|tensor| {
            let strategy = tensor.gradient_checkpointing_strategy();
            let require_grad = tensor.is_require_grad();
            let local = tensor.inner().autodiff();
            let local = match strategy {
                Some(strategy) => local.with_gradient_checkpointing_strategy(strategy),
                None => local,
            };
            local.set_require_grad(require_grad)
        })
    }
}

impl<M: InferenceStep + TrainStep> InferenceStep for SamModel<M> {
    type Input = <M as InferenceStep>::Input;
    type Output = <M as InferenceStep>::Output;

    fn step(&self, item: Self::Input) -> Self::Output {
        InferenceStep::step(&self.model, item)
    }
}

/// SAM's settings and the model.
impl<M: TrainStep + core::fmt::Display> core::fmt::Display for SamModel<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        writeln!(f, "SamModel {{")?;
        for (name, value) in settings(&self.sam) {
            writeln!(f, "  {name}: {value}")?;
        }
        let model = self.model.to_string().replace('\n', "\n  ");
        write!(f, "  model: {model}\n}}")
    }
}

/// The same as a part of another module's display.
impl<M: TrainStep + ModuleDisplay> ModuleDisplayDefault for SamModel<M> {
    fn content(&self, content: Content) -> Option<Content> {
        let content = content.set_top_level_type("SamModel");
        settings(&self.sam)
            .into_iter()
            .fold(content, |content, (name, value)| {
                content.add(&name, value.as_str())
            })
            .add("model", &self.model)
            .optional()
    }
}

impl<M: TrainStep + ModuleDisplay> ModuleDisplay for SamModel<M> {}

/// What a reader of a summary wants to know: which SAM it is.
fn settings(sam: &SamConfig) -> Vec<(String, String)> {
    let rho = ("rho".to_string(), sam.rho().to_string());
    let others = sam.method().unusual().into_iter();
    let others = others.filter(|(name, _)| name != "rho");
    [rho].into_iter().chain(others).collect()
}

/// Each method is the model's own.
impl<M: TrainStep + Module> Module for SamModel<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.model.collect_devices(devices)
    }

    fn devices(&self) -> Devices {
        self.model.devices()
    }

    fn num_params(&self) -> usize {
        self.model.num_params()
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        self.model.visit(visitor);
        self.memory.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        Self {
            model: self.model.map(mapper),
            memory: self.memory.map(mapper),
            ..self
        }
    }

    fn fork(self, device: &Device) -> Self {
        Self {
            model: self.model.fork(device),
            memory: self.memory.moved_to(device),
            ..self
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            model: self.model.to_device(device),
            memory: self.memory.moved_to(device),
            ..self
        }
    }

    fn valid(&self) -> Self {
        Self {
            sam: self.sam.clone(),
            model: self.model.valid(),
            memory: self.memory.clone(),
            part: self.part.clone(),
            loss: self.loss.clone(),
            sharpness: self.sharpness.clone(),
            radius: self.radius.clone(),
            loss_at_w: self.loss_at_w.clone(),
        }
    }

    fn train(self) -> Self {
        self.map_model(M::train)
    }

    fn materialize(self) -> Self {
        self.map_model(M::materialize)
    }

    fn set_require_grad(self, require_grad: bool) -> Self {
        self.map_parameters(|model| model.set_require_grad(require_grad))
    }

    fn set_require_grad_group(self, group: ParamGroup, require_grad: bool) -> Self {
        self.map_parameters(|model| model.set_require_grad_group(group, require_grad))
    }

    fn no_grad(self) -> Self {
        self.map_parameters(M::no_grad)
    }

    fn freeze(self) -> Self {
        self.map_parameters(M::freeze)
    }

    fn unfreeze(self) -> Self {
        self.map_parameters(M::unfreeze)
    }

    fn freeze_group(self, group: ParamGroup) -> Self {
        self.map_parameters(|model| model.freeze_group(group))
    }

    fn unfreeze_group(self, group: ParamGroup) -> Self {
        self.map_parameters(|model| model.unfreeze_group(group))
    }

    fn quantize_weights(self, quantizer: &mut Quantizer) -> Self {
        self.map_model(|model| model.quantize_weights(quantizer))
    }

    fn quantize_weights_group(self, quantizer: &mut Quantizer, group: ParamGroup) -> Self {
        self.map_model(|model| model.quantize_weights_group(quantizer, group))
    }

    fn apply_reparameterization<R: Reparameterizer>(self, reparameterizer: R) -> Self {
        self.map_parameters(|model| model.apply_reparameterization(reparameterizer))
    }

    fn apply_lora(self, lora: Lora) -> Self {
        self.map_parameters(|model| model.apply_lora(lora))
    }

    fn apply_qlora(self, qlora: QLora) -> Self {
        self.map_parameters(|model| model.apply_qlora(qlora))
    }

    fn into_record(self) -> ModuleRecord {
        self.memory.record(self.model)
    }

    fn into_record_group(self, group: ParamGroup) -> ModuleRecord {
        self.model.into_record_group(group)
    }

    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let (model, memory) = self.memory.load(self.sam.method(), self.model, record)?;
        Ok(Self {
            model,
            memory,
            ..self
        })
    }
}
