use std::sync::Arc;
use std::time::Instant;

use anyhow::bail;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::Device;
use burn::train::TrainStep;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::AccuracyMetric;
use burn::train::{ClassificationOutput, InferenceStep, Learner, LearnerModel, SupervisedTraining};
use burn_sam::SamConfig;
use example_common::ProgressRenderer;
use indicatif::ProgressBar;

use crate::data::{Digit, DigitBatch, DigitBatcher, Split};
use crate::model::Mlp;

const LEARNING_RATE: f64 = 0.1;
const MOMENTUM: f64 = 0.9;
const BATCH_SIZE: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Method {
    Sgd,
    Sam,
}

impl Method {
    pub(crate) const ALL: [Self; 2] = [Self::Sgd, Self::Sam];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sgd => "SGD",
            Self::Sam => "SAM",
        }
    }
}

/// One training, from the initial weights to the last epoch.
pub(crate) struct Run {
    pub(crate) method: Method,
    pub(crate) seed: u64,
    /// After each epoch, from 0 to 1.
    pub(crate) test_accuracies: Vec<f64>,
    pub(crate) seconds: f64,
}

impl Run {
    pub(crate) fn test_accuracy(&self) -> f64 {
        *self.test_accuracies.last().expect("at least one epoch")
    }
}

/// What the runs of one seed share: the initial weights, the images, the shuffles.
pub(crate) struct Setting<'a> {
    pub(crate) seed: u64,
    pub(crate) epochs: usize,
    pub(crate) device: Device,
    pub(crate) model: Mlp,
    pub(crate) split: Split,
    pub(crate) bar: &'a ProgressBar,
}

impl Setting<'_> {
    pub(crate) fn run(&self, method: Method, sam: &SamConfig) -> anyhow::Result<Run> {
        let start = Instant::now();
        let test_accuracies = match method {
            Method::Sgd => self.train(self.model.clone()),
            Method::Sam => self.train(sam.init(self.model.clone())),
        }?;
        Ok(Run {
            method,
            seed: self.seed,
            test_accuracies,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn train<M>(&self, model: M) -> anyhow::Result<Vec<f64>>
    where
        M: LearnerModel
            + TrainStep<Input = DigitBatch, Output = ClassificationOutput>
            + InferenceStep<Input = DigitBatch, Output = ClassificationOutput>,
    {
        let momentum = MomentumConfig::new()
            .with_momentum(MOMENTUM)
            .with_dampening(0.0);
        let learner = Learner::new(
            model,
            SgdConfig::new().with_momentum(Some(momentum)).init(),
            LEARNING_RATE,
        );

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
        let accuracies: Vec<f64> = (percents.lock().unwrap().iter())
            .map(|percent| percent / 100.0)
            .collect();
        if accuracies.len() != self.epochs {
            bail!(
                "{} test accuracies in {} epochs",
                accuracies.len(),
                self.epochs
            );
        }
        Ok(accuracies)
    }

    fn loader(&self, digits: &[Digit], shuffle: Option<u64>) -> Arc<dyn DataLoader<DigitBatch>> {
        let builder = DataLoaderBuilder::new(DigitBatcher)
            .batch_size(BATCH_SIZE)
            .set_device(self.device.clone());
        let builder = match shuffle {
            Some(seed) => builder.shuffle(seed),
            None => builder,
        };
        builder.build(InMemDataset::new(digits.to_vec()))
    }
}
