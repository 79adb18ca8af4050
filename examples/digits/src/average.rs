//! A running mean of a network's weights, tested in their place.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};

use crate::data::DigitBatch;
use crate::model::Network;

/// A network that is trained, and the running mean of its weights (EMA): average <- decay average + (1 - decay) weights,
/// after each step. In the first steps the decay is less, as TensorFlow's `ExponentialMovingAverage` has it: (1 + step) /
/// (10 + step) at most.
///
/// The network's running statistics of batch normalization are the average's too.
#[derive(Module, Debug)]
pub struct Averaged<M: Module> {
    network: M,
    average: M,
    decay: f64,
    steps: usize,
}

impl<M: Network> Averaged<M> {
    /// Before the first step.
    pub fn new(network: M, decay: f64) -> Self {
        Self {
            average: network.clone().map(&mut Apart).no_grad(),
            network,
            decay,
            steps: 0,
        }
    }

    /// What is to be used.
    pub fn into_average(self) -> M {
        self.average
    }

    fn averaged(mut self) -> Self {
        self.steps += 1;
        let steps = self.steps as f64;
        let mut weights = Weights(Vec::new());
        self.network.visit(&mut weights);
        let mut towards = Towards {
            weights: weights.0.into_iter(),
            decay: self.decay.min((1.0 + steps) / (10.0 + steps)),
        };
        self.average = self.average.map(&mut towards);
        self
    }
}

/// A clone's parameters are its origin's, until they have ids of their own.
struct Apart;

impl ModuleMapper for Apart {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::initialized(ParamId::new(), Tensor::from_inner(param.val().inner()))
    }
}

/// Each parameter, flat, without autodiff.
struct Weights(Vec<Tensor<1>>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().inner().flatten(0, D - 1));
    }
}

struct Towards {
    weights: std::vec::IntoIter<Tensor<1>>,
    decay: f64,
}

impl ModuleMapper for Towards {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let weights = self.weights.next().expect("as many as the network has");
        param.map(|average| {
            let weights = weights.reshape(average.dims());
            Tensor::from_inner(average.inner() * self.decay + weights * (1.0 - self.decay))
        })
    }
}

impl<M: Network> TrainStep for Averaged<M> {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> TrainOutput<ClassificationOutput> {
        TrainStep::step(&self.network, batch)
    }

    fn optimize(
        mut self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.network = self.network.optimize(optim, lr, grads);
        self.averaged()
    }
}

impl<M: Network> InferenceStep for Averaged<M> {
    type Input = DigitBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: DigitBatch) -> ClassificationOutput {
        InferenceStep::step(&self.average, batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{digits, split};
    use crate::model::{ConvNet, Mlp, seeded};
    use crate::recipe::{Base, Recipe};
    use crate::training::Setting;
    use burn::tensor::Device;
    use burn_sam::SamConfig;
    use indicatif::ProgressBar;

    struct Plus(f64);

    impl ModuleMapper for Plus {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|weights| weights + self.0)
        }
    }

    #[test]
    fn the_mean_is_worked_out_by_hand() {
        let network = seeded(Mlp::new, 0, &Device::flex().autodiff());
        let mut averaged = Averaged::new(network.clone(), 0.25);
        for _ in 0..2 {
            averaged.network = averaged.network.map(&mut Plus(1.0));
            averaged = averaged.averaged();
        }
        // The decay is 2 / 11, then 0.25, which is less than 3 / 12 is not.
        let expected = 0.25 * (9.0 / 11.0) + 0.75 * 2.0;
        let weights = |network: Mlp| {
            let mut weights = Weights(Vec::new());
            network.visit(&mut weights);
            weights.0
        };
        let means = weights(averaged.into_average());
        assert_eq!(means.len(), 6);
        for (mean, first) in means.into_iter().zip(weights(network)) {
            let moved = (mean - first - expected).abs().max().into_scalar::<f32>();
            assert!(moved < 1e-5, "{moved}");
        }
    }

    #[test]
    fn what_is_averaged_is_trained_as_without() {
        let device = Device::flex().autodiff();
        let split = split(digits().unwrap(), 0.4, 0);
        for sam in [None, Some(SamConfig::auto()), Some(SamConfig::new())] {
            // A mean of the last step's weights alone.
            let [plain, averaged] = [None, Some(0.0)].map(|average| {
                let setting = Setting {
                    seed: 0,
                    recipe: Recipe {
                        average,
                        ..Recipe::new(Base::Sgd, 2)
                    },
                    device: device.clone(),
                    split: &split,
                    bar: &ProgressBar::hidden(),
                };
                let network = seeded(ConvNet::new, 0, &device);
                setting.train(network, sam.as_ref()).unwrap()
            });
            assert_eq!(plain.accuracies, averaged.accuracies);
        }
    }
}
