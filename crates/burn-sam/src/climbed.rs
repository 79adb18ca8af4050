//! SAM's two steps, in a loop of one's own.

use core::ops::Deref;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Gradients;
use burn_sam_kernels::Vector;

use crate::method::Direction;
use crate::step::{
    AtW, Memory, Pass, Passes, Survey, climb, descend, gradients_of, register, take,
    with_own_statistics,
};
use crate::{SamConfig, SamSteps};

impl SamConfig {
    /// SAM's first step: climbs from the module at w to w + e(w), along the gradients of a loss
    /// taken with this module.
    ///
    /// The module goes in and comes back, updated, from [`Climbed::second_step`]; in between, a loop
    /// has the climbed module only, so that it cannot take the second gradients at w by mistake.
    /// Inside, the module at w keeps its weights, bit for bit: nothing is ever subtracted.
    ///
    /// The climbed module has running statistics (batch normalization's) of its own, so that the
    /// second pass does not count the batch again. Parameters without a gradient are not perturbed. If
    /// all gradients are zero, or their norm is not finite, nothing is; that is decided on the device,
    /// and nothing is read back.
    ///
    /// # Arguments
    ///
    /// * `module` - the module at w, on an autodiff device.
    /// * `grads` - the gradients of a loss of this module's output; the loss may be of part of the
    ///   batch (see [`ascent_part`](Self::ascent_part)).
    ///
    /// # Panics
    ///
    /// If parameters of the module require gradients, but none has one in `grads`; or if a
    /// [group](Self::with_group) matches no parameter of the module.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::nn::{Linear, LinearConfig};
    /// use burn::optim::SgdConfig;
    /// use burn::tensor::{Device, Tensor};
    /// use burn_sam::SamConfig;
    ///
    /// let device = Device::flex().autodiff();
    /// let mut model = LinearConfig::new(2, 1).init(&device);
    /// let inputs = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, -1.0]], &device);
    /// let loss = |model: &Linear| model.forward(inputs.clone()).square().mean();
    ///
    /// let sam = SamConfig::new().with_rho(0.05);
    /// let mut optim = SgdConfig::new().init();                // any of Burn's optimizers
    /// for _ in 0..3 {
    ///     let grads = loss(&model).backward();                // at w
    ///     let climbed = sam.first_step(model, grads);         // w + e(w)
    ///     let grads = loss(&climbed).backward();              // at w + e(w)
    ///     model = climbed.second_step(&mut optim, 0.1, grads); // the base update, on w
    /// }
    /// ```
    ///
    /// # References
    ///
    /// Algorithm 1 and equation 2 of [Sharpness-Aware Minimization](https://arxiv.org/abs/2010.01412).
    pub fn first_step<M: Module>(&self, module: M, grads: Gradients) -> Climbed<M> {
        let grads = gradients_of(&module, grads, Pass::AtW);
        self.climb_along(module, grads)
    }

    /// The [first step](Self::first_step) along gradients that are already sorted by parameter: those
    /// of a `TrainStep`, a sum over several losses, or gradients made by hand.
    ///
    /// Without any gradient, the climbed module is at w.
    ///
    /// # Panics
    ///
    /// If there are gradients, but none of a parameter of `module`; or if a
    /// [group](Self::with_group) matches no parameter of the module.
    pub fn climb<M: Module>(&self, module: M, grads: GradientsParams) -> Climbed<M> {
        let grads = take(&module, grads);
        self.climb_along(module, grads)
    }

    fn climb_along<M: Module>(&self, module: M, grads: Vector) -> Climbed<M> {
        self.refuse_memory();
        self.refuse_idle();
        let method = self.method();
        let survey = Survey::of(method, &module);
        let kept = method.keeps_first_gradients().then(|| grads.clone());
        let own = with_own_statistics(&module, &survey);
        let direction = Direction::Gradient(grads);
        let ascended = climb(
            method,
            &survey,
            &Memory::default().factor(method),
            own,
            direction,
        );
        Climbed {
            sam: self.clone(),
            at_w: module,
            survey,
            first: AtW::new(method, kept, ascended.way),
            climbed: ascended.module,
            climbs: 1,
            unfinished: Unfinished(true),
        }
    }

