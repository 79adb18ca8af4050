//! A training through Burn's Learner.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::bail;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::tensor::{Device, Int, Tensor, TensorReadError};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::{Adaptor, Metric, MetricMetadata, MetricName, SerializedEntry};
use burn::train::{ClassificationOutput, InferenceStep, Learner, SupervisedTraining};
use burn_sam::{SamConfig, SamModel};
use example_common::ProgressRenderer;
use indicatif::ProgressBar;
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::average::Averaged;
use crate::data::{Digit, DigitBatch, DigitBatcher, Split, batches};
use crate::model::Network;
use crate::recipe::Recipe;

/// What trainings that are to be compared share.
pub struct Setting<'a> {
    /// Decides the shuffles.
    pub seed: u64,
    /// All else that a method does not decide.
    pub recipe: Recipe,
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
    /// After each epoch; without validation images, after the last one alone.
    pub accuracies: Vec<Accuracies>,
    /// The seconds that it took.
    pub seconds: f64,
}

/// Accuracies after an epoch, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracies {
    /// On the validation images, whose labels are as noisy as the training's. NaN, if there are none.
    pub valid: f64,
    /// On the test images.
    pub test: f64,
}

impl<M> Trained<M> {
    /// On the test images after the last epoch, from 0 to 1.
    pub fn test_accuracy(&self) -> f64 {
        self.accuracies.last().expect("at least one epoch").test
    }

    /// On the test images after the epoch with the best accuracy on the validation images, the first of several, from
    /// 0 to 1: what early stopping would have kept. Without validation images, as [`test_accuracy`](Self::test_accuracy).
    pub fn chosen_test_accuracy(&self) -> f64 {
        let better = |best: Accuracies, next: Accuracies| match next.valid > best.valid {
            true => next,
            false => best,
        };
        let best = self.accuracies.iter().copied().reduce(better);
        best.expect("at least one epoch").test
    }

