use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Gradients, Tensor};

use crate::SamConfig;
use crate::part::AscentPart;
use crate::step::{Memory, Pass, Passes, Survey, Taken, Want, gradients_of, passes};
use burn_sam_kernels::Vector;

impl SamConfig {
    /// SAM's steps in a loop of your own, for a method that keeps something from one step to the next:
    /// MSAM, LookSAM, F-SAM, or any that does not climb at every step. It works for all others too.
    ///
    /// They are for one model: two networks that are trained in turns, or the next fold of a cross-validation, take
    /// steps of their own.
    ///
    /// # Panics
    ///
    /// If a setting has no effect.
    pub fn steps<M: Module>(&self, module: &M) -> SamSteps {
        SamSteps::new(self.clone(), module)
    }
}

/// SAM's steps in a loop of your own, with what a method keeps from one step to the next: MSAM's climb along
/// the last update, LookSAM's direction, F-SAM's average, or the count of steps.
///
/// It comes from [`SamConfig::steps`]. Methods that keep nothing do without it, with
/// [`SamConfig::first_step`] or [`SamConfig::optimize`], but it works for all.
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
///
/// let mut steps = SamConfig::msam().with_rho(0.1).steps(&model);
/// let mut optim = SgdConfig::new().init();
/// for _ in 0..3 {
///     (model, _) = steps.optimize(&mut optim, 0.1, model, |model: &Linear| {
///         let loss = model.forward(inputs.clone()).square().mean();
///         let grads = loss.backward();
///         (loss, grads)
///     });
/// }
/// ```
#[derive(Clone, Debug)]
pub struct SamSteps {
    sam: SamConfig,
    memory: Memory,
}

impl SamSteps {
    pub(crate) fn new<M: Module>(sam: SamConfig, module: &M) -> Self {
        sam.refuse_idle();
        let memory = Memory::new(sam.method(), module);
        Self { sam, memory }
    }

    /// For a method that keeps nothing.
    pub(crate) fn without_memory(sam: SamConfig) -> Self {
        let memory = Memory::default();
        Self { sam, memory }
    }

    /// One step: its passes and the update.
    ///
    /// As [`SamConfig::optimize`], but that `pass` is called once or more, as the method has it. What it
    /// returned at w and at w + e(w) is handed back.
    ///
    /// # Panics
    ///
    /// As [`SamConfig::optimize`].
    pub fn optimize<M, T, F>(
        &mut self,
        optim: &mut ModuleOptimizer,
        lr: impl Into<ModuleLearningRate>,
        module: M,
        mut pass: F,
    ) -> (M, Passes<T>)
    where
        M: Module,
        F: FnMut(&M) -> (T, Gradients),
    {
        assert!(
            !self.sam.method().needs().losses,
            "radius rule sets rho from the losses of a step, which SamSteps::optimize does not know: call \
             SamSteps::minimize, which is given the loss"
        );
        self.refuse_part();
        let no_losses = |_: &T| None;
        self.take(optim, lr.into(), module, no_losses, |module, _, at| {
            let (value, grads) = pass(module);
            (value, gradients_of(module, grads, at))
        })
    }

    /// One step, given the loss: its passes, backward too, and the update.
    ///
    /// This is what a [radius](crate::Radius::Rule) that sets itself needs; every other method takes it as well.
    ///
    /// # Arguments
    ///
    /// * `optim` - as for [`optimize`](Self::optimize).
    /// * `lr` - the learning rate.
    /// * `module` - the module at w.
    /// * `loss` - the loss of the batch, of shape `[1]`, with the module that it is given: called once or more, as
    ///   the method has it. It may return something else beside the loss, `(loss, output)`, which is handed back for
    ///   both passes. State that goes on from batch to batch (a recurrent network's) is to be the pass at w's, or the
    ///   only pass's: a variable that the closure itself writes holds that of the climbed pass, or goes on twice.
    ///
    /// # Panics
    ///
    /// As [`optimize`](Self::optimize).
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
    ///
    /// let mut steps = SamConfig::auto().steps(&model);
    /// let mut optim = SgdConfig::new().init();
    /// for _ in 0..3 {
    ///     let (updated, losses) = steps.minimize(&mut optim, 0.1, model, |model: &Linear| {
    ///         model.forward(inputs.clone()).square().mean()
    ///     });
    ///     model = updated;
    ///     // A step of one pass has the loss at w or at w + e(w).
    ///     assert!(losses.at_w.or(losses.climbed).is_some());
    /// }
    /// let rho: f64 = steps.rho().into_scalar();
    /// # assert!(rho > 0.0 && rho != 0.05);
    ///
    /// // With the output beside the loss, of the pass at w if there is one.
    /// let (_, passes) = steps.minimize(&mut optim, 0.1, model, |model: &Linear| {
    ///     let output = model.forward(inputs.clone());
    ///     (output.clone().square().mean(), output.detach())
    /// });
    /// let (_loss, output) = passes.at_w.or(passes.climbed).unwrap();
    /// assert_eq!(output.dims(), [2, 1]);
    /// ```
    pub fn minimize<M, L, F>(
        &mut self,
        optim: &mut ModuleOptimizer,
        lr: impl Into<ModuleLearningRate>,
        module: M,
        mut loss: F,
    ) -> (M, Passes<L>)
    where
        M: Module,
        F: FnMut(&M) -> L,
        L: Loss,
    {
        self.refuse_part();
        self.minimize_on_part(optim, lr, module, |module, _| loss(module))
    }

