//! Methods side by side, over several seeds, each with the radius that suits it.

use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use burn::train::{InferenceStep, TrainStep};
use burn_sam::{Flatness, SamConfig};
use indicatif::ProgressBar;

use crate::data::{Digit, DigitBatch, TRAINING_IMAGES, batches, split};
use crate::model::{ConvNet, Mlp, Network, seeded};
use crate::training::{Base, Setting, climbing};

/// The radius at which all methods' sharpness is measured.
pub const SHARPNESS_RHO: f64 = 0.5;

/// Which network.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// [`Mlp`]
    Mlp,
    /// [`ConvNet`]
    Conv,
}

impl Architecture {
    /// Passes over the training images, if nothing else is said.
    pub fn epochs(self) -> u32 {
        match self {
            Self::Mlp => 60,
            Self::Conv => 20,
        }
    }

    /// For readers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mlp => "perceptron",
            Self::Conv => "convolutional network",
        }
    }
}

/// What all trainings of a comparison share.
pub struct Task<'a> {
    /// The images.
    pub digits: &'a [Digit],
    /// Which network.
    pub architecture: Architecture,
    /// Part of the training labels that are replaced by random ones.
    pub noise: f64,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// The optimizer.
    pub base: Base,
    /// With autodiff.
    pub device: &'a Device,
}

/// One training: a seed, and SAM or not.
#[derive(Clone)]
pub struct Job {
    /// Decides the initial weights, the images, the wrong labels and the shuffles.
    pub seed: u64,
    /// The method: SGD if it is none.
    pub sam: Option<SamConfig>,
}

impl Job {
    /// One training for each seed, with the same method.
    pub fn each(seeds: core::ops::Range<u64>, sam: Option<&SamConfig>) -> Vec<Self> {
        let job = |seed| Self {
            seed,
            sam: sam.cloned(),
        };
        seeds.map(job).collect()
    }
}

/// What came out of a training.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Outcome {
    /// After the last epoch, on clean images, from 0 to 1.
    pub test_accuracy: f64,
    /// The seconds that the training took.
    pub seconds: f64,
    /// Of the loss on the training images after the last epoch.
    pub flatness: Option<Measures>,
}

/// How flat the loss is.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Measures {
    /// At [`SHARPNESS_RHO`].
    pub sharpness: f64,
    /// Of the Hessian.
    pub largest_eigenvalue: f64,
}

/// Seeds from here on are for choosing radii.
pub const TUNING_SEEDS: u64 = 1000;

