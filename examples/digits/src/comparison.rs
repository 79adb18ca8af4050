//! Methods side by side, over several seeds, each with the radius that suits it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use burn::train::{InferenceStep, TrainStep};
use burn_sam::{Flatness, SamConfig};
use example_common::Method;
use indicatif::ProgressBar;
use plotters::style::RGBColor;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::data::{Digit, DigitBatch, Split, batches};
use crate::model::{ConvNet, Mlp, Network, Transformer, seeded};
use crate::recipe::{Base, Recipe, RecipeOptions, Schedule};
use crate::training::{Setting, Trained, accuracy, climbing, interval, mean_and_deviation};

/// The radius at which all methods' sharpness is measured.
pub const SHARPNESS_RHO: f64 = 0.5;

/// The radii that methods are given on the digits, in the units of SAM's.
pub const RADII: [f64; 9] = [0.1, 0.15, 0.2, 0.3, 0.42, 0.6, 0.85, 1.2, 1.7];
/// An accuracy below this is that of a network that is dead, or as good as dead: guessing is 0.1.
pub const DEAD: f64 = 0.2;

/// What a method is drawn in. Of Okabe and Ito's colours, which the colour-blind can tell apart.
pub fn colour(method: Method) -> RGBColor {
    match method {
        Method::Sgd => RGBColor(90, 90, 90),
        Method::Sam => RGBColor(213, 94, 0),
        Method::Msam => RGBColor(0, 114, 178),
        Method::Looksam | Method::Limited => RGBColor(0, 158, 115),
        Method::Raised => RGBColor(230, 159, 0),
        Method::Both => RGBColor(86, 180, 233),
        Method::Auto | Method::Autotwopass => RGBColor(204, 121, 167),
        _ => RGBColor(150, 150, 150),
    }
}

/// On so many training images at most, evenly among all.
const MEASURED: usize = 1000;

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
    /// [`Transformer`]
    Transformer,
}

impl Architecture {
    /// How it is trained, if nothing else is said.
    pub fn recipe(self, base: Base, options: &RecipeOptions) -> Recipe {
        let (epochs, schedule) = match self {
            Self::Mlp => (60, Schedule::Constant),
            Self::Conv => (20, Schedule::Constant),
            Self::Transformer => (40, Schedule::Warmup),
        };
        let recipe = Recipe::new(base, options.epochs.unwrap_or(epochs) as usize);
        Recipe {
            learning_rate: match (self, base) {
                (Self::Transformer, Base::Adamw) => 0.001,
                _ => recipe.learning_rate,
            },
            schedule: options.schedule.unwrap_or(schedule),
            smoothing: options.smoothing,
            ..recipe
        }
    }

    /// What makes one, with random weights.
    pub fn network(self) -> &'static dyn Trainable {
        match self {
            Self::Mlp => &|seed, device: &Device| Ok(seeded(Mlp::new, seed, device)),
            Self::Conv => &|seed, device: &Device| Ok(seeded(ConvNet::new, seed, device)),
            Self::Transformer => {
                &|seed, device: &Device| Ok(seeded(Transformer::new, seed, device))
            }
        }
    }

    /// For readers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mlp => "perceptron",
            Self::Conv => "convolutional network",
            Self::Transformer => "transformer",
        }
    }
}

/// What all trainings of a comparison share.
pub struct Task<'a> {
    /// Which network.
    pub network: &'a dyn Trainable,
    /// The images, as a seed has them.
    pub split: &'a (dyn Fn(u64) -> Split + Sync),
    /// How they are trained.
    pub recipe: Recipe,
    /// With autodiff.
    pub device: &'a Device,
    /// What tells this task from the others that share a [`Done`].
    pub name: String,
    /// What else to test on.
    pub corruptions: &'a [Corruption],
    /// What is not done again.
    pub done: &'a Done,
}

/// A way in which test images can differ from all that was trained on.
pub struct Corruption {
    /// For readers.
    pub name: &'static str,
    /// An image so, with what is drawn for it.
    pub of: fn(&Digit, &mut StdRng) -> Digit,
}

/// A kind of network, by what makes one: a function of a seed and a device.
pub trait Trainable: Sync {
    /// Trains one.
    ///
    /// # Errors
    ///
    /// If that fails.
    fn train(&self, task: &Task, job: &Job, look: Look) -> anyhow::Result<Outcome>;