    /// One whole step of SAM: both passes and the update.
    ///
    /// `pass` is called twice, with the module at w and with the module at w + e(w); with several
    /// [ascents](Self::with_ascents), also on the way up. It returns the gradients there and whatever else
    /// you want to know of the pass (the loss, the output). What it returned at w and at w + e(w) is handed
    /// back, as the tensors that these may be: no value is read back from the device.
    ///
    /// # Arguments
    ///
    /// * `optim` - the module's optimizer: any of Burn's, as its configuration's `init` gives it, with
    ///   its gradient clipping and its groups.
    /// * `lr` - the learning rate.
    /// * `module` - the module at w.
    /// * `pass` - a forward and a backward pass over the batch.
    ///
    /// # Panics
    ///
    /// As [`first_step`](Self::first_step) and [`second_step`](Climbed::second_step), or if the
    /// [ascent fraction](Self::with_ascent_fraction) is not 1: `pass` takes the whole batch both times.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::nn::{Linear, LinearConfig};
    /// use burn::optim::AdamConfig;
    /// use burn::tensor::{Device, Tensor};
    /// use burn_sam::SamConfig;
    ///
    /// let device = Device::flex().autodiff();
    /// let model = LinearConfig::new(2, 1).init(&device);
    /// let inputs = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
    ///
    /// let sam = SamConfig::new();
    /// let mut optim = AdamConfig::new().init();
    /// let (model, [loss, loss_climbed]) = sam.optimize(&mut optim, 0.01, model, |model: &Linear| {
    ///     let loss = model.forward(inputs.clone()).square().mean();
    ///     let grads = loss.backward();
    ///     (loss, grads)
    /// });
    /// let sharpness = loss_climbed - loss;
    /// # assert!(sharpness.into_scalar::<f32>() > 0.0);
    /// ```
    pub fn optimize<M, T, F>(
        &self,
        optim: &mut ModuleOptimizer,
        lr: impl Into<ModuleLearningRate>,
        module: M,
        pass: F,
    ) -> (M, [T; 2])
    where
        M: Module,
        F: FnMut(&M) -> (T, Gradients),
    {
        self.refuse_memory();
        let (module, passes) =
            SamSteps::without_memory(self.clone()).optimize(optim, lr, module, pass);
        let Passes { at_w, climbed } = passes;
        let values = [at_w, climbed].map(|value| value.expect("each of SAM's steps has both"));
        (module, values)
    }

    /// What is kept from step to step has no place here.
    fn refuse_memory(&self) {
        assert!(
            !Memory::is_kept_by(self.method()),
            "this SamConfig keeps something from one step to the next (radius, ascent, every, between, start \
             or a decoupled descent): take its steps with SamConfig::steps and SamSteps::optimize or \
             SamSteps::minimize, or in Burn's Learner with SamConfig::init"
        );
    }
}

/// A module that has taken SAM's first step: the module at w + e(w), which keeps the one at w.
///
/// From [`SamConfig::first_step`]. Use it as the module that it is (`climbed.forward(..)`, `&climbed`
/// where a `&M` is asked for), take the gradients of its loss, and give them to
/// [`second_step`](Self::second_step), which returns the module at w, updated.
///
/// It is no [`Module`] itself, so that no optimizer can update w + e(w) in w's place.
///
/// # Gradient accumulation
///
/// Each micro-batch climbs on its own, and [`step_back`](Self::step_back) returns to w between them:
///
/// ```
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::optim::SgdConfig;
/// # use burn::tensor::{Device, Tensor};
/// # use burn_sam::SamConfig;
/// use burn::optim::GradientsAccumulator;
///
/// # let device = Device::flex().autodiff();
/// # let mut model = LinearConfig::new(2, 1).init(&device);
/// # let micro_batches = [Tensor::<2>::ones([4, 2], &device), Tensor::<2>::zeros([4, 2], &device)];
/// # let loss = |model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).square().mean();
/// # let (sam, mut optim) = (SamConfig::new(), SgdConfig::new().init());
/// let mut accumulator = GradientsAccumulator::new();
/// for batch in &micro_batches {
///     let grads = loss(&model, batch).backward();
///     let climbed = sam.first_step(model, grads);
///     let grads = loss(&climbed, batch).backward();
///     let grads = climbed.second_gradients(grads);
///     model = climbed.step_back(); // at w
///     accumulator.accumulate(&model, grads);
/// }
/// model = optim.step(0.1, model, accumulator.grads());
/// ```
#[derive(Debug)]
#[must_use = "take the gradients of its loss, then call second_step, which returns the module"]
pub struct Climbed<M> {
    sam: SamConfig,
    at_w: M,
    survey: Survey,
    /// Of the gradients there.
    first: AtW,
    climbed: M,
    climbs: usize,
    unfinished: Unfinished,
}

/// Whether neither a second step nor a step back has been taken; if it is dropped like that, something may
/// have been trained without SAM, or not at all, and the log says so.
#[derive(Debug)]
struct Unfinished(bool);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.0 && !std::thread::panicking() {
            log::warn!(
                "a climbed module was dropped without Climbed::second_step: if an optimizer has stepped all \
                 the same, its gradients were not those that SAM descends along. If you only looked at it, \
                 end with Climbed::step_back"
            );
        }
    }
}