    /// As [`minimize`](Self::minimize), for a configuration with an
    /// [ascent fraction](SamConfig::with_ascent_fraction): `loss` is told which part of the batch to take, which is
    /// all of it for the second pass.
    ///
    /// Running statistics are updated by the second pass, which sees the whole batch.
    ///
    /// # Panics
    ///
    /// As [`minimize`](Self::minimize), but for the fraction.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::SgdConfig;
    /// # use burn::tensor::{Device, Tensor};
    /// # use burn_sam::SamConfig;
    /// # let device = Device::flex().autodiff();
    /// # let model = LinearConfig::new(2, 1).init(&device);
    /// # let inputs = Tensor::<2>::ones([16, 2], &device);
    /// # let mut optim = SgdConfig::new().init();
    /// let mut steps = SamConfig::auto_two_pass().with_ascent_fraction(0.125).steps(&model);
    /// let (model, losses) = steps.minimize_on_part(&mut optim, 0.1, model, |model: &Linear, part| {
    ///     model.forward(part.of(&inputs)).square().mean()
    /// });
    /// ```
    pub fn minimize_on_part<M, L, F>(
        &mut self,
        optim: &mut ModuleOptimizer,
        lr: impl Into<ModuleLearningRate>,
        module: M,
        mut loss: F,
    ) -> (M, Passes<L>)
    where
        M: Module,
        F: FnMut(&M, AscentPart) -> L,
        L: Loss,
    {
        let its_own = |loss: &L| Some(loss.value().clone());
        self.take(optim, lr.into(), module, its_own, |module, part, at| {
            let loss = loss(module, part);
            let grads = gradients_of(module, loss.value().backward(), at);
            (loss.without_graph(), grads)
        })
    }

    fn refuse_part(&self) {
        assert!(
            self.sam.ascent_part().is_whole(),
            "SamConfig::optimize, SamSteps::optimize and SamSteps::minimize take all gradients on the whole \
             batch, but the ascent_fraction is below 1: call SamSteps::minimize_on_part, which tells the loss what \
             part to take; or SamConfig::first_step with gradients taken on SamConfig::ascent_part of the batch, \
             then Climbed::second_step with those of the whole batch"
        );
    }

    fn take<M: Module, T>(
        &mut self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        module: M,
        loss: impl Fn(&T) -> Option<Tensor<1>>,
        mut pass: impl FnMut(&M, AscentPart, Pass) -> (T, Vector),
    ) -> (M, Passes<T>) {
        let part = self.sam.ascent_part();
        // The pass that sees the whole batch.
        let counted = if part.is_whole() {
            Pass::AtW
        } else {
            Pass::Climbed
        };
        let method = self.sam.method();
        self.memory = core::mem::take(&mut self.memory).caught_up(method, &module);
        let want = Want {
            counted,
            rise: false,
        };
        let survey = Survey::of(method, &module);
        let lent = self.memory.lend(method, &survey);
        let at_w = (&module, survey, lent);
        let mut taken = passes(method, &self.memory, at_w, want, |module, at| {
            let part = match at {
                Pass::AtW | Pass::Between => part,
                Pass::Plain | Pass::Climbed => AscentPart::new(1.0),
            };
            pass(&module, part, at)
        });
        if let Some(seen) = taken.seen(loss) {
            self.memory.report_seen(method, &mut taken.grads, seen);
        }
        let Taken {
            passes: values,
            grads,
            ..
        } = taken;
        let memory = core::mem::take(&mut self.memory);
        let (module, memory) = memory.update(method, &lr, module, grads, |module, grads| {
            optim.step(lr.clone(), module, grads)
        });
        self.memory = memory;
        (module, values)
    }

    /// The radius rho of the next step, of shape `[1]`, of every parameter that no group matches. Nothing waits for
    /// it until it is read.
    pub fn rho(&self) -> Tensor<1> {
        self.memory.rho(self.sam.method())
    }

    /// The module with what is kept beside it, to be saved: a checkpoint of both.
    pub fn record<M: Module>(&self, module: M) -> ModuleRecord {
        self.memory.clone().record(module)
    }

    /// Loads a [`record`](Self::record) into a module and into these steps, which go on from there exactly.
    ///
    /// A record of the module alone, or of another method, is loaded too: what is missing starts anew, and
    /// what is left over is left out, with a word in the log.
    ///
    /// # Errors
    ///
    /// If the record is not one of such a module.
    pub fn try_load_record<M: Module>(
        &mut self,
        module: M,
        record: ModuleRecord,
    ) -> Result<M, RecordError> {
        let (module, memory) = self
            .memory
            .clone()
            .load(self.sam.method(), module, record)?;
        self.memory = memory;
        Ok(module)
    }
}

/// What the closure of [`SamSteps::minimize`] returns: the loss, of shape `[1]`, alone or with something else.
pub trait Loss: sealed::Loss {}

impl Loss for Tensor<1> {}
impl<T> Loss for (Tensor<1>, T) {}

mod sealed {
    use burn::tensor::Tensor;

    pub trait Loss {
        fn value(&self) -> &Tensor<1>;
        /// The loss without autodiff.
        fn without_graph(self) -> Self;
    }

    impl Loss for Tensor<1> {
        fn value(&self) -> &Tensor<1> {
            self
        }

        fn without_graph(self) -> Self {
            self.without_autodiff()
        }
    }

    impl<T> Loss for (Tensor<1>, T) {
        fn value(&self) -> &Tensor<1> {
            &self.0
        }

        fn without_graph(self) -> Self {
            (self.0.without_autodiff(), self.1)
        }
    }
}
