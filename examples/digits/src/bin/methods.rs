//! Every method beside the others: what it gains and what a step costs. The README's table and picture.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use digits::comparison::{
    Architecture, DEAD, Done, Look, Outcome, RADII, TUNING_SEEDS, Task, colour, last, over,
    percents, stopped_early,
};
use digits::data;
use digits::recipe::{Base, Recipe, RecipeOptions};
use digits::training::mean_and_deviation;
use example_common::options::{absolute, create, load, part, progress_bar};
use example_common::{Backend, Method};
use mimalloc::MiMalloc;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains networks on digits with each method, and prints the accuracy on clean images, the time of a
/// step over SGD's, the part of SAM's gain that is kept, the gain over SGD stopped early (seed by seed, with an interval
/// of 95 %), and how many seeds failed (below 20 %, where
/// guessing is 10 %). Draws accuracy and time.
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
    /// Over SGD at the epoch that the validation images choose: points, seed by seed, and their interval of 95 %.
    #[serde(default)]
    over_sgd_stopped_early: String,
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
    let mut of_sgd = Vec::new();
    for (&method, step_seconds) in methods.iter().zip(seconds) {
        bar.set_message(method.name());
        let rho = task.tune_method(method, &RADII, SEEDS_FOR_RADII, &bar)?;
        let sam = method.config(rho.unwrap_or_default(), steps);
        let jobs = task.jobs(0..seeds, sam.as_ref());
        let outcomes: Vec<Outcome> = task.run(&jobs, Look::Epochs, &bar)?;
        let accuracies = last(&outcomes);
        let chosen = stopped_early(&outcomes);
        if method == Method::Sgd {
            of_sgd.clone_from(&chosen);
        }
        let (test_accuracy, deviation) = mean_and_deviation(&accuracies);
        rows.push(Row {
            network,
            method,
            rho,
            test_accuracy,
            deviation,
            stopped_early: percents(chosen),
            over_sgd_stopped_early: over(&accuracies, &of_sgd).to_string(),
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
    table += "| method | rho | test accuracy, % | stopped early | over SGD stopped early | passes | time of a step | part of SAM's gain | failed |\n";
    table += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let [sgd, sam] = [&rows[0], &rows[1]];
    let gain = sam.test_accuracy - sgd.test_accuracy;
    let standard_error = sgd.deviation.hypot(sam.deviation) / (options.seeds as f64).sqrt();
    for row in rows {
        table += &format!(
            "| {} | {} | {:.1} ± {:.1} | {} | {} | {} | {:.2} | {} | {} |\n",
            row.method.name(),
            row.rho.map_or(String::new(), |rho| format!("{rho:.2}")),
            100.0 * row.test_accuracy,
            100.0 * row.deviation,
            row.stopped_early,
            row.over_sgd_stopped_early,
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

/// A panel for each network, and a line in it for each method, the cheapest first: its accuracy, with the deviation of its
/// seeds, and the time of a step. What lost seeds may go beyond the edge.
fn picture(rows: &[Row], file: &Path) -> anyhow::Result<()> {
    const FONT: &str = "sans-serif";
    const NAMES: u32 = 190;
    const TIMES: u32 = 60;
    let of = |network| {
        let mut rows: Vec<&Row> = rows.iter().filter(|row| row.network == network).collect();
        rows.sort_by(|a, b| a.time_over_sgd.total_cmp(&b.time_over_sgd));
        rows
    };
    let panels = [Architecture::Mlp, Architecture::Conv].map(|network| (network, of(network)));
    let panels: Vec<_> = panels
        .into_iter()
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let most = panels.iter().map(|(_, rows)| rows.len()).max().unwrap_or(1);
    let size = (620 * panels.len() as u32, 100 + 22 * most as u32);
    let canvas = SVGBackend::new(file, size).into_drawing_area();
    canvas.fill(&WHITE)?;
    let areas = canvas.split_evenly((1, panels.len()));
    for (area, (network, rows)) in areas.iter().zip(panels) {
        let percents =
            |row: &Row| [-1.0, 0.0, 1.0].map(|s| 100.0 * (row.test_accuracy + s * row.deviation));
        let alive = rows.iter().filter(|row| row.failed_seeds == 0);
        let least = alive.map(|row| percents(row)[0]).fold(100.0, f64::min);
        let least = (least / 5.0).floor() * 5.0;
        let mut chart = ChartBuilder::on(area)
            .caption(network.name(), (FONT, 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(NAMES)
            .right_y_label_area_size(TIMES)
            .build_cartesian_2d(least..100.0, rows.len() as f64..0.0)?;
        chart
            .configure_mesh()
            .disable_y_axis()
            .disable_y_mesh()
            .x_desc("test accuracy, %; beside it, the time of a step over SGD's")
            .x_label_formatter(&|accuracy| format!("{accuracy:.0}"))
            .axis_desc_style((FONT, 14))
            .label_style((FONT, 13))
            .light_line_style(WHITE)
            .draw()?;
        let corner = area.get_base_pixel();
        for (line, row) in rows.iter().enumerate() {
            let y = line as f64 + 0.5;
            let colour = colour(row.method);
            let [low, mean, high] = percents(row).map(|percent| percent.clamp(least, 100.0));
            let range = PathElement::new([(low, y), (high, y)], colour.stroke_width(2));
            chart.draw_series([range])?;
            chart.draw_series([Circle::new((mean, y), 4, colour.filled())])?;
            let name = match row.failed_seeds {
                0 => row.method.name().to_string(),
                dead => format!("{} ({dead} died)", row.method.name()),
            };
            let time = format!("{:.2}", row.time_over_sgd);
            for (text, x, side, gap) in
                [(name, least, HPos::Right, -8), (time, 100.0, HPos::Left, 8)]
            {
                let at = chart.backend_coord(&(x, y));
                let style = (FONT, 13).into_font().color(&colour);
                let style = style.pos(Pos::new(side, VPos::Center));
                let at = (at.0 - corner.0 + gap, at.1 - corner.1);
                area.draw(&Text::new(text, at, style))?;
            }
        }
    }
    canvas.present()?;
    Ok(())
}
