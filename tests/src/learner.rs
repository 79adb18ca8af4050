//! A quiet training through Burn's Learner.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::LossMetric;
use burn::train::{
    InferenceStep, Learner, LearnerModel, LearningResult, RegressionOutput, SupervisedTraining,
    TrainStep,
};
use example_common::ProgressRenderer;
use indicatif::ProgressBar;

use crate::Points;

/// Makes the batch of a seed.
struct Seeds;

impl Batcher<u64, Points> for Seeds {
    fn batch(&self, seeds: Vec<u64>, device: &Device) -> Points {
        Points::new(seeds[0], device)
    }
}

/// The batches of the seeds from 0.
fn loader(batches: u64, device: &Device) -> Arc<dyn DataLoader<Points>> {
    DataLoaderBuilder::new(Seeds)
        .batch_size(1)
        .set_device(device.clone())
        .build(InMemDataset::new((0..batches).collect()))
}

/// A model that learns [`Points`] in the Learner.
pub trait Learns:
    LearnerModel
    + TrainStep<Input = Points, Output = RegressionOutput>
    + InferenceStep<Input = Points, Output = RegressionOutput>
{
}

impl<M> Learns for M where
    M: LearnerModel
        + TrainStep<Input = Points, Output = RegressionOutput>
        + InferenceStep<Input = Points, Output = RegressionOutput>
{
}

/// Trains over `batches` batches an epoch, and returns the validation losses too.
///
/// # Panics
///
/// If the training fails.
pub fn train<M: Learns>(
    learner: Learner<M>,
    (batches, device): (u64, &Device),
    directory: &Path,
    setup: impl FnOnce(SupervisedTraining<M>) -> SupervisedTraining<M>,
) -> (LearningResult<M>, Vec<f64>) {
    let (renderer, losses) = ProgressRenderer::new(ProgressBar::hidden(), "Loss");
    let training = SupervisedTraining::new(directory, loader(batches, device), loader(2, device))
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .renderer(Box::new(renderer))
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_application_logger(None);
    let result = setup(training).launch(learner);
    assert!(result.error.is_none(), "{:?}", result.error);
    let losses = losses.lock().unwrap().clone();
    (result, losses)
}