impl<M: Module> Clone for Climbed<M> {
    fn clone(&self) -> Self {
        Self {
            sam: self.sam.clone(),
            at_w: self.at_w.clone(),
            survey: self.survey.clone(),
            first: self.first.clone(),
            climbed: self.climbed.clone(),
            climbs: self.climbs,
            // The one that it was cloned from says it.
            unfinished: Unfinished(false),
        }
    }
}

/// The module at w + e(w).
impl<M> Deref for Climbed<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.climbed
    }
}

impl<M: Module> Climbed<M> {
    /// One more ascent, from where this one stands and by another radius of rho, along the gradients of a
    /// loss of this climbed module's output.
    ///
    /// For a configuration with more than one [ascent](SamConfig::with_ascents).
    ///
    /// # Panics
    ///
    /// If all ascents have been taken, or as [`second_step`](Self::second_step).
    pub fn climb_on(self, grads: Gradients) -> Self {
        let ascents = self.sam.ascents();
        assert!(
            self.climbs < ascents,
            "Climbed::climb_on would be ascent {} of {ascents}: take the second step, or ask for more with \
             SamConfig::with_ascents",
            self.climbs + 1
        );
        let grads = gradients_of(&self.climbed, grads, Pass::Between);
        let method = self.sam.method();
        let survey = Survey::of(method, &self.climbed);
        // With statistics that the passes before have not counted.
        let from = with_own_statistics(&self.climbed, &survey);
        let direction = Direction::Gradient(grads);
        Self {
            climbed: climb(
                method,
                &survey,
                &Memory::default().factor(method),
                from,
                direction,
            )
            .module,
            climbs: self.climbs + 1,
            ..self
        }
    }

    /// SAM's second step: the optimizer's update of w, with the gradients taken at w + e(w). Where these are not
    /// finite, although those at w were, with those at w: see [`Descent`](crate::Descent).
    ///
    /// # Arguments
    ///
    /// * `optim` - the module's optimizer: any of Burn's, as its configuration's `init` gives it. Its
    ///   gradient clipping is of these gradients; its groups, state and records are as without SAM.
    /// * `lr` - the learning rate.
    /// * `grads` - the gradients of a loss of this climbed module's output.
    ///
    /// # Panics
    ///
    /// If parameters of the module require gradients, but none of the climbed ones has one in `grads`:
    /// the loss was another module's, perhaps that at w. Or if the configuration asks for more
    /// [ascents](SamConfig::with_ascents) than were taken.
    pub fn second_step(
        self,
        optim: &mut ModuleOptimizer,
        lr: impl Into<ModuleLearningRate>,
        grads: Gradients,
    ) -> M {
        let grads = gradients_of(&self.climbed, grads, Pass::Climbed);
        let (module, grads) = self.descend(grads, true);
        optim.step(lr, module, grads)
    }

    /// The gradients to descend along, of a loss's gradients at w + e(w), by parameter: to be accumulated,
    /// unscaled or changed otherwise before an optimizer applies them to the module that
    /// [`step_back`](Self::step_back) returns. They are those at w + e(w), or what the [`Descent`](crate::Descent) makes of
    /// them; what is not finite in them is handed on.
    ///
    /// # Panics
    ///
    /// As [`second_step`](Self::second_step).
    pub fn second_gradients(&self, grads: Gradients) -> GradientsParams {
        let grads = gradients_of(&self.climbed, grads, Pass::Climbed);
        self.clone().descend(grads, false).1
    }

    /// The gradients to descend along, of gradients at w + e(w) that are already sorted by parameter: the
    /// counterpart of [`SamConfig::climb`], for those of a `TrainStep` or a sum over several losses. Add the
    /// losses up first: what a [`Descent`](crate::Descent) makes of gradients is not the sum of what it makes of parts.
    ///
    /// # Panics
    ///
    /// If there are gradients, but none of a parameter of the module; or if the configuration asks for more
    /// [ascents](SamConfig::with_ascents) than were taken.
    pub fn descent(&self, grads: GradientsParams) -> GradientsParams {
        let grads = take(&self.climbed, grads);
        self.clone().descend(grads, false).1
    }

    /// The module at w, and what to descend along.
    fn descend(mut self, grads: Vector, is_rescued: bool) -> (M, GradientsParams) {
        let ascents = self.sam.ascents();
        assert!(
            self.climbs == ascents,
            "SAM's second step came after {} of {ascents} ascents: take the others with Climbed::climb_on, \
             or all of them with SamConfig::optimize",
            self.climbs
        );
        self.unfinished.0 = false;
        let climbed = is_rescued.then_some(self.climbed);
        let (grads, _) = descend(self.sam.method(), &self.survey, self.first, climbed, grads);
        let grads = register(&self.at_w, grads);
        (self.at_w, grads)
    }

    /// The module at w, bit for bit as it was before the first step.
    pub fn step_back(mut self) -> M {
        self.unfinished.0 = false;
        self.at_w
    }
}
