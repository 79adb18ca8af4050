//! SAM beside what costs nothing: weight decay, label smoothing, an average of the weights, mixup, stopping early.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use digits::comparison::{Architecture, Done, Task};
use digits::data::{self, Noise};
use digits::recipe::{Base, RecipeOptions};
use digits::rivals::{ContestOptions, Rival};
use digits::verdicts::{Figures, picture, save, table};
use example_common::Method;
use example_common::options::{absolute, load, part};
use mimalloc::MiMalloc;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains networks on digits with wrong labels: the optimizer alone, with each of four remedies, with SAM, and with the
/// rule that sets rho by itself, alone and with each remedy. Prints the accuracy on clean images after the last epoch and
/// stopped early, and by how much the rule at one pass is ahead, seed by seed, with the interval of 95 %. Prints and draws
/// the rule's gain over the best rival, a line a task.
///
/// Each remedy has the best of five strengths, and SAM the best of five radii, on other seeds.
#[derive(Parser)]
struct Options {
    /// The networks, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mlp,conv")]
    network: Vec<Architecture>,
    /// The optimizers, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sgd")]
    base: Vec<Base>,
    /// Parts of the training labels that are wrong, 0 to 1, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "0.4", allow_negative_numbers = true, value_parser = part)]
    noise: Vec<f64>,
    /// What a wrong label is
    #[arg(long, value_enum, default_value = "random")]
    wrong: Wrong,
    /// The remedies, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Rival::ALL)]
    rivals: Vec<Rival>,
    /// The methods that remedies are also put under, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "auto,autotwopass"
    )]
    under: Vec<Method>,
    #[command(flatten)]
    recipe: RecipeOptions,
    #[command(flatten)]
    contest: ContestOptions,
    /// Print and draw the verdicts of such figures, of all these files, without training anything
    #[arg(long, value_name = "FILES", num_args = 1.., conflicts_with = "json")]
    load: Vec<PathBuf>,
    /// Where to draw the picture
    #[arg(long, value_name = "FILE.svg", default_value = "rivals.svg")]
    picture: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wrong {
    /// Any digit
    Random,
    /// The digit that the right one is likeliest taken for
    Confused,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let done = options.contest.open(Some(&options.picture))?;
    let mut all: Vec<Figures> = Vec::new();
    for file in &options.load {
        let loaded: Vec<Figures> = load(file)?;
        all.extend(loaded);
    }
    if options.load.is_empty() {
        all = hold(&options, &done)?;
    }
    save(&all, options.contest.json.as_deref())?;
    println!("{}", table(&all)?);
    picture(&all, &options.picture)?;
    println!("picture: {}", absolute(&options.picture));
    Ok(())
}

fn hold(options: &Options, done: &Done) -> anyhow::Result<Vec<Figures>> {
    let digits = data::digits()?;
    let device = options.contest.device()?;
    let mut all = Vec::new();
    for network in &options.network {
        for base in &options.base {
            for part in &options.noise {
                let noise = match options.wrong {
                    Wrong::Random => Noise::Random(*part),
                    Wrong::Confused => Noise::Confused(*part),
                };
                let recipe = network.recipe(*base, &options.recipe);
                let task = Task {
                    network: network.network(),
                    split: &|seed| data::split(digits.clone(), noise, seed),
                    recipe,
                    device: &device,
                    name: format!("{}, {noise}", network.name()),
                    corruptions: &[],
                    done,
                };
                let contest = (options.contest).contest(&task, &options.rivals, &options.under);
                let title = format!(
                    "{}, {}, {noise}, {}",
                    network.name(),
                    base.name(),
                    recipe.schedule.name()
                );
                all.push(contest.show(title)?);
            }
        }
    }
    Ok(all)
}
