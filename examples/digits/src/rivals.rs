//! What people take against wrong labels before they take SAM: beside it, and under it.

use std::path::PathBuf;

use burn::tensor::Device;
use example_common::options::{create, progress_bar};
use example_common::{Backend, Method};
use indicatif::ProgressBar;

use crate::comparison::{Done, Look, TUNING_SEEDS, Task};
use crate::recipe::{Base, Recipe};
use crate::verdicts::{Figures, Row};

/// A remedy, with one number to choose.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Rival {
    /// [`Recipe::weight_decay`]
    Decay,
    /// [`Recipe::smoothing`]
    Smoothing,
    /// [`Recipe::average`]
    Average,
    /// [`Recipe::mixup`]
    Mixup,
}

impl Rival {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Decay, Self::Smoothing, Self::Average, Self::Mixup];

    /// Those to choose from: as many as there are of [`RADII`].
    pub fn strengths(self, base: Base) -> [f64; 5] {
        match (self, base) {
            (Self::Decay, Base::Sgd) => [0.001, 0.003, 0.01, 0.02, 0.03],
            // Beside the gradient, and so times the learning rate alone: about as much a step as SGD's.
            (Self::Decay, Base::Adamw) => [0.3, 1.0, 3.0, 6.0, 9.0],
            (Self::Smoothing, _) => [0.1, 0.2, 0.5, 0.8, 0.9],
            (Self::Average, _) => [0.9, 0.97, 0.99, 0.997, 0.999],
            // Its authors' for wrong labels are 1 to 32.
            (Self::Mixup, _) => [0.2, 1.0, 2.0, 8.0, 32.0],
        }
    }

    /// A recipe with it.
    pub fn on(self, recipe: Recipe, strength: f64) -> Recipe {
        match self {
            Self::Decay => Recipe {
                weight_decay: Some(strength as f32),
                ..recipe
            },
            Self::Smoothing => Recipe {
                smoothing: strength as f32,
                ..recipe
            },
            Self::Average => Recipe {
                average: Some(strength),
                ..recipe
            },
            Self::Mixup => Recipe {
                mixup: Some(strength),
                ..recipe
            },
        }
    }

    /// For readers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decay => "weight decay",
            Self::Smoothing => "label smoothing",
            Self::Average => "average of the weights",
            Self::Mixup => "mixup",
        }
    }
}

/// The radii of SAM here.
pub const RADII: [f64; 5] = [0.1, 0.2, 0.42, 0.85, 1.7];

/// What is compared: the optimizer, or a method around it, with a remedy or without.
#[derive(Clone, Copy)]
struct Contender {
    method: Method,
    rival: Option<Rival>,
}

/// What the programs that hold contests may be told of all of them.
#[derive(clap::Args)]
pub struct ContestOptions {
    /// Number of seeds: each has its own initial weights, data, wrong labels and shuffles
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=TUNING_SEEDS))]
    pub seeds: u64,
    /// Number of other seeds, on which strengths and radii are chosen
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..))]
    pub tuning_seeds: u64,
    /// Where to write the figures, as JSON; `digits --bin rivals -- --load` draws them
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Where to keep each training's figures, so that a run that was stopped goes on from there
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    pub backend: Backend,
}

impl ContestOptions {
    /// Creates what is to be written in the end, with a picture, and opens what is done already.
    ///
    /// # Errors
    ///
    /// If a file cannot be written or read.
    pub fn open(&self, picture: Option<&PathBuf>) -> anyhow::Result<Done> {
        create([self.json.as_ref(), picture])?;
        Done::open(self.resume.as_deref())
    }

    /// With autodiff.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn device(&self) -> anyhow::Result<Device> {
        Ok(self.backend.device()?.autodiff())
    }

    /// A contest over these seeds.
    pub fn contest<'a>(
        &self,
        task: &'a Task<'a>,
        rivals: &'a [Rival],
        under: &'a [Method],
    ) -> Contest<'a> {
        Contest {
            task,
            seeds: self.seeds,
            tuning_seeds: self.tuning_seeds,
            rivals,
            under,
        }
    }
}

/// How rivals are compared.
pub struct Contest<'a> {
    /// The task, with a recipe that has no remedy.
    pub task: &'a Task<'a>,
    /// Those that are reported, from 0 on.
    pub seeds: u64,
    /// Those that settings are chosen on.
    pub tuning_seeds: u64,
    /// The remedies that the task can be given.
    pub rivals: &'a [Rival],
    /// The methods that remedies are also put under, each with a strength of its own.
    pub under: &'a [Method],
}

