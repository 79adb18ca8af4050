//! A perceptron, and two ways to train it: as a classifier in Burn's Learner, and for a number in a loop of one's own.

use anyhow::Context;
use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_sam::{SamConfig, SamSteps};
use digits::comparison::{Job, Look, Outcome, Step, Task, Trainable, again, medians};
use digits::data::{Digit, batches};
use digits::model::seeded;
use digits::training::{Accuracies, Trained};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

const HIDDEN: usize = 128;

/// A perceptron with two hidden layers.
#[derive(Module, Debug)]
pub(crate) struct Perceptron {
    input: Linear,
    hidden: Linear,
    output: Linear,
}

impl Perceptron {
    pub(crate) fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self {
            input: LinearConfig::new(inputs, HIDDEN).init(device),
            hidden: LinearConfig::new(HIDDEN, HIDDEN).init(device),
            output: LinearConfig::new(HIDDEN, outputs).init(device),
        }
    }

    /// `[batch, outputs]`, of rows, `[batch, inputs]`.
    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let x = relu(self.input.forward(rows));
        let x = relu(self.hidden.forward(x));
        self.output.forward(x)
    }
}

digits::classifies!(Perceptron);

/// Tells the last number of a row from those before it. What is an accuracy elsewhere is R² here: the part of the
/// number's variance that is told.
pub(crate) struct Regression {
    /// The numbers before the last.
    pub(crate) inputs: usize,
}

/// The steps of a method, or of the base optimizer alone.
fn steps(sam: Option<&SamConfig>, model: &Perceptron) -> SamSteps {
    // The base optimizer alone is a SAM that never starts.
    let alone = SamConfig::new().with_start(usize::MAX);
    sam.unwrap_or(&alone).steps(model)
}

/// The mean squared error on inputs and what is to be told of them.
fn error(model: &Perceptron, [inputs, target]: &[Tensor<2>; 2]) -> Tensor<1> {
    let output = model.forward(inputs.clone());
    MseLoss::new().forward(output, target.clone(), Reduction::Mean)
}

impl Regression {
    fn network(&self, seed: u64, device: &Device) -> Perceptron {
        let new = |device: &Device| Perceptron::new(self.inputs, 1, device);
        seeded(new, seed, device)
    }

    fn both(&self, rows: &Tensor<2>) -> [Tensor<2>; 2] {
        let inputs = rows.clone().narrow(1, 0, self.inputs);
        [inputs, rows.clone().narrow(1, self.inputs, 1)]
    }

    fn told(&self, model: &Perceptron, digits: &[Digit], device: &Device) -> anyhow::Result<f64> {
        let all = batches(digits, digits.len(), device);
        let both = self.both(&all.first().context("no rows")?.images);
        let error = error(model, &both);
        let [_, target] = both;
        let read = |value: Tensor<1>| f64::from(value.into_scalar::<f32>());
        Ok(1.0 - read(error) / read(target.var(0).flatten(0, 1)))
    }
}

impl Trainable for Regression {
    fn train(&self, task: &Task, job: &Job, look: Look) -> anyhow::Result<Outcome> {
        let start = std::time::Instant::now();
        let split = (task.split)(job.seed);
        let mut model = self.network(job.seed, task.device);
        let mut steps = steps(job.sam.as_ref(), &model);
        let mut optim = job.recipe.optimizer();
        let mut schedule = job.recipe.schedule(split.train.len())?;
        let mut rng = StdRng::seed_from_u64(job.seed);
        let mut rows = split.train.clone();
        let host = task.device.clone().inner();
        let mut accuracies = Vec::new();
        for epoch in 1..=job.recipe.epochs {
            rows.shuffle(&mut rng);
            for batch in batches(&rows, job.recipe.batch_size, task.device) {
                let lr = schedule.step();
                let both = self.both(&batch.images);
                let loss = |model: &Perceptron| error(model, &both);
                (model, _) = steps.minimize(&mut optim, lr, model, loss);
            }
            if look != Look::Last || epoch == job.recipe.epochs {
                let model = model.valid();
                let of = |digits: &[Digit]| self.told(&model, digits, &host);
                accuracies.push(Accuracies {
                    valid: of(&split.valid)?,
                    test: of(&split.test)?,
                });
            }
        }
        Ok(Outcome::of(&Trained {
            model,
            accuracies,
            seconds: start.elapsed().as_secs_f64(),
        }))
    }

    fn step_seconds(&self, task: &Task, methods: &[Option<SamConfig>]) -> anyhow::Result<Vec<f64>> {
        let both = self.both(&task.first_batch()?.images);
        let lr = task.recipe.learning_rate;
        let step_of = |sam: &Option<SamConfig>| {
            let model = self.network(0, task.device);
            let mut steps = steps(sam.as_ref(), &model);
            let mut optim = task.recipe.optimizer();
            let both = both.clone();
            again(model, move |model| {
                let loss = |model: &Perceptron| error(model, &both);
                steps.minimize(&mut optim, lr, model, loss).0
            })
        };
        let mut steps: Vec<Step> = methods.iter().map(step_of).collect();
        Ok(medians(&mut steps, task.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Table;
    use digits::comparison::Done;
    use digits::recipe::{Base, Recipe};

    #[test]
    fn a_regression_is_trained_and_timed_with_a_method_and_without() {
        let (table, device) = (Table::diamonds().unwrap(), Device::flex().autodiff());
        let regression = Regression {
            inputs: table.width(),
        };
        let task = Task {
            network: &regression,
            split: &|seed| table.split(seed),
            recipe: Recipe::new(Base::Adamw, 2),
            device: &device,
            name: String::new(),
            corruptions: &[],
            done: &Done::default(),
        };
        let methods = [None, Some(SamConfig::new())];
        for sam in &methods {
            let job = &task.jobs(0..1, sam.as_ref())[0];
            let outcome = regression.train(&task, job, Look::Epochs).unwrap();
            assert_eq!(outcome.accuracies.len(), 2);
            assert!(outcome.test_accuracy > 0.8, "{}", outcome.test_accuracy);
        }
        let seconds = task.step_seconds(&methods).unwrap();
        assert!(seconds.len() == 2 && seconds.iter().all(|seconds| *seconds > 0.0));
    }
}
