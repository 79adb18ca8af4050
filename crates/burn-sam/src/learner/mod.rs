//! SAM in Burn's `Learner`.

mod metric;

use std::sync::Arc;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{
    Devices, Lora, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, QLora, Quantizer,
    Reparameterizer,
};
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};

use crate::step::{climb, with_own_statistics};
use crate::{AscentPart, SamConfig};
use metric::Observer;
pub use metric::SharpnessMetric;

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
    /// The training's result is a [`SamModel`]; [`into_inner`](SamModel::into_inner) gives the model
    /// back.
    ///
    /// # Panics
    ///
    /// If the [ascent fraction](Self::with_ascent_fraction) is not 1: then it takes
    /// [`init_on_part`](Self::init_on_part).
    pub fn init<M: TrainStep + Module>(&self, model: M) -> SamModel<M> {
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
        M: TrainStep + Module,
        F: Fn(&M::Input, AscentPart) -> M::Input + Send + Sync + 'static,
    {
        let part = self.ascent_part();
        match part.is_whole() {
            true => self.wrap(model, None),
            false => self.wrap(model, Some(Arc::new(move |batch| take(batch, part)))),
        }
    }

    fn wrap<M: TrainStep>(&self, model: M, part: Option<Part<M::Input>>) -> SamModel<M> {
        SamModel {
            sam: self.clone(),
            model,
            part,
            observer: None,
        }
    }
}

/// A model that Burn's `Learner` trains with SAM, with any base optimizer. From
/// [`SamConfig::init`].
///
/// Its training step runs two passes of the model's own: one at the weights w, whose output the
/// metrics see and which updates running statistics, and one at w + e(w), whose gradients the
/// optimizer gets. All else is the model's: as a [`Module`] it has the same parameters under the
/// same paths, so records, parameter groups and the summary are those of the model, and a
/// checkpoint made with SAM can be loaded without it, and the other way round.
///
/// The input of the training step is cloned for the second pass, hence `Clone`.
///
/// With an [ascent fraction](SamConfig::with_ascent_fraction) below 1 the second pass is the one that
/// sees the whole batch: the metrics see its output, which is that of the climbed weights, and it
/// updates running statistics.
///
/// * With gradient accumulation, each micro-batch climbs on its own.
/// * With several devices, each climbs on its own share of the batch, which is the paper's
///   m-sharpness.
/// * Gradient clipping applies to the second pass's gradients.
pub struct SamModel<M: TrainStep> {
    sam: SamConfig,
    model: M,
    part: Option<Part<M::Input>>,
    observer: Option<Observer<M::Output>>,
}

/// Makes part of a batch.
type Part<Input> = Arc<dyn Fn(&Input) -> Input + Send + Sync>;

impl<M: TrainStep> SamModel<M> {
    /// The model.
    pub fn into_inner(self) -> M {
        self.model
    }

    /// A metric that shows how sharp the loss is where the training is. `loss` gives the loss,
    /// `[1]` or one value a sample, of what the model's training step returns.
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
        let (metric, observer) = SharpnessMetric::new(loss);
        self.observer = Some(observer);
        metric
    }

    fn map_model(self, f: impl FnOnce(M) -> M) -> Self {
        Self {
            model: f(self.model),
            ..self
        }
    }
}

impl<M: TrainStep + Clone> Clone for SamModel<M> {
    fn clone(&self) -> Self {
        Self {
            sam: self.sam.clone(),
            model: self.model.clone(),
            part: self.part.clone(),
            observer: self.observer.clone(),
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
        // Made before the first pass: the statistics of several workers are averaged once all of them
        // have passed, which a copy taken in between would disturb.
        let own_statistics = with_own_statistics(&self.model);
        let shared_statistics = self.model.clone();
        let (at_w, to_climb, part) = match &self.part {
            None => (shared_statistics, own_statistics, item.clone()),
            Some(part) => (own_statistics, shared_statistics, part(&item)),
        };
        let first = at_w.map(&mut Local).step(part);
        let second = climb(&self.sam, to_climb, first.grads).step(item);
        if let Some(observer) = &self.observer {
            observer(&first.item, &second.item);
        }
        TrainOutput {
            grads: second.grads,
            item: match self.part {
                None => first.item,
                Some(_) => second.item,
            },
        }
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.map_model(|model| model.optimize(optim, lr_module, grads))
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        self.map_model(|model| model.optimize_multi(optim, lr_module, grads))
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

/// As the model.
impl<M: TrainStep + core::fmt::Display> core::fmt::Display for SamModel<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.model.fmt(f)
    }
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
        self.model.visit(visitor)
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.map_model(|model| model.map(mapper))
    }

    fn fork(self, device: &Device) -> Self {
        self.map_model(|model| model.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_model(|model| model.to_device(device))
    }

    fn valid(&self) -> Self {
        Self {
            sam: self.sam.clone(),
            model: self.model.valid(),
            part: self.part.clone(),
            observer: self.observer.clone(),
        }
    }

    fn train(self) -> Self {
        self.map_model(M::train)
    }

    fn materialize(self) -> Self {
        self.map_model(M::materialize)
    }

    fn set_require_grad(self, require_grad: bool) -> Self {
        self.map_model(|model| model.set_require_grad(require_grad))
    }

    fn set_require_grad_group(self, group: ParamGroup, require_grad: bool) -> Self {
        self.map_model(|model| model.set_require_grad_group(group, require_grad))
    }

    fn no_grad(self) -> Self {
        self.map_model(M::no_grad)
    }

    fn freeze(self) -> Self {
        self.map_model(M::freeze)
    }

    fn unfreeze(self) -> Self {
        self.map_model(M::unfreeze)
    }

    fn freeze_group(self, group: ParamGroup) -> Self {
        self.map_model(|model| model.freeze_group(group))
    }

    fn unfreeze_group(self, group: ParamGroup) -> Self {
        self.map_model(|model| model.unfreeze_group(group))
    }

    fn quantize_weights(self, quantizer: &mut Quantizer) -> Self {
        self.map_model(|model| model.quantize_weights(quantizer))
    }

    fn quantize_weights_group(self, quantizer: &mut Quantizer, group: ParamGroup) -> Self {
        self.map_model(|model| model.quantize_weights_group(quantizer, group))
    }

    fn apply_reparameterization<R: Reparameterizer>(self, reparameterizer: R) -> Self {
        self.map_model(|model| model.apply_reparameterization(reparameterizer))
    }

    fn apply_lora(self, lora: Lora) -> Self {
        self.map_model(|model| model.apply_lora(lora))
    }

    fn apply_qlora(self, qlora: QLora) -> Self {
        self.map_model(|model| model.apply_qlora(qlora))
    }

    fn into_record(self) -> ModuleRecord {
        self.model.into_record()
    }

    fn into_record_group(self, group: ParamGroup) -> ModuleRecord {
        self.model.into_record_group(group)
    }

    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let model = self.model.try_load_record(record)?;
        Ok(Self { model, ..self })
    }
}
