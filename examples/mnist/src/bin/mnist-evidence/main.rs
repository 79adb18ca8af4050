//! What SAM's methods gain on MNIST over a baseline that is stopped in time. docs/mnist.md has the tables.

mod picture;
mod pretrained;

use std::path::PathBuf;

use anyhow::ensure;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use clap::Parser;
use digits::comparison::{
    COLUMNS, Done, Look, Outcome, SHARPNESS_RHO, TUNING_SEEDS, Task, Trainable, columns, last,
    over, percents, stopped_early,
};
use digits::data::{Digit, Split};
use digits::model::seeded;
use digits::over_time::{self, Line, Panel};
use digits::recipe::{Base, Recipe, Schedule, smoothing};
use digits::rivals::{Contest, Rival};
use digits::verdicts::save;
use example_common::options::{absolute, create, load, part, progress_bar};
use example_common::{Backend, Method};
use mimalloc::MiMalloc;
use mnist::corruptions;
use mnist::data::{self, Mnist, MnistItem, SIDE};
use mnist::model::Net;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::pretrained::Pretrained;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains the network of this example on a part of MNIST with SGD or AdamW, and with SAM's methods around it, and prints the
/// accuracy on clean images after the last epoch and at the epoch that validation images choose, whose labels are as
/// noisy as the training's; how flat the loss on the training images is; and the time of a step over the base's.
///
/// Each method that has a radius has the one that is best of five on as many seeds of their own.
/// A step's time is a median over steps that the methods take in turn, before the trainings.
#[derive(Parser)]
struct Options {
    /// A folder with MNIST's four files, gzipped or not; without it Burn downloads them, with the feature download
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Images to train on; a fifth as many more are for validation
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u32).range(100..=50_000))]
    images: u32,
    /// Part of the labels that are replaced by random ones, 0 to 1
    #[arg(long, default_value = "0.4", allow_negative_numbers = true, value_parser = part)]
    noise: f64,
    /// Adapt a network that was trained on digits 0 to 4 to digits 5 to 9, with LoRA, in place of training one anew
    #[arg(long)]
    lora: bool,
    /// The optimizer
    #[arg(long, value_enum, default_value = "sgd")]
    base: Base,
    /// The methods, separated by commas; the base alone is always there
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "sam,msam,looksam,asam,both,auto,autotwopass"
    )]
    methods: Vec<Method>,
    /// Number of passes over the training images
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// What becomes of the learning rate
    #[arg(long, value_enum, default_value = "constant")]
    schedule: Schedule,
    /// Label smoothing, 0 to below 1
    #[arg(long, default_value = "0", allow_negative_numbers = true, value_parser = smoothing)]
    smoothing: f32,
    /// Beside weight decay, label smoothing, an average of the weights and mixup, each with the best of five strengths, in
    /// the place of SAM's other methods; `digits --bin rivals -- --load` draws the figures
    #[arg(long)]
    rivals: bool,
    /// Number of seeds: each has its own initial weights, images, wrong labels and shuffles
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..=TUNING_SEEDS))]
    seeds: u64,
    /// Where to write the figures, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the picture of such figures, a panel a file, without training anything
    #[arg(long, value_name = "FILES", num_args = 1.., conflicts_with = "json")]
    load: Vec<PathBuf>,
    /// Where to draw the picture
    #[arg(long, value_name = "FILE.svg", default_value = "mnist-evidence.svg")]
    picture: PathBuf,
    /// Where to draw the accuracy over time, of the same figures
    #[arg(long, value_name = "FILE.svg")]
    over_time: Option<PathBuf>,
    /// Where to keep each training's figures, so that a run that was stopped goes on from there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

const RADII: [f64; 5] = [0.05, 0.1, 0.2, 0.4, 0.8];
/// Drawn from the 10,000 by each seed.
const TEST_IMAGES: usize = 2000;

/// What `--json` writes.
#[derive(serde::Serialize, serde::Deserialize)]
struct Figures {
    title: String,
    rows: Vec<Row>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Row {
    method: Method,
    /// For readers.
    name: String,
    rho: Option<f64>,
    time_over_base: f64,
    outcomes: Vec<Outcome>,
}

/// With LoRA, the first of the digits that the network has not seen.
const FIRST_NEW: u8 = 5;

/// The network, for images in a row.
#[derive(Module, Debug)]
struct Flat {
    net: Net,
}

impl Flat {
    fn new(device: &Device) -> Self {
        Self {
            net: Net::new(device),
        }
    }