impl Contest<'_> {
    fn contenders(&self) -> Vec<Contender> {
        let alone = |method| Contender {
            method,
            rival: None,
        };
        let with_each = |method| {
            self.rivals.iter().map(move |rival| Contender {
                method,
                rival: Some(*rival),
            })
        };
        let mut contenders = vec![alone(Method::Sgd)];
        contenders.extend(with_each(Method::Sgd));
        contenders.push(alone(Method::Sam));
        for method in [Method::Auto, Method::Autotwopass] {
            contenders.push(alone(method));
            if self.under.contains(&method) {
                contenders.extend(with_each(method));
            }
        }
        contenders
    }

    /// The settings that a contender has to choose from.
    fn settings(&self, contender: Contender) -> Vec<f64> {
        match contender.rival {
            Some(rival) => rival.strengths(self.task.recipe.base).to_vec(),
            None if contender.method.has_a_radius() => RADII.to_vec(),
            None => Vec::new(),
        }
    }

    /// How many trainings there are.
    pub fn trainings(&self) -> u64 {
        let of = |contender| self.seeds + self.tuning_seeds * self.settings(contender).len() as u64;
        self.contenders().into_iter().map(of).sum()
    }

    /// Trains them all, each with the best of its settings on the tuning seeds.
    ///
    /// # Errors
    ///
    /// If a training fails.
    pub fn hold(&self, title: String, bar: &ProgressBar) -> anyhow::Result<Figures> {
        let task = self.task;
        let mut rows = Vec::new();
        for contender in self.contenders() {
            let Contender { method, rival } = contender;
            let name = match (method, rival) {
                (method, None) => task.method_name(method).to_string(),
                (Method::Sgd, Some(rival)) => rival.name().to_string(),
                (method, Some(rival)) => format!("{}, {}", method.name(), rival.name()),
            };
            bar.set_message(name.clone());
            let with = |setting: f64| {
                let recipe = rival.map_or(task.recipe, |rival| rival.on(task.recipe, setting));
                (recipe, method.config(setting, task.first_twelfth()))
            };
            let settings = self.settings(contender);
            let setting = match settings.is_empty() {
                true => None,
                false => Some(task.tune(&settings, self.tuning_seeds, with, bar)?),
            };
            let (recipe, sam) = with(setting.unwrap_or_default());
            let jobs = task.jobs_of(0..self.seeds, recipe, sam.as_ref());
            rows.push(Row {
                method,
                rival,
                name,
                setting,
                outcomes: task.run(&jobs, Look::Epochs, bar)?,
            });
        }
        Ok(Figures { title, rows })
    }

    /// As [`hold`](Self::hold), with a bar, and prints the table.
    ///
    /// # Errors
    ///
    /// If a training fails.
    pub fn show(&self, title: String) -> anyhow::Result<Figures> {
        let bar = progress_bar("trainings", self.trainings());
        let figures = self.hold(title, &bar)?;
        bar.finish_and_clear();
        println!("{}", figures.table());
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::Architecture;
    use crate::data::{digits, split};

    #[test]
    fn every_remedy_is_trained_with_its_best_strength_on_the_tuning_seeds() {
        let (device, done) = (Device::flex().autodiff(), Done::default());
        let digits = digits().unwrap();
        for base in [Base::Sgd, Base::Adamw] {
            let task = Task {
                network: Architecture::Mlp.network(),
                split: &|seed| split(digits.clone(), 0.4, seed),
                recipe: Recipe::new(base, 1),
                device: &device,
                name: String::new(),
                corruptions: &[],
                done: &done,
            };
            let contest = Contest {
                task: &task,
                seeds: 1,
                tuning_seeds: 1,
                rivals: &Rival::ALL,
                under: &[Method::Auto],
            };
            let bar = ProgressBar::hidden();
            let figures = contest.hold("short".to_string(), &bar).unwrap();
            assert_eq!(bar.position(), contest.trainings());
            // Alone, with each, SAM, and the rule at one pass with each, at two alone.
            assert_eq!(figures.rows.len(), 1 + 4 + 1 + 1 + 4 + 1);
            for row in &figures.rows {
                if let Some(rival) = row.rival {
                    assert!(rival.strengths(base).contains(&row.setting.unwrap()));
                }
                assert_eq!(row.outcomes.len(), 1);
            }
            let accuracy = |row: &Row| row.outcomes[0].test_accuracy;
            let [alone, rest @ ..] = &figures.rows[..] else {
                unreachable!()
            };
            for row in rest {
                assert_ne!(accuracy(row), accuracy(alone), "{}", row.name);
            }
        }
    }
}