    /// As [`Task::step_seconds`].
    ///
    /// # Errors
    ///
    /// If there are fewer images than make a batch.
    fn step_seconds(&self, task: &Task, methods: &[Option<SamConfig>]) -> anyhow::Result<Vec<f64>>;
}

/// The outcomes so far, in a file that a run which was stopped goes on from.
#[derive(Default)]
pub struct Done {
    file: Option<Mutex<File>>,
    outcomes: Mutex<HashMap<String, Outcome>>,
}

/// A line of that file.
#[derive(serde::Serialize, serde::Deserialize)]
struct DoneLine {
    job: String,
    outcome: Outcome,
}

impl Done {
    /// What a file has; without one, nothing is kept. A last line that was not finished is not counted.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or is another's.
    pub fn open(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let name = || file.display().to_string();
        let mut open = (File::options().read(true).append(true).create(true))
            .open(file)
            .with_context(|| format!("cannot open {}", name()))?;
        let mut text = String::new();
        open.read_to_string(&mut text).with_context(name)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        open.set_len(whole as u64).with_context(name)?;
        let lines = text[..whole].lines().map(|line| {
            let DoneLine { job, outcome } = serde_json::from_str(line)
                .with_context(|| format!("{} is not of this program: {line}", name()))?;
            Ok((job, outcome))
        });
        Ok(Self {
            outcomes: Mutex::new(lines.collect::<anyhow::Result<_>>()?),
            file: Some(Mutex::new(open)),
        })
    }

    /// A job's outcome, from the file, or from doing it.
    fn once(
        &self,
        job: String,
        work: impl FnOnce() -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<Outcome> {
        if let Some(outcome) = self.outcomes.lock().expect("nobody panics").get(&job) {
            return Ok(outcome.clone());
        }
        let outcome = work()?;
        if let Some(file) = &self.file {
            let outcome = outcome.clone();
            let line = DoneLine { job, outcome };
            let line = format!("{}\n", serde_json::to_string(&line)?);
            let mut file = file.lock().expect("nobody panics");
            file.write_all(line.as_bytes())
                .context("what is done cannot be kept")?;
        }
        Ok(outcome)
    }
}

/// One training: a seed, a recipe, and SAM or not.
#[derive(Clone)]
pub struct Job {
    /// Decides the initial weights, the images, the wrong labels and the shuffles.
    pub seed: u64,
    /// All else that the method does not decide.
    pub recipe: Recipe,
    /// The method: the optimizer alone if it is none.
    pub sam: Option<SamConfig>,
}

/// What is looked at of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Look {
    /// The test images after the last epoch.
    Last,
    /// The validation and the test images after each epoch.
    Epochs,
    /// These, and how flat the loss is.
    Flatness,
}

/// What came out of a training.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// After the last epoch, on clean images, from 0 to 1.
    pub test_accuracy: f64,
    /// After the epoch that the validation images choose, likewise. With [`Look::Last`], after the last one.
    pub chosen_test_accuracy: f64,
    /// After each epoch, likewise. With [`Look::Last`], after the last one.
    #[serde(default)]
    pub accuracies: Vec<f64>,
    /// After the last epoch, on the test images with each of the task's [corruptions](Task::corruptions).
    #[serde(default)]
    pub corrupted: Vec<f64>,
    /// The seconds that the training took.
    pub seconds: f64,
    /// Of the loss on the training images, a thousand of them at most, after the last epoch.
    pub flatness: Option<Measures>,
}

impl Outcome {
    /// Without what is measured after the training.
    pub fn of<M>(trained: &Trained<M>) -> Self {
        Self {
            test_accuracy: trained.test_accuracy(),
            chosen_test_accuracy: trained.chosen_test_accuracy(),
            accuracies: trained.accuracies.iter().map(|each| each.test).collect(),
            corrupted: Vec::new(),
            seconds: trained.seconds,
            flatness: None,
        }
    }
}

/// Mean and deviation of some accuracies, from 0 to 1, in percent.
pub fn percents(accuracies: impl IntoIterator<Item = f64>) -> String {
    text(accuracies.into_iter().map(|accuracy| 100.0 * accuracy), 1)
}

