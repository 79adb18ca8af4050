use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Gradients, Tensor};

use crate::SamConfig;
use crate::climbed::Climbed;
use crate::diagnostics::OptimizerRule;

impl SamConfig {
    /// Wraps a base optimizer's rule in one that refuses to train without SAM.
    ///
    /// A loop of your own does not need it: [`first_step`](Self::first_step) works with any optimizer.
    /// See [`SamOptimizer`] for what it is good for, and for gradient clipping, which is no part of a
    /// rule.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::optim::{AdamConfig, ModuleOptimizer};
    /// use burn_sam::SamConfig;
    ///
    /// let sam = SamConfig::new().optimizer(AdamConfig::new().build());
    /// let optim = ModuleOptimizer::from(sam.clone());
    /// ```
    pub fn optimizer<O: OptimizerRule>(&self, base: O) -> SamOptimizer<O> {
        SamOptimizer::new(self.clone(), base)
    }
}

/// A base optimizer that refuses to train without SAM.
///
/// SAM needs no optimizer of its own: [`SamConfig::first_step`] works with any. This one is for
/// programs in which an optimizer goes through many hands, and a training that silently takes no
/// first steps must not happen: it panics.
///
/// It comes from [`SamConfig::optimizer`]. As an [`Optimizer`] it is the base optimizer, so its state
/// and its records are the base optimizer's: a run can go from plain training to SAM and back. Clones
/// belong together: one takes the first steps, another becomes the [`ModuleOptimizer`].
///
/// It wraps a bare rule, which a configuration's `build` gives. That has no gradient clipping, which
/// Burn keeps in the [`ModuleOptimizer`]: set it there, with
/// [`with_grad_clipping`](ModuleOptimizer::with_grad_clipping).
///
/// # Example
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::{ModuleOptimizer, SgdConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_sam::SamConfig;
///
/// let device = Device::flex().autodiff();
/// let mut model = LinearConfig::new(2, 1).init(&device);
/// let inputs = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, -1.0]], &device);
/// let loss = |model: &Linear| model.forward(inputs.clone()).square().mean();
///
/// let sam = SamConfig::new().with_rho(0.05).optimizer(SgdConfig::new().build());
/// let mut optim = ModuleOptimizer::from(sam.clone());
/// for _ in 0..3 {
///     let grads = loss(&model).backward();
///     let climbed = sam.first_step(model, grads);
///     let grads = loss(&climbed).backward();
///     model = climbed.second_step(&mut optim, 0.01, grads);
/// }
/// ```
///
/// # Panics
///
/// [`step`](Optimizer::step) panics if no clone of this optimizer has taken a first step yet.
#[derive(Clone, Debug)]
pub struct SamOptimizer<O> {
    sam: SamConfig,
    base: O,
    climbed: Arc<AtomicBool>,
}

impl<O: Optimizer> SamOptimizer<O> {
    pub(crate) fn new(sam: SamConfig, base: O) -> Self {
        Self {
            sam,
            base,
            climbed: Arc::new(AtomicBool::new(false)),
        }
    }

    /// As [`SamConfig::first_step`].
    pub fn first_step<M: Module>(&self, module: M, grads: Gradients) -> Climbed<M> {
        self.climbing().first_step(module, grads)
    }

    /// As [`SamConfig::climb`].
    pub fn climb<M: Module>(&self, module: M, grads: GradientsParams) -> Climbed<M> {
        self.climbing().climb(module, grads)
    }

    /// As [`SamConfig::optimize`], with an `optim` made from a clone of `self`.
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
        self.climbing().optimize(optim, lr, module, pass)
    }

    fn climbing(&self) -> &SamConfig {
        self.climbed.store(true, Ordering::Relaxed);
        &self.sam
    }
}

/// The base optimizer's update.
impl<O: Optimizer> Optimizer for SamOptimizer<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        assert!(
            self.climbed.load(Ordering::Relaxed),
            "SamOptimizer was stepped before any first step, which would train without SAM. \
             In Burn's Learner, wrap the model with SamConfig::init(model) and hand the Learner the \
             base optimizer itself; in a loop of your own, call SamOptimizer::first_step (or \
             SamOptimizer::optimize) on a clone of this optimizer before each step"
        );
        self.base.step(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}