    fn forward(&self, images: Tensor<2>) -> Tensor<2> {
        let [count, _] = images.dims();
        self.net.forward(images.reshape([count, SIDE, SIDE]))
    }
}

digits::classifies!(Flat);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    create([
        options.json.as_ref(),
        Some(&options.picture),
        options.over_time.as_ref(),
    ])?;
    if !options.load.is_empty() {
        let figures = options.load.iter().map(|file| load(file));
        return pictures(&figures.collect::<Result<Vec<_>, _>>()?, &options);
    }
    let device = options.backend.device()?.autodiff();
    let done = Done::open(options.resume.as_deref())?;
    let Mnist { train, test } = data::load(options.data.as_deref())?;
    // With LoRA, 5 to 9.
    let lowest = if options.lora { FIRST_NEW } else { 0 };
    let images = |items: &[MnistItem]| digits(items.iter().filter(|item| item.label >= lowest));
    let [new, test] = [images(&train), images(&test)];
    let count = options.images as usize;
    ensure!(
        count + count / 5 <= new.len() && TEST_IMAGES <= test.len(),
        "{} training and {} test images are too few",
        new.len(),
        test.len()
    );
    let split = |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut train = draw(&new, count + count / 5, &mut rng);
        let valid = train.split_off(count);
        let test = draw(&test, TEST_IMAGES, &mut rng);
        Split { train, valid, test }.with_noise(options.noise.into(), &mut rng)
    };

    let known = (train.iter()).filter(|item| options.lora && item.label < FIRST_NEW);
    let pretrained = Pretrained::on(digits(known));
    let anew = |seed, device: &Device| Ok(seeded(Flat::new, seed, device));
    let adapted = |seed, device: &Device| pretrained.adapted(seed, device);
    let network: &dyn Trainable = if options.lora { &adapted } else { &anew };
    let lora = if options.lora { "LoRA, " } else { "" };
    let title = format!(
        "{lora}{count} images, {:.0} % wrong labels, {}",
        100.0 * options.noise,
        options.base.name()
    );
    let task = Task {
        network,
        split: &split,
        recipe: Recipe {
            schedule: options.schedule,
            smoothing: options.smoothing,
            ..Recipe::new(options.base, options.epochs as usize)
        },
        device: &device,
        name: format!("mnist, {lora}{count} images, noise {}", options.noise),
        corruptions: &corruptions::ALL,
        done: &done,
    };
    if options.rivals {
        let contest = Contest {
            task: &task,
            seeds: options.seeds,
            tuning_seeds: options.seeds,
            rivals: &Rival::ALL,
            under: &[Method::Auto, Method::Autotwopass],
        };
        let figures = contest.show(format!("MNIST, {title}, {}", options.schedule.name()))?;
        return save(&[figures], options.json.as_deref());
    }
    let mut methods = vec![Method::Sgd];
    methods.extend(
        options
            .methods
            .iter()
            .filter(|method| **method != Method::Sgd),
    );
    let steps = task.first_twelfth();
    let config = |method: Method, rho: f64| method.config(rho, steps);
    let timed: Vec<_> = methods.iter().map(|method| config(*method, 0.05)).collect();
    let seconds = task.step_seconds(&timed)?;

    let tuned = methods
        .iter()
        .filter(|method| method.has_a_radius())
        .count();
    let trainings = methods.len() + tuned * RADII.len();
    let bar = progress_bar("trainings", options.seeds * trainings as u64);
    let mut rows = Vec::new();
    for (method, step_seconds) in methods.into_iter().zip(&seconds) {
        bar.set_message(method.name());
        let rho = task.tune_method(method, &RADII, options.seeds, &bar)?;
        let jobs = task.jobs(
            0..options.seeds,
            config(method, rho.unwrap_or_default()).as_ref(),
        );
        rows.push(Row {
            method,
            name: task.method_name(method).to_string(),
            rho,
            time_over_base: step_seconds / seconds[0],
            outcomes: task.run(&jobs, Look::Flatness, &bar)?,
        });
        bar.suspend(|| eprintln!("{}", line(&rows[rows.len() - 1], &rows[0])));
    }
    bar.finish_and_clear();

    println!(
        "{title}, {} epochs, {} seeds; the sharpness is at rho {SHARPNESS_RHO}\n",
        options.epochs, options.seeds
    );
    println!(
        "| method | rho | {COLUMNS} | over the optimizer | both stopped early | time of a step |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for row in &rows {
        println!("{}", line(row, &rows[0]));
    }
    println!("\nWith test images as none of those trained on:\n");
    let names = corruptions::ALL.map(|corruption| corruption.name);
    println!("| method | {} |", names.join(" | "));
    println!("| --- |{}", " --- |".repeat(names.len()));
    for row in &rows {
        let of = |index: usize| percents(row.outcomes.iter().map(|o| o.corrupted[index]));
        let columns: Vec<String> = (0..names.len()).map(of).collect();
        println!("| {} | {} |", row.name, columns.join(" | "));
    }
    let figures = Figures { title, rows };
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&figures)?)?;
    }
    pictures(&[figures], &options)
}

fn pictures(figures: &[Figures], options: &Options) -> anyhow::Result<()> {
    picture::draw(figures, &options.picture)?;
    println!("\npicture: {}", absolute(&options.picture));
    if let Some(file) = &options.over_time {
        over_time::picture(
            &figures.iter().map(Figures::panel).collect::<Vec<_>>(),
            file,
        )?;
        println!("over time: {}", absolute(file));
    }
    Ok(())
}

impl Figures {
    fn panel(&self) -> Panel<'_> {
        fn line(row: &Row) -> Line<'_> {
            Line {
                method: row.method,
                name: &row.name,
                time: row.time_over_base,
                outcomes: &row.outcomes,
            }
        }

        Panel {
            title: &self.title,
            lines: self.rows.iter().map(line).collect(),
        }
    }
}

fn digits<'a>(items: impl Iterator<Item = &'a MnistItem>) -> Vec<Digit> {
    items
        .map(|item| Digit::new(data::normalized(item), usize::from(item.label)))
        .collect()
}

/// So many of them.
fn draw(digits: &[Digit], count: usize, rng: &mut StdRng) -> Vec<Digit> {
    let mut digits = digits.to_vec();
    digits.partial_shuffle(rng, count).0.to_vec()
}

/// Of a method, and how far it is ahead of the optimizer alone.
fn line(row: &Row, alone: &Row) -> String {
    let ahead = |of: fn(&[Outcome]) -> Vec<f64>| over(&of(&row.outcomes), &of(&alone.outcomes));
    format!(
        "| {} | {} | {} | {} | {} | {:.2} |",
        row.name,
        row.rho.map_or(String::new(), |rho| format!("{rho:.2}")),
        columns(&row.outcomes),
        ahead(last),
        ahead(stopped_early),
        row.time_over_base,
    )
}