impl Task<'_> {
    /// The steps of a training's first twelfth, one at least.
    pub fn first_twelfth(&self) -> usize {
        (self.epochs * TRAINING_IMAGES.div_ceil(self.batch_size) / 12).max(1)
    }

    /// Runs all jobs, one a core at a time, and returns their outcomes in order. With `measure`, it
    /// measures flatness.
    ///
    /// # Errors
    ///
    /// If a training or a measure fails.
    pub fn run(
        &self,
        jobs: &[Job],
        measure: bool,
        bar: &ProgressBar,
    ) -> anyhow::Result<Vec<Outcome>> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let work = |worker: usize| {
            let jobs = jobs.iter().skip(worker).step_by(workers);
            jobs.map(|job| self.one(job, measure, bar)).collect()
        };
        let done: Vec<Vec<_>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers)
                .map(|worker| scope.spawn(move || work(worker)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<anyhow::Result<_>>()
        })?;
        Ok((0..jobs.len())
            .map(|job| done[job % workers][job / workers])
            .collect())
    }

    /// The radius of `radii` with the best mean accuracy over so many seeds from [`TUNING_SEEDS`] on.
    ///
    /// # Errors
    ///
    /// If a training fails.
    pub fn tune(
        &self,
        radii: &[f64],
        seeds: u64,
        sam: impl Fn(f64) -> SamConfig,
        bar: &ProgressBar,
    ) -> anyhow::Result<f64> {
        let jobs: Vec<Job> = (radii.iter())
            .flat_map(|rho| Job::each(TUNING_SEEDS..TUNING_SEEDS + seeds, Some(&sam(*rho))))
            .collect();
        let outcomes = self.run(&jobs, false, bar)?;
        let of_radius = outcomes.chunks(seeds as usize);
        let sums = of_radius.map(|chunk| chunk.iter().map(|o| o.test_accuracy).sum::<f64>());
        let best =
            (radii.iter().zip(sums)).reduce(|best, next| if next.1 > best.1 { next } else { best });
        Ok(*best.context("no radius to choose from")?.0)
    }

    /// The seconds of a training step with each method: its passes, the climb and the update. The methods
    /// take turns of several steps, for not all of a method's steps need be alike, and the median of the
    /// turns is what counts.
    ///
    /// # Errors
    ///
    /// If there are fewer images than make a batch.
    pub fn step_seconds(&self, methods: &[Option<SamConfig>]) -> anyhow::Result<Vec<f64>> {
        match self.architecture {
            Architecture::Mlp => self.time(&Mlp::new(self.device), methods),
            Architecture::Conv => self.time(&ConvNet::new(self.device), methods),
        }
    }

    fn time<M: Network>(
        &self,
        model: &M,
        methods: &[Option<SamConfig>],
    ) -> anyhow::Result<Vec<f64>> {
        const ROUNDS: usize = 100;
        let digits = self.digits.get(..self.batch_size);
        let digits = digits.context("there are fewer images than make a batch")?;
        let batch = &batches(digits, self.batch_size, self.device)[0];
        let mut steps: Vec<Box<dyn FnMut() -> f64>> = Vec::new();
        for method in methods {
            let model = model.clone();
            steps.push(match method {
                None => timed_step(self.base, model, batch),
                Some(sam) => timed_step(self.base, climbing(sam, model), batch),
            });
        }
        let mut seconds = vec![Vec::with_capacity(ROUNDS); methods.len()];
        for _ in 0..ROUNDS {
            for (seconds, step) in seconds.iter_mut().zip(&mut steps) {
                seconds.push(step());
            }
        }
        let median = |mut seconds: Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2] / TURN as f64
        };
        Ok(seconds.into_iter().map(median).collect())
    }

    fn one(&self, job: &Job, measure: bool, bar: &ProgressBar) -> anyhow::Result<Outcome> {
        let outcome = match self.architecture {
            Architecture::Mlp => self.train(Mlp::new, job, measure),
            Architecture::Conv => self.train(ConvNet::new, job, measure),
        };
        bar.inc(1);
        outcome
    }

    fn train<M: Network>(
        &self,
        new: fn(&Device) -> M,
        job: &Job,
        measure: bool,
    ) -> anyhow::Result<Outcome> {
        let split = split(self.digits.to_vec(), self.noise, job.seed);
        let model = seeded(new, job.seed, self.device);
        let setting = Setting {
            seed: job.seed,
            epochs: self.epochs,
            batch_size: self.batch_size,
            base: self.base,
            device: self.device.clone(),
            split: &split,
            bar: &ProgressBar::hidden(),
        };
        let trained = setting.train(model, job.sam.as_ref())?;
        let flatness = match measure {
            true => Some(self.measure(&trained.model, &split.train)?),
            false => None,
        };
        Ok(Outcome {
            test_accuracy: trained.test_accuracy(),
            seconds: trained.seconds,
            flatness,
        })
    }

    fn measure<M: Network>(&self, model: &M, digits: &[Digit]) -> anyhow::Result<Measures> {
        let batches = batches(digits, 250, self.device);
        let loss = |model: &M, batch: &DigitBatch| InferenceStep::step(model, batch.clone()).loss;
        let flatness = Flatness::new(model, &batches, loss)?;
        Ok(Measures {
            sharpness: flatness.sharpness(&SamConfig::new().with_rho(SHARPNESS_RHO))?,
            largest_eigenvalue: flatness.eigenvalues(1, 0)?[0].value,
        })
    }
}

/// So many steps are timed together.
const TURN: usize = 5;

/// A turn of training steps whose seconds are counted, again and again.
fn timed_step<M: Network>(base: Base, model: M, batch: &DigitBatch) -> Box<dyn FnMut() -> f64> {
    let (mut model, batch) = (Some(model), batch.clone());
    let mut optim = base.init();
    Box::new(move || {
        let device = batch.images.device();
        device.sync().expect("the device works");
        let start = Instant::now();
        for _ in 0..TURN {
            let now = model.take().expect("it is put back");
            let output = TrainStep::step(&now, batch.clone());
            model = Some(now.optimize(&mut optim, base.learning_rate().into(), output.grads));
        }
        device.sync().expect("the device works");
        start.elapsed().as_secs_f64()
    })
}
