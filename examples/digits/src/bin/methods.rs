//! Every method beside the others: what it gains and what a step costs. The README's table and picture.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use digits::comparison::{
    Architecture, DEAD, Done, Look, Outcome, RADII, TUNING_SEEDS, Task, colour, percents,
};
use digits::data;
use digits::recipe::{Base, Recipe, RecipeOptions};
use digits::training::mean_and_deviation;
use example_common::options::{absolute, create, load, part, progress_bar};
use example_common::{Backend, Method};
use mimalloc::MiMalloc;
use plotters::prelude::*;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains networks on digits with each method, and prints the accuracy on clean images, the time of a
/// step over SGD's, the part of SAM's gain that is kept, and how many seeds failed (below 20 %, where
/// guessing is 10 %). Draws accuracy over time.
///
/// Each method that has a radius has the one that is best of nine on ten seeds of their own; its other settings are
/// its authors' or this library's defaults. A step's time is a median over steps that the methods take in
/// turn, before the trainings: do not use the machine for anything else until the first bar appears.
#[derive(Parser)]
struct Options {
    /// The network; both, if not given
    #[arg(long, value_enum)]
    network: Option<Architecture>,
    /// The methods, separated by commas; SGD and SAM are always there
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Method::value_variants().to_vec())]
    methods: Vec<Method>,
    /// Part of the training labels that are replaced by random ones, 0 to 1
    #[arg(long, default_value = "0.4", allow_negative_numbers = true, value_parser = part)]
    noise: f64,
    /// Number of seeds: each has its own initial weights, images, wrong labels and shuffles
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=TUNING_SEEDS))]
    seeds: u64,
    /// The optimizer
    #[arg(long, value_enum, default_value = "sgd")]
    base: Base,
    #[command(flatten)]
    recipe: RecipeOptions,
    /// Images a step
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Where to write the figures, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the picture of such figures, without training anything
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    load: Option<PathBuf>,
    /// Where to draw the picture
    #[arg(long, value_name = "FILE.svg", default_value = "methods.svg")]
    picture: PathBuf,
    /// Where to keep each training's figures, so that a run that was stopped goes on from there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

const SEEDS_FOR_RADII: u64 = 10;

#[derive(serde::Serialize, serde::Deserialize)]
struct Row {
    network: Architecture,
    method: Method,
    rho: Option<f64>,
    /// From 0 to 1, as its deviation.
    test_accuracy: f64,
    deviation: f64,
    /// At the epoch that the validation images choose, as mean and deviation in percent.
    #[serde(default)]
    stopped_early: String,
    time_over_sgd: f64,
    passes: f64,
    failed_seeds: usize,
    seeds: u64,
}

/// What `--json` writes.
#[derive(serde::Serialize, serde::Deserialize)]
struct Figures {
    rows: Vec<Row>,
}

/// About as wide as a name is drawn, in pixels.
fn text_width(name: &str) -> i32 {
    7 * name.len() as i32
}