/// The same, with how many are of a network that is dead.
pub fn percents_and_dead(accuracies: &[f64]) -> String {
    let percents = percents(accuracies.iter().copied());
    match accuracies.iter().filter(|a| **a < DEAD).count() {
        0 => percents,
        dead => format!("{percents} ({dead} died)"),
    }
}

/// Each seed's accuracy after the last epoch, from 0 to 1.
pub fn last(outcomes: &[Outcome]) -> Vec<f64> {
    let accuracies = outcomes.iter().map(|outcome| outcome.test_accuracy);
    accuracies.collect()
}

/// The same after the epoch that the validation images choose.
pub fn stopped_early(outcomes: &[Outcome]) -> Vec<f64> {
    let accuracies = outcomes.iter().map(|outcome| outcome.chosen_test_accuracy);
    accuracies.collect()
}

/// By how much some accuracies, from 0 to 1, are above others of the same seeds.
pub fn over(these: &[f64], those: &[f64]) -> Points {
    let differences = these.iter().zip(those).map(|(a, b)| 100.0 * (a - b));
    let (mean, half) = interval(&differences.collect::<Vec<_>>());
    Points { mean, half }
}

/// The mean of some differences, seed by seed, in points of accuracy, and half of its interval of 95 %, which one seed has
/// not.
#[derive(Clone, Copy)]
pub struct Points {
    pub(crate) mean: f64,
    pub(crate) half: f64,
}

impl core::fmt::Display for Points {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { mean, half } = self;
        write!(f, "{mean:+.1}")?;
        match half.is_nan() {
            true => Ok(()),
            false => write!(f, " ± {half:.1}"),
        }
    }
}

/// The columns of a table that [`columns`] fills.
pub const COLUMNS: &str = "test accuracy, % | stopped early | sharpness | largest eigenvalue";

/// Mean and deviation of each, of outcomes with measures.
pub fn columns(outcomes: &[Outcome]) -> String {
    let measured = |of: fn(&Measures) -> f64, digits: usize| {
        let measures = outcomes
            .iter()
            .filter_map(|outcome| outcome.flatness.as_ref());
        text(measures.map(of), digits)
    };
    [
        percents(last(outcomes)),
        percents(stopped_early(outcomes)),
        measured(|measures| measures.sharpness, 3),
        measured(|measures| measures.largest_eigenvalue, 2),
    ]
    .join(" | ")
}

fn text(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let (mean, deviation) = mean_and_deviation(&values.collect::<Vec<_>>());
    format!("{mean:.digits$} ± {deviation:.digits$}")
}

