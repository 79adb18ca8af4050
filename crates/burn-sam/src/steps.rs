use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Gradients;

use crate::SamConfig;
use crate::step::{Memory, Pass, Passes, gradients_of, passes};

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
        let memory = Memory::new(&sam, module);
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
            self.sam.ascent_part().is_whole(),
            "SamConfig::optimize and SamSteps::optimize take all gradients on the whole batch, but the \
             ascent_fraction is below 1: call SamConfig::first_step with gradients taken on \
             SamConfig::ascent_part of the batch, then Climbed::second_step with those of the whole batch"
        );
        let (values, mut grads) =
            passes(&self.sam, &self.memory, &module, Pass::AtW, |module, at| {
                let (value, grads) = pass(&module);
                (value, gradients_of(&module, grads, at))
            });
        let lr = lr.into();
        let memory = core::mem::take(&mut self.memory);
        let reports = memory.collect(|id| grads.remove(id));
        let (module, memory) = memory.update(&self.sam, &lr, module, reports, |module| {
            optim.step(lr.clone(), module, grads)
        });
        self.memory = memory;
        (module, values)
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
        let (module, memory) = self.memory.clone().load(module, record)?;
        self.memory = memory;
        Ok(module)
    }
}