/// For each point, where its name goes: the nearest place, to the right or the left of it, that neither a
/// point nor another name has taken and that is not beyond the left or the upper edge. All in pixels.
fn place(points: &[(f64, f64)], names: &[String], edges: (f64, f64)) -> Vec<(i32, i32)> {
    // Left, right, and middle height.
    let mut taken: Vec<(f64, f64, f64)> =
        points.iter().map(|(x, y)| (x - 6.0, x + 6.0, *y)).collect();
    let mut places = Vec::new();
    for ((x, y), name) in points.iter().zip(names) {
        let width = text_width(name);
        let heights = (0..40i32).flat_map(|step| [6 * step, -6 * step]);
        let offsets =
            heights.flat_map(|dy| [(9 + dy.abs() / 3, dy), (-9 - width - dy.abs() / 3, dy)]);
        let boxed = |(dx, dy): (i32, i32)| {
            let left = x + f64::from(dx);
            (left, left + f64::from(width), y + f64::from(dy))
        };
        let is_free = |offset: &(i32, i32)| {
            let (left, right, middle) = boxed(*offset);
            let apart = |other: &(f64, f64, f64)| {
                left > other.1 || right < other.0 || (middle - other.2).abs() > 11.0
            };
            left > edges.0 && middle > edges.1 + 8.0 && taken.iter().all(apart)
        };
        let offset = offsets.clone().find(is_free).unwrap_or((9, 0));
        taken.push(boxed(offset));
        places.push(offset);
    }
    places
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    create([options.json.as_ref(), Some(&options.picture)])?;
    if let Some(file) = &options.load {
        let Figures { rows } = load(file)?;
        return picture(&rows, &options.picture);
    }
    let digits = data::digits()?;
    let done = Done::open(options.resume.as_deref())?;
    let split = |seed| data::split(digits.clone(), options.noise, seed);
    let networks = match options.network {
        Some(network) => vec![network],
        None => vec![Architecture::Mlp, Architecture::Conv],
    };
    let device = options.backend.device()?.autodiff();
    let methods: Vec<Method> = (Method::value_variants().iter().copied())
        .filter(|method| {
            matches!(method, Method::Sgd | Method::Sam) || options.methods.contains(method)
        })
        .collect();
    let tasks = networks.into_iter().map(|architecture| {
        let task = Task {
            network: architecture.network(),
            split: &split,
            recipe: Recipe {
                batch_size: options.batch_size as usize,
                ..architecture.recipe(options.base, &options.recipe)
            },
            device: &device,
            name: format!("{}, noise {}", architecture.name(), options.noise),
            corruptions: &[],
            done: &done,
        };
        (architecture, task)
    });
    // All times before any training, while the machine is quiet.
    let tasks: Vec<(Architecture, Task, Vec<f64>)> = tasks
        .map(|(network, task)| {
            let steps = task.first_twelfth();
            let timed = methods.iter().map(|method| method.config(0.1, steps));
            let seconds = task.step_seconds(&timed.collect::<Vec<_>>())?;
            Ok((network, task, seconds))
        })
        .collect::<anyhow::Result<_>>()?;

    let mut rows = Vec::new();
    for (network, task, seconds) in tasks {
        let of_network = compare(network, &task, &methods, &seconds, options.seeds)?;
        println!("{}", table(&of_network, network, &task.recipe, &options));
        rows.extend(of_network);
    }
    picture(&rows, &options.picture)?;
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&Figures { rows })?)?;
        println!("figures: {}", absolute(file));
    }
    println!("picture: {}", absolute(&options.picture));
    Ok(())
}

fn compare(
    network: Architecture,
    task: &Task,
    methods: &[Method],
    seconds: &[f64],
    seeds: u64,
) -> anyhow::Result<Vec<Row>> {
    let of_method = seeds + SEEDS_FOR_RADII * RADII.len() as u64;
    let tuned = methods
        .iter()
        .filter(|method| method.has_a_radius())
        .count() as u64;
    let trainings = (methods.len() as u64 - tuned) * seeds + tuned * of_method;
    let bar = progress_bar("trainings", trainings);
    let steps = task.first_twelfth();
    let mut rows = Vec::new();
    for (&method, step_seconds) in methods.iter().zip(seconds) {
        bar.set_message(method.name());
        let rho = task.tune_method(method, &RADII, SEEDS_FOR_RADII, &bar)?;
        let sam = method.config(rho.unwrap_or_default(), steps);
        let jobs = task.jobs(0..seeds, sam.as_ref());
        let outcomes: Vec<Outcome> = task.run(&jobs, Look::Epochs, &bar)?;
        let accuracies: Vec<f64> = outcomes.iter().map(|o| o.test_accuracy).collect();
        let (test_accuracy, deviation) = mean_and_deviation(&accuracies);
        rows.push(Row {
            network,
            method,
            rho,
            test_accuracy,
            deviation,
            stopped_early: percents(outcomes.iter().map(|o| o.chosen_test_accuracy)),
            time_over_sgd: step_seconds / seconds[0],
            passes: method.passes(),
            failed_seeds: accuracies.iter().filter(|a| **a < DEAD).count(),
            seeds,
        });
    }
    bar.finish_and_clear();
    Ok(rows)
}

fn table(rows: &[Row], network: Architecture, recipe: &Recipe, options: &Options) -> String {
    let mut table = format!(
        "{network:?}, {:.0} % noisy labels, batches of {}, {} epochs, {}, {} seeds\n\n",
        100.0 * options.noise,
        recipe.batch_size,
        recipe.epochs,
        recipe.schedule.name(),
        options.seeds
    );
    table += "| method | rho | test accuracy, % | stopped early | passes | time of a step | part of SAM's gain | failed |\n";
    table += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let [sgd, sam] = [&rows[0], &rows[1]];
    let gain = sam.test_accuracy - sgd.test_accuracy;
    let standard_error = sgd.deviation.hypot(sam.deviation) / (options.seeds as f64).sqrt();
    for row in rows {
        table += &format!(
            "| {} | {} | {:.1} ± {:.1} | {} | {} | {:.2} | {} | {} |\n",
            row.method.name(),
            row.rho.map_or(String::new(), |rho| format!("{rho:.2}")),
            100.0 * row.test_accuracy,
            100.0 * row.deviation,
            row.stopped_early,
            row.passes,
            row.time_over_sgd,
            match gain > standard_error {
                true => format!("{:.2}", (row.test_accuracy - sgd.test_accuracy) / gain),
                false => "-".to_string(),
            },
            match row.failed_seeds {
                0 => String::new(),
                failed => format!("{failed} of {}", row.seeds),
            },
        );
    }
    table
}