/// How flat the loss is.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
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
        let images = (self.split)(0).train.len();
        (self.recipe.steps(images) / 12).max(1)
    }

    /// Runs all jobs, one a core at a time, and returns their outcomes in order.
    ///
    /// # Errors
    ///
    /// If a training or a measure fails.
    pub fn run(&self, jobs: &[Job], look: Look, bar: &ProgressBar) -> anyhow::Result<Vec<Outcome>> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let work = |worker: usize| {
            let jobs = jobs.iter().skip(worker).step_by(workers);
            jobs.map(|job| self.one(job, look, bar)).collect()
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
            .map(|job| done[job % workers][job / workers].clone())
            .collect())
    }

    /// One training for each seed, with the same method.
    pub fn jobs(&self, seeds: Range<u64>, sam: Option<&SamConfig>) -> Vec<Job> {
        self.jobs_of(seeds, self.recipe, sam)
    }

    /// The same with another recipe than the task's.
    pub fn jobs_of(&self, seeds: Range<u64>, recipe: Recipe, sam: Option<&SamConfig>) -> Vec<Job> {
        let job = |seed| Job {
            seed,
            recipe,
            sam: sam.cloned(),
        };
        seeds.map(job).collect()
    }

    /// The setting of `settings` with the best mean accuracy over so many seeds from [`TUNING_SEEDS`] on.
    ///
    /// # Errors
    ///
    /// If a training fails.
    pub fn tune(
        &self,
        settings: &[f64],
        seeds: u64,
        with: impl Fn(f64) -> (Recipe, Option<SamConfig>),
        bar: &ProgressBar,
    ) -> anyhow::Result<f64> {
        let jobs: Vec<Job> = (settings.iter())
            .flat_map(|setting| {
                let (recipe, sam) = with(*setting);
                self.jobs_of(TUNING_SEEDS..TUNING_SEEDS + seeds, recipe, sam.as_ref())
            })
            .collect();
        let outcomes = self.run(&jobs, Look::Last, bar)?;
        let of_setting = outcomes.chunks(seeds as usize);
        let sums = of_setting.map(|chunk| chunk.iter().map(|o| o.test_accuracy).sum::<f64>());
        let best = (settings.iter().zip(sums))
            .reduce(|best, next| if next.1 > best.1 { next } else { best });
        Ok(*best.context("no setting to choose from")?.0)
    }

    /// The radius that [`tune`](Self::tune) finds for a method, of `radii` in the units of SAM's; of a method without a
    /// radius, nothing.
    ///
    /// # Errors
    ///
    /// If a training fails.
    pub fn tune_method(
        &self,
        method: Method,
        radii: &[f64],
        seeds: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Option<f64>> {
        if !method.has_a_radius() {
            return Ok(None);
        }
        let steps = self.first_twelfth();
        let radii: Vec<f64> = radii.iter().map(|radius| radius * method.scale()).collect();
        let with = |rho| (self.recipe, method.config(rho, steps));
        self.tune(&radii, seeds, with, bar).map(Some)
    }

    /// A method's name, for readers.
    pub fn method_name(&self, method: Method) -> &'static str {
        match method {
            Method::Sgd => self.recipe.base.name(),
            method => method.name(),
        }
    }

    /// The seconds of a training step with each method: its passes, the climb and the update. The methods
    /// take turns of several steps, for not all of a method's steps need be alike, and the median of the
    /// turns is what counts.
    ///
    /// # Errors
    ///
    /// If there are fewer images than make a batch.
    pub fn step_seconds(&self, methods: &[Option<SamConfig>]) -> anyhow::Result<Vec<f64>> {
        self.network.step_seconds(self, methods)
    }

    fn time<M: Network>(
        &self,
        model: &M,
        methods: &[Option<SamConfig>],
    ) -> anyhow::Result<Vec<f64>> {
        let batch = &self.first_batch()?;
        let mut steps = Vec::new();
        for method in methods {
            let model = model.clone();
            steps.push(match method {
                None => step_of(&self.recipe, model, batch),
                Some(sam) => step_of(&self.recipe, climbing(sam, model), batch),
            });
        }
        Ok(medians(&mut steps, self.device))
    }

    /// Of seed 0.
    ///
    /// # Errors
    ///
    /// If there are fewer images than make one.
    pub fn first_batch(&self) -> anyhow::Result<DigitBatch> {
        let digits = (self.split)(0).train;
        let digits = digits.get(..self.recipe.batch_size);
        let digits = digits.context("there are fewer images than make a batch")?;
        let mut batches = batches(digits, self.recipe.batch_size, self.device);
        Ok(batches.remove(0))
    }

    fn one(&self, job: &Job, look: Look, bar: &ProgressBar) -> anyhow::Result<Outcome> {
        let (name, sam, seed) = (&self.name, &job.sam, job.seed);
        let settings = (job.recipe, look);
        let key = serde_json::to_string(&(name, settings, sam, seed))?;
        let work = || self.network.train(self, job, look);
        let outcome = self.done.once(key, work);
        bar.inc(1);
        outcome
    }

    fn train<M: Network>(&self, model: M, job: &Job, look: Look) -> anyhow::Result<Outcome> {
        let mut split = (self.split)(job.seed);
        if look == Look::Last {
            split.valid.clear();
        }
        let setting = Setting {
            seed: job.seed,
            recipe: job.recipe,
            device: self.device.clone(),
            split: &split,
            bar: &ProgressBar::hidden(),
        };
        let trained = setting.train(model, job.sam.as_ref())?;
        let flatness = match look {
            Look::Flatness => Some(self.measure(&trained.model, &split.train)?),
            Look::Last | Look::Epochs => None,
        };
        let tested = trained.model.valid();
        let corrupted = self.corruptions.iter().map(|corruption| {
            let mut rng = StdRng::seed_from_u64(job.seed);
            let corrupted = split
                .test
                .iter()
                .map(|digit| (corruption.of)(digit, &mut rng));
            let corrupted: Vec<Digit> = corrupted.collect();
            accuracy(&tested, &corrupted, self.device)
        });
        let corrupted = match look {
            Look::Last => Vec::new(),
            Look::Epochs | Look::Flatness => corrupted.collect::<anyhow::Result<_>>()?,
        };
        Ok(Outcome {
            corrupted,
            flatness,
            ..Outcome::of(&trained)
        })
    }

    fn measure<M: Network>(&self, model: &M, digits: &[Digit]) -> anyhow::Result<Measures> {
        let every = digits.len().div_ceil(MEASURED);
        let digits: Vec<Digit> = digits.iter().step_by(every).cloned().collect();
        let batches = batches(&digits, 250, self.device);
        let loss = |model: &M, batch: &DigitBatch| InferenceStep::step(model, batch.clone()).loss;
        let flatness = Flatness::new(model, &batches, loss)?;
        Ok(Measures {
            sharpness: flatness.sharpness(&SamConfig::new().with_rho(SHARPNESS_RHO))?,
            largest_eigenvalue: flatness.eigenvalues(1, 0)?[0].value,
        })
    }
}

