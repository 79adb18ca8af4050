//! Bounds that every fitting type satisfies, and whose only purpose is what the compiler says of one that
//! does not fit.

#[cfg(feature = "train")]
use burn::module::Module;
use burn::optim::Optimizer;
#[cfg(feature = "train")]
use burn::train::TrainStep;

/// What [`SamConfig::optimizer`](crate::SamConfig::optimizer) wraps: any [`Optimizer`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an optimizer's rule, which `SamConfig::optimizer` wraps",
    label = "not an `Optimizer`",
    note = "a configuration's rule is what `build` gives: `sam.optimizer(AdamConfig::new().build())`",
    note = "a `ModuleOptimizer`, which `init` gives, needs no `SamOptimizer`: hand it to `Climbed::second_step` or `SamConfig::optimize`, or in Burn's Learner wrap the model with `SamConfig::init`"
)]
pub trait OptimizerRule: Optimizer {}

#[diagnostic::do_not_recommend]
impl<O: Optimizer> OptimizerRule for O {}

/// What [`SamConfig::init`](crate::SamConfig::init) wraps: any [`Module`] that is a [`TrainStep`].
#[cfg(feature = "train")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a model that `SamConfig::init` can wrap",
    label = "not a `Module` with a `TrainStep`",
    note = "give it the model by value, `init(model)`, not `init(&model)`",
    note = "a model of Burn's Learner has `#[derive(Module)]` and implements `TrainStep`; for a loop of your own, use `SamConfig::first_step`"
)]
pub trait LearnerModule: TrainStep + Module {}

#[cfg(feature = "train")]
#[diagnostic::do_not_recommend]
impl<M: TrainStep + Module> LearnerModule for M {}

/// The input of a training step that SAM takes twice: any type that is [`Clone`].
#[cfg(feature = "train")]
#[diagnostic::on_unimplemented(
    message = "SAM takes two passes over each batch, but `{Self}` is not `Clone`",
    label = "its `TrainStep::Input` is not `Clone`",
    note = "put `#[derive(Clone)]` on `{Self}`: cloning a tensor copies no data"
)]
pub trait Batch: Clone {}

#[cfg(feature = "train")]
#[diagnostic::do_not_recommend]
impl<T: Clone> Batch for T {}

/// No type: what `SamConfig::init` asks for where the feature `train` is off.
#[cfg(not(feature = "train"))]
#[diagnostic::on_unimplemented(
    message = "`SamConfig::init` and `init_on_part` need burn-sam's feature `train`",
    label = "burn-sam was built without `train`",
    note = "in Cargo.toml: burn-sam = {{ version = \"..\", features = [\"train\"] }}"
)]
pub trait NeedsFeatureTrain {}

/// What the feature `train` has, for those who have not turned it on yet: it says so.
#[cfg(not(feature = "train"))]
impl crate::SamConfig {
    #[doc(hidden)]
    pub fn init<M: NeedsFeatureTrain>(&self, _model: M) -> ! {
        unreachable!("no type satisfies the bound")
    }

    #[doc(hidden)]
    pub fn init_on_part<M: NeedsFeatureTrain, F>(&self, _model: M, _take: F) -> ! {
        unreachable!("no type satisfies the bound")
    }
}
