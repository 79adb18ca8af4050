use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};

use crate::SamConfig;
use crate::step::{climb, with_own_statistics};

/// Sharpness-aware minimization around a base optimizer, for a training loop of your own.
///
/// It comes from [`SamConfig::optimizer`]. Each step of SAM takes two gradients:
/// [`first_step`](Self::first_step) climbs from the weights w to w + e(w) along the first one, and
/// the base optimizer applies the second one, taken there, to w. [`optimize`](Self::optimize) does
/// it all in one call.
///
/// As an [`Optimizer`] it is the second step, so its state and its records are the base
/// optimizer's: a run can go from plain training to SAM and back. Clones belong together: one
/// takes the first steps, another becomes the [`ModuleOptimizer`].
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig, loss::MseLoss, loss::Reduction};
/// use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_sam::SamConfig;
///
/// let device = Device::flex().autodiff();
/// let mut model = LinearConfig::new(2, 1).init(&device);
/// let inputs = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, -1.0]], &device);
/// let targets = Tensor::<2>::from_floats([[1.0], [0.0]], &device);
/// let gradients = |model: &Linear| {
///     let output = model.forward(inputs.clone());
///     let loss = MseLoss::new().forward(output, targets.clone(), Reduction::Mean);
///     GradientsParams::from_grads(loss.backward(), model)
/// };
///
/// let sam = SamConfig::new().with_rho(0.05).optimizer(SgdConfig::new().build());
/// let mut optim = ModuleOptimizer::from(sam.clone());
/// for _ in 0..3 {
///     let grads = gradients(&model);               // at w
///     let climbed = sam.first_step(&model, grads); // w + e(w)
///     let grads = gradients(&climbed);             // at w + e(w)
///     model = optim.step(0.01, model, grads);      // the base update, on w
/// }
/// ```
///
/// # Panics
///
/// [`step`](Optimizer::step) panics if no clone of this optimizer has taken a first step yet:
/// the training would silently be one without SAM.
///
/// # References
///
/// Algorithm 1 of [Sharpness-Aware Minimization](https://arxiv.org/abs/2010.01412).
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

    /// SAM's first step: the module at w + e(w), given the module at w and its gradients there.
    ///
    /// `module` keeps its weights, bit for bit. The climbed module has the same parameter ids, so
    /// its gradients can be applied to `module`; it has running statistics (batch normalization's)
    /// of its own, so that the second pass does not count the batch again.
    ///
    /// Parameters without a gradient are not perturbed. If all gradients are zero, or their norm is
    /// not finite, nothing is; that is decided on the device, and nothing is read back.
    ///
    /// The gradients may come from any batch, or from part of one.
    ///
    /// # Panics
    ///
    /// If there are gradients, but none of a parameter of `module`.
    pub fn first_step<M: Module>(&self, module: &M, grads: GradientsParams) -> M {
        let climbed = climb(&self.sam, with_own_statistics(module), grads);
        self.climbed.store(true, Ordering::Relaxed);
        climbed
    }

    /// One whole step of SAM: both passes and the update.
    ///
    /// `pass` is called twice, with the module at w and with the module at w + e(w). It returns the
    /// gradients there and whatever else you want to know of the pass (the loss, the output); of
    /// the first pass that is handed back, as the tensor that it may be: no value is read back from
    /// the device.
    ///
    /// # Arguments
    ///
    /// * `optim` - the module's optimizer, made from a clone of `self`.
    /// * `lr` - the learning rate.
    /// * `module` - the module at w.
    /// * `pass` - a forward and a backward pass over the batch.
    ///
    /// # Panics
    ///
    /// If the first pass returns gradients, but none of a parameter of `module`, or if the
    /// configuration's [ascent fraction](SamConfig::with_ascent_fraction) is not 1: `pass` takes the
    /// whole batch both times.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::nn::{Linear, LinearConfig};
    /// use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
    /// use burn::tensor::{Device, Tensor};
    /// use burn_sam::SamConfig;
    ///
    /// let device = Device::flex().autodiff();
    /// let model = LinearConfig::new(2, 1).init(&device);
    /// let inputs = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
    ///
    /// let sam = SamConfig::new().optimizer(AdamConfig::new().build());
    /// let mut optim = ModuleOptimizer::from(sam.clone());
    /// let (model, loss) = sam.optimize(&mut optim, 0.01, model, |model: &Linear| {
    ///     let loss = model.forward(inputs.clone()).square().mean();
    ///     (loss.clone(), GradientsParams::from_grads(loss.backward(), model))
    /// });
    /// ```
    pub fn optimize<M, T, F>(
        &self,
        optim: &mut ModuleOptimizer,
        lr: impl Into<ModuleLearningRate>,
        module: M,
        mut pass: F,
    ) -> (M, T)
    where
        M: Module,
        F: FnMut(&M) -> (T, GradientsParams),
    {
        assert!(
            self.sam.ascent_part().is_whole(),
            "SamOptimizer::optimize takes both gradients on the whole batch, but the configuration's \
             ascent_fraction is below 1: call SamOptimizer::first_step with gradients taken on \
             SamConfig::ascent_part of the batch, then step with those of the whole batch"
        );
        let (first, grads) = pass(&module);
        let climbed = self.first_step(&module, grads);
        let (_, grads) = pass(&climbed);
        (optim.step(lr, module, grads), first)
    }
}

/// SAM's second step: the base optimizer's update of w, with the gradient taken at w + e(w).
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