impl<F, M> Trainable for F
where
    F: Fn(u64, &Device) -> anyhow::Result<M> + Sync,
    M: Network,
{
    fn train(&self, task: &Task, job: &Job, look: Look) -> anyhow::Result<Outcome> {
        task.train(self(job.seed, task.device)?, job, look)
    }

    fn step_seconds(&self, task: &Task, methods: &[Option<SamConfig>]) -> anyhow::Result<Vec<f64>> {
        task.time(&self(0, task.device)?, methods)
    }
}

/// A training step.
pub type Step = Box<dyn FnMut()>;

/// A model's training step, from one model to the next.
pub fn again<M: 'static>(model: M, mut step: impl FnMut(M) -> M + 'static) -> Step {
    let mut model = Some(model);
    Box::new(move || model = model.take().map(&mut step))
}

fn step_of<M: Network>(recipe: &Recipe, model: M, batch: &DigitBatch) -> Step {
    let batch = batch.clone();
    let (mut optim, lr) = (recipe.optimizer(), recipe.learning_rate);
    again(model, move |model| {
        let output = TrainStep::step(&model, batch.clone());
        model.optimize(&mut optim, lr.into(), output.grads)
    })
}

/// The seconds of each step: they take turns of several, and a median of the turns is what counts.
pub fn medians(steps: &mut [Step], device: &Device) -> Vec<f64> {
    const ROUNDS: usize = 100;
    const TURN: usize = 5;
    let turn = |step: &mut Step| {
        device.sync().expect("the device works");
        let start = Instant::now();
        (0..TURN).for_each(|_| step());
        device.sync().expect("the device works");
        start.elapsed().as_secs_f64() / TURN as f64
    };
    let mut seconds = vec![Vec::with_capacity(ROUNDS); steps.len()];
    for _ in 0..ROUNDS {
        for (seconds, step) in seconds.iter_mut().zip(&mut *steps) {
            seconds.push(turn(step));
        }
    }
    let median = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    seconds.into_iter().map(median).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_not_done_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let outcome = |test_accuracy| Outcome {
            test_accuracy,
            chosen_test_accuracy: 0.5,
            accuracies: vec![0.5, test_accuracy],
            corrupted: Vec::new(),
            seconds: 1.0,
            flatness: None,
        };
        let done = Done::open(Some(file.path())).unwrap();
        for (job, accuracy) in [("one", 0.1), ("two", 0.2)] {
            let once = done.once(job.to_string(), || Ok(outcome(accuracy)));
            assert_eq!(once.unwrap(), outcome(accuracy));
        }
        // Killed while it wrote.
        let mut text = std::fs::read_to_string(file.path()).unwrap();
        text.truncate(text.len() - 5);
        std::fs::write(file.path(), text).unwrap();

        let done = Done::open(Some(file.path())).unwrap();
        let one = done.once("one".to_string(), || panic!("it is done"));
        assert_eq!(one.unwrap(), outcome(0.1));
        let two = done.once("two".to_string(), || Ok(outcome(0.3)));
        assert_eq!(two.unwrap(), outcome(0.3));
        let lines = std::fs::read_to_string(file.path())
            .unwrap()
            .lines()
            .count();
        assert_eq!(lines, 2);

        std::fs::write(file.path(), "something else\n").unwrap();
        assert!(Done::open(Some(file.path())).is_err());
    }
}