/// A panel for each network: the accuracy of each method, with the deviation of its seeds, over the time
/// of a step.
fn picture(rows: &[Row], file: &Path) -> anyhow::Result<()> {
    const FONT: &str = "sans-serif";
    let networks: Vec<Architecture> = [Architecture::Mlp, Architecture::Conv]
        .into_iter()
        .filter(|network| rows.iter().any(|row| row.network == *network))
        .collect();
    let canvas = SVGBackend::new(file, (560 * networks.len() as u32, 460)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let panels = canvas.split_evenly((1, networks.len()));
    for (panel, network) in panels.iter().zip(networks) {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.network == network).collect();
        let percents =
            |row: &Row| [-1.0, 1.0].map(|s| 100.0 * (row.test_accuracy + s * row.deviation));
        let lowest = rows
            .iter()
            .map(|row| percents(row)[0])
            .fold(100.0, f64::min);
        let slowest = rows.iter().map(|row| row.time_over_sgd).fold(1.0, f64::max);
        let floor = (lowest / 10.0).floor() * 10.0;
        let mut chart = ChartBuilder::on(panel)
            .caption(network.name(), (FONT, 20))
            .margin(15)
            .x_label_area_size(45)
            .y_label_area_size(55)
            .build_cartesian_2d(0.8..slowest + 0.6, floor..100.0)?;
        chart
            .configure_mesh()
            .x_desc("time of a step over SGD's")
            .y_desc("test accuracy, %")
            .x_label_formatter(&|time| format!("{time:.1}"))
            .y_label_formatter(&|accuracy| format!("{accuracy:.0}"))
            .axis_desc_style((FONT, 16))
            .label_style((FONT, 14))
            .light_line_style(WHITE)
            .draw()?;
        for row in &rows {
            let colour = colour(row.method);
            let [low, high] = percents(row).map(|percent| percent.clamp(floor, 100.0));
            let (x, y) = (row.time_over_sgd, 100.0 * row.test_accuracy);
            let style = colour.stroke_width(2);
            chart.draw_series([PathElement::new([(x, low), (x, high)], style)])?;
            chart.draw_series([Circle::new((x, y), 5, colour.filled())])?;
        }
        // The names last, so that no line crosses them.
        let (width, height) = chart.plotting_area().dim_in_pixel();
        let scale = (
            f64::from(width) / (slowest + 0.6 - 0.8),
            f64::from(height) / (100.0 - floor),
        );
        let points: Vec<(f64, f64)> = (rows.iter())
            .map(|row| (row.time_over_sgd, 100.0 * row.test_accuracy))
            .collect();
        let names: Vec<String> = (rows.iter())
            .map(|row| row.method.name())
            .map(|name| name.strip_prefix("SAM, ").unwrap_or(name).to_string())
            .collect();
        let pixels = points.iter().map(|(x, y)| (x * scale.0, -y * scale.1));
        let edges = (0.8 * scale.0, -100.0 * scale.1);
        let offsets = place(&pixels.collect::<Vec<_>>(), &names, edges);
        for ((row, point), (name, (dx, dy))) in
            rows.iter().zip(points).zip(names.iter().zip(offsets))
        {
            let colour = colour(row.method);
            let style = (FONT, 13).into_font().color(&colour);
            let mark = EmptyElement::at(point) + Text::new(name.clone(), (dx, dy - 6), style);
            chart.draw_series([mark])?;
            if dy.abs() > 10 {
                let end = if dx > 0 {
                    dx - 2
                } else {
                    dx + text_width(name) + 2
                };
                let line = EmptyElement::at(point)
                    + PathElement::new([(0, 0), (end, dy)], colour.stroke_width(1));
                chart.draw_series([line])?;
            }
        }
    }
    canvas.present()?;
    Ok(())
}