    /// The same with something else in the model's place.
    pub fn map<N>(self, f: impl FnOnce(M) -> N) -> Trained<N> {
        Trained {
            model: f(self.model),
            accuracies: self.accuracies,
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
        Ok(match self.recipe.average {
            None => self.climb(model, sam)?,
            Some(decay) => {
                let averaged = Averaged::new(model, decay);
                self.climb(averaged, sam)?.map(Averaged::into_average)
            }
        }
        .map(M::train))
    }

    fn climb<M: Network>(&self, model: M, sam: Option<&SamConfig>) -> anyhow::Result<Trained<M>> {
        Ok(match sam {
            None => self.launch(model)?,
            Some(sam) => self.launch(climbing(sam, model))?.map(SamModel::into_inner),
        })
    }

    fn launch<M: Network>(&self, model: M) -> anyhow::Result<Trained<M>> {
        let start = Instant::now();
        let recipe = &self.recipe;
        let schedule = recipe.schedule(self.split.train.len())?;
        let batcher = DigitBatcher::new(recipe.smoothing, recipe.mixup, self.seed)?;
        let learner = Learner::new(model, recipe.optimizer(), schedule);
        let (renderer, _) = ProgressRenderer::new(self.bar.clone(), "Accuracies");
        let accuracies = TwoAccuracies::new(self.split.valid.len());
        let of_epochs = accuracies.of_epochs.clone();
        let both = match self.split.valid.is_empty() {
            true => Vec::new(),
            false => [&self.split.valid[..], &self.split.test].concat(),
        };
        let directory = tempfile::tempdir()?;
        let result = SupervisedTraining::new(
            directory.path(),
            self.loader(&self.split.train, batcher, Some(self.seed)),
            self.loader(&both, DigitBatcher::default(), None),
        )
        .metric_valid(accuracies)
        .num_epochs(recipe.epochs)
        .renderer(Box::new(renderer))
        .with_metric_logger(InMemoryMetricLogger::new())
        .with_application_logger(None)
        .launch(learner);

        if let Some(error) = result.error {
            bail!("the training stopped: {error}");
        }
        let mut accuracies = std::mem::take(&mut *of_epochs.lock().unwrap());
        if self.split.valid.is_empty() {
            accuracies = vec![Accuracies {
                valid: f64::NAN,
                test: accuracy(&result.model, &self.split.test, &self.device)?,
            }];
        } else if accuracies.len() != recipe.epochs {
            bail!(
                "{} accuracies in {} epochs",
                accuracies.len(),
                recipe.epochs
            );
        }
        Ok(Trained {
            model: result.model,
            accuracies,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn loader(
        &self,
        digits: &[Digit],
        batcher: DigitBatcher,
        shuffle: Option<u64>,
    ) -> Arc<dyn DataLoader<DigitBatch>> {
        let builder = DataLoaderBuilder::new(batcher)
            .batch_size(self.recipe.batch_size)
            .set_device(self.device.clone());
        let builder = match shuffle {
            Some(seed) => builder.shuffle(seed),
            None => builder,
        };
        builder.build(InMemDataset::new(digits.to_vec()))
    }
}

/// A network's part of some images that it classifies as their labels say.
///
/// # Errors
///
/// If they cannot be read back.
pub fn accuracy<V>(model: &V, digits: &[Digit], device: &Device) -> anyhow::Result<f64>
where
    V: InferenceStep<Input = DigitBatch, Output = ClassificationOutput>,
{
    let mut hits = Vec::new();
    for batch in batches(digits, 64, &device.clone().inner()) {
        hits.extend(Adaptor::<Hits>::adapt(&model.step(batch)).read()?);
    }
    Ok(part(&hits))
}

/// The accuracy on the validation images, and on the test images that follow them in the same data set. In one pass,
/// since Burn's Learner validates on one data set.
#[derive(Clone)]
struct TwoAccuracies {
    valid: usize,
    /// Whether each image so far is classified as its label says.
    hits: Vec<bool>,
    of_epochs: Arc<Mutex<Vec<Accuracies>>>,
}

impl TwoAccuracies {
    /// With so many validation images.
    fn new(valid: usize) -> Self {
        Self {
            valid,
            hits: Vec::new(),
            of_epochs: Arc::default(),
        }
    }
}

/// What of a batch is classified as its labels say: 1 where it is.
struct Hits(Tensor<1, Int>);

impl Hits {
    fn read(&self) -> Result<Vec<bool>, TensorReadError> {
        let hits = self.0.clone().try_into_data()?;
        Ok(hits.iter::<i64>().map(|hit| hit == 1).collect())
    }
}

/// That hits.
fn part(hits: &[bool]) -> f64 {
    hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64
}

impl Adaptor<Hits> for ClassificationOutput {
    fn adapt(&self) -> Hits {
        let classes = self.output.clone().argmax(1).flatten::<1>(0, 1);
        Hits(classes.equal(self.targets.clone()).int())
    }
}

impl Metric for TwoAccuracies {
    type Input = Hits;

    fn name(&self) -> MetricName {
        Arc::new("Accuracies".to_string())
    }

    fn update(
        &mut self,
        hits: &Hits,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.hits.extend(hits.read()?);
        Ok(SerializedEntry::not_available(None))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        let hits = std::mem::take(&mut self.hits);
        let (valid, test) = hits.split_at(self.valid);
        let accuracies = Accuracies {
            valid: part(valid),
            test: part(test),
        };
        self.of_epochs.lock().unwrap().push(accuracies);
        Ok(SerializedEntry::not_available(None))
    }

    fn clear(&mut self) {
        self.hits.clear();
    }
}

/// A network under SAM.
pub(crate) fn climbing<M: Network>(sam: &SamConfig, model: M) -> SamModel<M> {
    sam.init_on_part(model, DigitBatch::part)
}

/// The mean of some values and their standard deviation (of a sample: over n - 1).
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2));
    (mean, (squares.sum::<f64>() / (n - 1.0).max(1.0)).sqrt())
}

/// The mean of some values, and half of its interval of 95 %, by Student's t.
pub fn interval(values: &[f64]) -> (f64, f64) {
    let (mean, deviation) = mean_and_deviation(values);
    let n = values.len() as f64;
    if n < 2.0 {
        return (mean, f64::NAN);
    }
    let t = StudentsT::new(0.0, 1.0, n - 1.0).expect("a degree of freedom or more");
    (mean, t.inverse_cdf(0.975) * deviation / n.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mlp, seeded};
    use crate::recipe::Base;

    #[test]
    fn an_interval_is_as_in_tables_of_t() {
        let (mean, half) = interval(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(mean, 3.0);
        // t of 4 degrees of freedom, 2.776, times the deviation 1.5811 over the root of 5.
        assert!((half - 1.9632).abs() < 1e-3, "{half}");
    }

    #[test]
    fn the_epoch_is_chosen_by_the_validation_images() {
        let accuracies = [(0.5, 0.6), (0.7, 0.8), (0.7, 0.9), (0.6, 0.95)];
        let trained = Trained {
            model: (),
            accuracies: accuracies
                .map(|(valid, test)| Accuracies { valid, test })
                .into(),
            seconds: 1.0,
        };
        assert_eq!(trained.test_accuracy(), 0.95);
        assert_eq!(trained.chosen_test_accuracy(), 0.8);
    }

    #[test]
    fn without_validation_images_the_last_epoch_is_looked_at_alone() {
        let split = crate::data::split(crate::data::digits().unwrap(), 0.4, 0);
        let blind = Split {
            valid: Vec::new(),
            train: split.train.clone(),
            test: split.test.clone(),
        };
        let device = Device::flex().autodiff();
        let [each, last] = [&split, &blind].map(|split| {
            let setting = Setting {
                seed: 0,
                recipe: Recipe::new(Base::Sgd, 3),
                device: device.clone(),
                split,
                bar: &ProgressBar::hidden(),
            };
            let network = seeded(Mlp::new, 0, &device);
            setting.train(network, None).unwrap()
        });
        assert_eq!([each.accuracies.len(), last.accuracies.len()], [3, 1]);
        assert_eq!(last.test_accuracy(), each.test_accuracy());
        assert_eq!(last.chosen_test_accuracy(), each.test_accuracy());
    }

    #[test]
    fn accuracies_are_of_either_part() {
        let mut metric = TwoAccuracies::new(3);
        let metadata = || MetricMetadata {
            progress: burn::data::dataloader::Progress {
                items_processed: 1,
                items_total: 1,
                unit: None,
            },
            iteration: None,
            lr: None,
        };
        let device = Device::flex();
        for _ in 0..2 {
            // The batches need not end where the validation images do.
            for hits in [[1, 0], [1, 1], [0, 0]] {
                let hits = Hits(Tensor::from_ints(hits, &device));
                metric.update(&hits, &metadata()).unwrap();
            }
            metric.compute().unwrap();
        }
        let expected = Accuracies {
            valid: 2.0 / 3.0,
            test: 1.0 / 3.0,
        };
        assert_eq!(*metric.of_epochs.lock().unwrap(), [expected; 2]);
    }
}
