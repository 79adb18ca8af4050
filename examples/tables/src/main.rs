//! SAM on tables, beside what people take instead.

mod data;
mod model;

use std::path::PathBuf;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use digits::comparison::{Done, TUNING_SEEDS, Task, Trainable};
use digits::model::seeded;
use digits::recipe::{Base, Recipe, Schedule};
use digits::rivals::{self, Contest, Rival};
use example_common::options::create;
use example_common::{Backend, Method};
use mimalloc::MiMalloc;

use crate::data::Table;
use crate::model::{Perceptron, Regression};

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains a perceptron on 2,000 rows of a table: AdamW alone, with what else people take, with SAM, and with the rule that
/// sets rho by itself.
///
/// Satellite is a classification into six kinds of ground; diamonds is a regression, of the logarithm of a price, whose
/// accuracy is R² in %. Labels and prices are as they are. Everything with a number to choose has the best of five on
/// other seeds.
#[derive(Parser)]
struct Options {
    /// The tables, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "satellite,diamonds"
    )]
    table: Vec<Name>,
    /// The optimizer
    #[arg(long, value_enum, default_value = "adamw")]
    base: Base,
    /// What becomes of the learning rate
    #[arg(long, value_enum, default_value = "constant")]
    schedule: Schedule,
    /// Number of passes over the rows
    #[arg(long, default_value = "40", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Number of seeds: each has its own initial weights, rows and shuffles
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=TUNING_SEEDS))]
    seeds: u64,
    /// Number of other seeds, on which strengths and radii are chosen
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..))]
    tuning_seeds: u64,
    /// Where to write the figures, as JSON; `digits --bin rivals -- --load` draws them
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to keep each training's figures, so that a run that was stopped goes on from there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    Satellite,
    Diamonds,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    create([options.json.as_ref()])?;
    let done = Done::open(options.resume.as_deref())?;
    let device = options.backend.device()?.autodiff();
    let mut all = Vec::new();
    for name in &options.table {
        let (title, table) = match name {
            Name::Satellite => ("satellite", Table::satellite()?),
            Name::Diamonds => ("diamonds", Table::diamonds()?),
        };
        let inputs = table.width();
        let classifier = |seed, device: &Device| {
            let new = |device: &Device| Perceptron::new(inputs, 6, device);
            Ok(seeded(new, seed, device))
        };
        let regression = Regression { inputs };
        let (network, rivals): (&dyn Trainable, &[Rival]) = match name {
            Name::Satellite => (&classifier, &Rival::ALL),
            // Of the others, some are for classes, and the Learner is where the rest is.
            Name::Diamonds => (&regression, &[Rival::Decay]),
        };
        let recipe = Recipe {
            schedule: options.schedule,
            ..Recipe::new(options.base, options.epochs as usize)
        };
        let task = Task {
            network,
            split: &|seed| table.split(seed),
            recipe,
            device: &device,
            name: title.to_string(),
            corruptions: &[],
            done: &done,
        };
        let contest = Contest {
            task: &task,
            seeds: options.seeds,
            tuning_seeds: options.tuning_seeds,
            rivals,
            under: &[Method::Auto, Method::Autotwopass],
        };
        let title = format!(
            "{title}, {}, {}",
            options.base.name(),
            options.schedule.name()
        );
        all.push(contest.show(title)?);
    }
    rivals::save(&all, options.json.as_deref())
}
