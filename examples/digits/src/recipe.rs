//! How networks are trained that are to be compared.

use anyhow::Context;
use burn::lr_scheduler::composed::ComposedLrSchedulerConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, ModuleOptimizer, SgdConfig};

/// All that a method does not decide.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// The optimizer.
    pub base: Base,
    /// The highest one.
    pub learning_rate: f64,
    /// What becomes of it.
    pub schedule: Schedule,
    /// As Burn's optimizers have it: part of SGD's gradient, beside AdamW's. If not given, the optimizer's default.
    pub weight_decay: Option<f32>,
    /// Label smoothing, from 0 to below 1.
    pub smoothing: f32,
    /// The alpha of mixup (Zhang et al., [1710.09412](https://arxiv.org/abs/1710.09412), section 2), if images are mixed.
    pub mixup: Option<f64>,
    /// The decay of a running mean of the weights, if that is what is tested in their place.
    pub average: Option<f64>,
}

impl Recipe {
    /// Batches of 64, the optimizer's usual learning rate, and nothing against wrong labels.
    pub fn new(base: Base, epochs: usize) -> Self {
        Self {
            epochs,
            batch_size: 64,
            base,
            learning_rate: base.learning_rate(),
            schedule: Schedule::Constant,
            weight_decay: None,
            smoothing: 0.0,
            mixup: None,
            average: None,
        }
    }

    /// The optimizer, with its settings here.
    pub fn optimizer(&self) -> ModuleOptimizer {
        match self.base {
            Base::Sgd => {
                let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
                SgdConfig::new()
                    .with_momentum(Some(momentum))
                    .with_weight_decay(self.weight_decay.map(WeightDecayConfig::new))
                    .init()
            }
            Base::Adamw => {
                let config = AdamWConfig::new();
                match self.weight_decay {
                    Some(decay) => config.with_weight_decay(decay).init(),
                    None => config.init(),
                }
            }
        }
    }

    /// The steps of a training on so many images.
    pub fn steps(&self, images: usize) -> usize {
        self.epochs * images.div_ceil(self.batch_size)
    }

    /// The learning rate of each step of a training on so many images.
    ///
    /// # Errors
    ///
    /// If it is out of range.
    pub fn schedule(&self, images: usize) -> anyhow::Result<ModuleLrScheduler> {
        let (lr, steps) = (self.learning_rate, self.steps(images));
        let cosine = CosineAnnealingLrSchedulerConfig::new(lr, steps);
        let schedule = match self.schedule {
            Schedule::Constant => return Ok(lr.into()),
            Schedule::Cosine => cosine.init(),
            Schedule::Warmup => {
                let first = steps.div_ceil(10);
                let up = LinearLrSchedulerConfig::new(1.0 / first as f64, 1.0, first);
                let both = ComposedLrSchedulerConfig::new().linear(up).cosine(cosine);
                both.init()
            }
        };
        schedule
            .map_err(anyhow::Error::msg)
            .context("the learning rate")
    }
}

/// What becomes of a learning rate.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays
    Constant,
    /// Down to 0 by a cosine
    Cosine,
    /// The same, after a linear rise over the first tenth of the steps
    Warmup,
}

impl Schedule {
    /// For readers, after a comma.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant rate",
            Self::Cosine => "cosine",
            Self::Warmup => "warm-up and cosine",
        }
    }
}

/// The optimizer that SAM is put around.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// With a momentum of 0.9
    Sgd,
    /// With its defaults
    Adamw,
}

impl Base {
    /// For readers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "SGD",
            Self::Adamw => "AdamW",
        }
    }

    fn learning_rate(self) -> f64 {
        match self {
            Self::Sgd => 0.1,
            Self::Adamw => 0.003,
        }
    }
}

/// What the programs that compare methods may be told of it.
#[derive(clap::Args)]
pub struct RecipeOptions {
    /// Number of passes over the training images; 60 for the perceptron, 20 for the convolutional network and 40 for
    /// the transformer, if not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// What becomes of the learning rate; it stays, if not given, but for the transformer, whose rate rises over the first
    /// tenth of the steps and then falls by a cosine
    #[arg(long, value_enum)]
    pub schedule: Option<Schedule>,
    /// Label smoothing, 0 to below 1
    #[arg(long, default_value = "0", allow_negative_numbers = true, value_parser = smoothing)]
    pub smoothing: f32,
}

/// A [smoothing](Recipe::smoothing), as an option has it.
///
/// # Errors
///
/// If it is not from 0 to below 1.
pub fn smoothing(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| format!("{text} is no number"))?;
    match (0.0..1.0).contains(&value) {
        true => Ok(value),
        false => Err(format!("{value} is not from 0 to below 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;

    #[test]
    fn rates_rise_and_fall() {
        let rates = |schedule| {
            let recipe = Recipe {
                schedule,
                ..Recipe::new(Base::Sgd, 2)
            };
            // 2 x 10 steps.
            let mut schedule = recipe.schedule(640).unwrap();
            let rate = |_| {
                let rate: ModuleLearningRate = schedule.step();
                rate.base()
            };
            (0..20).map(rate).collect::<Vec<_>>()
        };
        assert!(rates(Schedule::Constant).iter().all(|rate| *rate == 0.1));
        let cosine = rates(Schedule::Cosine);
        assert_eq!(cosine[0], 0.1);
        assert!(cosine.is_sorted_by(|a, b| a > b) && cosine[19] < 0.002);
        let warmup = rates(Schedule::Warmup);
        assert!(
            warmup[0] < 0.06 && warmup[2] > 0.09 && warmup[19] < 0.002,
            "{warmup:?}"
        );
    }
}
