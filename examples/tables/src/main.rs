//! SAM on tables, beside what people take instead.

mod data;
mod model;

use std::path::PathBuf;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use digits::comparison::{Task, Trainable};
use digits::model::seeded;
use digits::over_time::{self, Panel};
use digits::recipe::{Base, Recipe, Schedule};
use digits::rivals::{ContestOptions, Rival};
use digits::verdicts::{OVER_TIME, save};
use example_common::Method;
use example_common::options::absolute;
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
    #[command(flatten)]
    contest: ContestOptions,
    /// Where to draw the accuracy over time, of AdamW alone and the rule
    #[arg(long, value_name = "FILE.svg")]
    picture: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    Satellite,
    Diamonds,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let done = options.contest.open(options.picture.as_ref())?;
    let device = options.contest.device()?;
    let (mut all, mut seconds) = (Vec::new(), Vec::new());
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
        let under = [Method::Auto, Method::Autotwopass];
        let contest = options.contest.contest(&task, rivals, &under);
        let title = format!(
            "{title}, {}, {}",
            options.base.name(),
            options.schedule.name()
        );
        if options.picture.is_some() {
            let methods = OVER_TIME.map(|method| method.config(0.0, 0));
            seconds.push(task.step_seconds(&methods)?);
        }
        all.push(contest.show(title)?);
    }
    if let Some(file) = &options.picture {
        let both = all.iter().zip(&seconds);
        let panels: Vec<Panel> = both.map(|(figures, of)| figures.panel(of)).collect();
        over_time::picture(&panels, file)?;
        println!("over time: {}", absolute(file));
    }
    save(&all, options.contest.json.as_deref())
}
