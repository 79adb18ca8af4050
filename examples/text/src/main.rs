//! SAM on a transformer that reads texts, beside label smoothing.

mod data;
mod model;

use std::path::PathBuf;

use anyhow::ensure;
use burn::tensor::Device;
use clap::Parser;
use digits::comparison::Task;
use digits::model::seeded;
use digits::recipe::{Base, Recipe, Schedule};
use digits::rivals::{ContestOptions, Rival};
use digits::verdicts::save;
use example_common::Method;
use example_common::options::part;
use mimalloc::MiMalloc;

use crate::data::Texts;
use crate::model::Reader;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains a small transformer on a thousand texts to tell their kind, with AdamW, warm-up and a cosine: alone, with label
/// smoothing, with SAM, and with the rule that sets rho by itself.
///
/// The texts are Debian's `fortunes` (`apt-get install fortunes`, or any folder with a file for each kind and texts parted
/// by lines of `%`), or AG News, from a folder with its train.csv and test.csv. Label smoothing has the best of five
/// strengths on other seeds, and SAM the best of five radii.
#[derive(Parser)]
struct Options {
    /// The folder
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "/usr/share/games/fortunes"
    )]
    data: PathBuf,
    /// The kinds, by the names of their files, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "art,computers,definitions,men-women,people,politics,science,songs-poems,wisdom,work"
    )]
    kinds: Vec<String>,
    /// Texts to train on; a fifth as many more are for validation
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(50..))]
    texts: u32,
    /// Parts of the labels that are replaced by random ones, 0 to 1, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "0,0.2", allow_negative_numbers = true, value_parser = part)]
    noise: Vec<f64>,
    /// Number of passes over the texts
    #[arg(long, default_value = "15", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    #[command(flatten)]
    contest: ContestOptions,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let done = options.contest.open(None)?;
    let device = options.contest.device()?;
    let texts = Texts::read(&options.data, &options.kinds)?;
    let count = options.texts as usize;
    ensure!(
        count + count / 5 + 100 <= texts.len(),
        "{} texts are too few for {count} to train on, a fifth more to validate on and 100 to test on",
        texts.len()
    );
    let kinds = texts.kinds.len();
    let mut all = Vec::new();
    for noise in options.noise {
        let network = |seed, device: &Device| {
            let new = |device: &Device| Reader::new(kinds, device);
            Ok(seeded(new, seed, device))
        };
        let task = Task {
            network: &network,
            split: &|seed| texts.split(count, noise, seed),
            recipe: Recipe {
                learning_rate: 0.001,
                schedule: Schedule::Warmup,
                ..Recipe::new(Base::Adamw, options.epochs as usize)
            },
            device: &device,
            name: format!("{kinds} kinds of text, {count} of them, noise {noise}"),
            corruptions: &[],
            done: &done,
        };
        let rivals = [Rival::Smoothing];
        let contest = (options.contest).contest(&task, &rivals, &[Method::Auto]);
        let title = format!(
            "{kinds} kinds of text, AdamW, {:.0} % wrong labels, warm-up and cosine",
            100.0 * noise
        );
        all.push(contest.show(title)?);
    }
    save(&all, options.contest.json.as_deref())
}
