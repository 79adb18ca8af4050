//! A training through Burn's Learner.

use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::Device;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::AccuracyMetric;
use burn::train::{Learner, SupervisedTraining};
use burn_sam::{SamConfig, SamModel};
use example_common::ProgressRenderer;
use indicatif::ProgressBar;

use crate::data::{Digit, DigitBatch, DigitBatcher, Split};
use crate::model::Network;

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
    pub(crate) fn init(self) -> ModuleOptimizer {
        match self {
            Self::Sgd => {
                let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
                SgdConfig::new().with_momentum(Some(momentum)).init()
            }
            Self::Adamw => AdamWConfig::new().init(),
        }
    }

    pub(crate) fn learning_rate(self) -> f64 {
        match self {
            Self::Sgd => 0.1,
            Self::Adamw => 0.003,
        }
    }
}

/// What trainings that are to be compared share: the images, the shuffles, the epochs.
pub struct Setting<'a> {
    /// Decides the shuffles.
    pub seed: u64,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// The optimizer.
    pub base: Base,
    /// With autodiff.
    pub device: Device,
    /// The images.
    pub split: &'a Split,
    /// Moves on by one after each epoch.
    pub bar: &'a ProgressBar,
}

/// What comes out of a training.
pub struct Trained<M> {
    /// After the last epoch, ready to be trained further.
    pub model: M,
    /// After each epoch, from 0 to 1.
    pub test_accuracies: Vec<f64>,
    /// The seconds that it took.
    pub seconds: f64,
}

impl<M> Trained<M> {
    /// After the last epoch, from 0 to 1.
    pub fn test_accuracy(&self) -> f64 {
        *self.test_accuracies.last().expect("at least one epoch")
    }

    /// The same with something else in the model's place.
    pub fn map<N>(self, f: impl FnOnce(M) -> N) -> Trained<N> {
        Trained {
            model: f(self.model),
            test_accuracies: self.test_accuracies,
            seconds: self.seconds,
        }
    }
}

impl Setting<'_> {
    /// Trains a network, under SAM or without.
    ///
    /// # Errors
    ///
    /// If the training fails.
    pub fn train<M: Network>(
        &self,
        model: M,
        sam: Option<&SamConfig>,
    ) -> anyhow::Result<Trained<M>> {
        Ok(match sam {
            None => self.launch(model)?,
            Some(sam) => self.launch(climbing(sam, model))?.map(SamModel::into_inner),
        }
        .map(M::train))
    }

    fn launch<M: Network>(&self, model: M) -> anyhow::Result<Trained<M>> {
        let start = Instant::now();
        let learner = Learner::new(model, self.base.init(), self.base.learning_rate());
        let (renderer, percents) = ProgressRenderer::new(self.bar.clone(), "Accuracy");
        let directory = tempfile::tempdir()?;
        let result = SupervisedTraining::new(
            directory.path(),
            self.loader(&self.split.train, Some(self.seed)),
            self.loader(&self.split.test, None),
        )
        .metric_valid_numeric(AccuracyMetric::new())
        .num_epochs(self.epochs)
        .renderer(Box::new(renderer))
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_application_logger(None)
        .launch(learner);

        if let Some(error) = result.error {
            bail!("the training stopped: {error}");
        }
        let test_accuracies: Vec<f64> = (percents.lock().unwrap().iter())
            .map(|percent| percent / 100.0)
            .collect();
        if test_accuracies.len() != self.epochs {
            bail!(
                "{} test accuracies in {} epochs",
                test_accuracies.len(),
                self.epochs
            );
        }
        Ok(Trained {
            model: result.model,
            test_accuracies,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn loader(&self, digits: &[Digit], shuffle: Option<u64>) -> Arc<dyn DataLoader<DigitBatch>> {
        let builder = DataLoaderBuilder::new(DigitBatcher)
            .batch_size(self.batch_size)
            .set_device(self.device.clone());
        let builder = match shuffle {
            Some(seed) => builder.shuffle(seed),
            None => builder,
        };
        builder.build(InMemDataset::new(digits.to_vec()))
    }
}

/// A network under SAM.
pub(crate) fn climbing<M: Network>(sam: &SamConfig, model: M) -> SamModel<M> {
    sam.init_on_part(model, |batch: &DigitBatch, part| DigitBatch {
        images: part.of(&batch.images),
        labels: part.of(&batch.labels),
    })
}

/// The mean of some values and their standard deviation (of a sample: over n - 1).
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2));
    (mean, (squares.sum::<f64>() / (n - 1.0).max(1.0)).sqrt())
}
