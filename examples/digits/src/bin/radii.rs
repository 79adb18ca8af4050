//! How much it matters which radius: plain SAM, its two remedies, and the rule that sets rho by itself.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use digits::comparison::{
    Architecture, DEAD, Done, Look, RADII, TUNING_SEEDS, Task, colour, last, over, percents,
    percents_and_dead, stopped_early,
};
use digits::data;
use digits::recipe::{Base, RecipeOptions};
use digits::training::mean_and_deviation;
use example_common::options::{absolute, create, load, part, progress_bar, radius};
use example_common::{Backend, Method};
use indicatif::ProgressBar;
use mimalloc::MiMalloc;
use plotters::prelude::*;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Trains networks on digits with SAM at nine radii, plain and with its two remedies, and with the rule that
/// sets rho by itself; prints the accuracies on clean images by radius, how many seeds died (below 20 %, where
/// guessing is 10 %), and draws them.
///
/// It also chooses each method's best radius on ten other seeds, and prints what that radius comes to on the
/// reported ones, and what is gained over SGD stopped early: seed by seed, with an interval of 95 %.
#[derive(Parser)]
struct Options {
    /// The network; both, if not given
    #[arg(long, value_enum)]
    network: Option<Architecture>,
    /// The methods, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "sam,raised,limited,both,auto,autotwopass"
    )]
    methods: Vec<Method>,
    /// Parts of the training labels that are replaced by random ones, 0 to 1, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "0.4", allow_negative_numbers = true, value_parser = part)]
    noise: Vec<f64>,
    /// The optimizers, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sgd")]
    base: Vec<Base>,
    /// The radii, separated by commas, smallest first
    #[arg(long, value_delimiter = ',', default_values_t = RADII.to_vec(), value_parser = radius)]
    radii: Vec<f64>,
    /// Only the radii that are best on other seeds, and no picture
    #[arg(long)]
    tuned_only: bool,
    /// Number of seeds: each has its own initial weights, images, wrong labels and shuffles
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=TUNING_SEEDS))]
    seeds: u64,
    /// The first of them: others than 0 are for choosing settings apart from what is reported
    #[arg(long, default_value = "0")]
    first_seed: u64,
    /// Number of other seeds, on which radii are chosen
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    tuning_seeds: u64,
    #[command(flatten)]
    recipe: RecipeOptions,
    /// Where to write the figures, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the picture of such figures, without training anything
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    load: Option<PathBuf>,
    /// Where to draw the picture
    #[arg(long, value_name = "FILE.svg", default_value = "radii.svg")]
    picture: PathBuf,
    /// Where to keep each training's figures, so that a run that was stopped goes on from there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Where to train
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

/// A method at a radius.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Row {
    network: Architecture,
    noise: f64,
    base: Base,
    method: Method,
    /// `None` where there is none to choose.
    rho: Option<f64>,
    /// Whether it is the method's best radius on the other seeds.
    tuned: bool,
    /// Of each seed, from 0 to 1.
    accuracies: Vec<f64>,
    /// At the epoch that the validation images choose.
    #[serde(default)]
    stopped_early: Vec<f64>,
}

impl Row {
    /// Mean, deviation, and the seeds that died.
    fn text(&self) -> String {
        percents_and_dead(&self.accuracies)
    }

    fn mean(&self) -> f64 {
        100.0 * mean_and_deviation(&self.accuracies).0
    }
}

/// What `--json` writes.
#[derive(serde::Serialize, serde::Deserialize)]
struct Figures {
    rows: Vec<Row>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let picture_file = (!options.tuned_only).then_some(&options.picture);
    create([options.json.as_ref(), picture_file])?;
    if let Some(file) = &options.load {
        let Figures { rows } = load(file)?;
        return picture(&rows, &options.picture);
    }
    let digits = data::digits()?;
    let done = Done::open(options.resume.as_deref())?;
    let device = options.backend.device()?.autodiff();
    let networks = match options.network {
        Some(network) => vec![network],
        None => vec![Architecture::Mlp, Architecture::Conv],
    };
    let mut rows = Vec::new();
    for architecture in networks {
        for &base in &options.base {
            for &noise in &options.noise {
                let task = Task {
                    network: architecture.network(),
                    split: &|seed| data::split(digits.clone(), noise, seed),
                    recipe: architecture.recipe(base, &options.recipe),
                    device: &device,
                    name: format!("{}, noise {noise}", architecture.name()),
                    corruptions: &[],
                    done: &done,
                };
                let compared = Compared {
                    network: architecture,
                    noise,
                    task,
                };
                let of_task = compare(&compared, &options)?;
                println!("{}", table(&of_task, &compared, &options));
                rows.extend(of_task);
            }
        }
    }
    if let Some(file) = picture_file {
        picture(&rows, file)?;
        println!("picture: {}", absolute(file));
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&Figures { rows })?)?;
        println!("figures: {}", absolute(file));
    }
    Ok(())
}

/// A task, and what its rows say of it.
struct Compared<'a> {
    network: Architecture,
    noise: f64,
    task: Task<'a>,
}

fn compare(compared: &Compared, options: &Options) -> anyhow::Result<Vec<Row>> {
    let with_radius = options.methods.iter().filter(|m| m.has_a_radius()).count() as u64;
    let without = options.methods.len() as u64 - with_radius;
    let radii = options.radii.len() as u64;
    let reported = if options.tuned_only { 1 } else { radii };
    let of_method = reported * options.seeds + radii * options.tuning_seeds;
    let bar = progress_bar(
        "trainings",
        without * options.seeds + with_radius * of_method,
    );
    let mut rows = Vec::new();
    for &method in &options.methods {
        bar.set_message(method.name());
        let task = &compared.task;
        let tuned = task.tune_method(method, &options.radii, options.tuning_seeds, &bar)?;
        let Some(best) = tuned else {
            rows.push(row(compared, method, None, false, options, &bar)?);
            continue;
        };
        for rho in options.radii.iter().map(|radius| radius * method.scale()) {
            if rho == best || !options.tuned_only {
                rows.push(row(
                    compared,
                    method,
                    Some(rho),
                    rho == best,
                    options,
                    &bar,
                )?);
            }
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

fn row(
    compared: &Compared,
    method: Method,
    rho: Option<f64>,
    tuned: bool,
    options: &Options,
    bar: &ProgressBar,
) -> anyhow::Result<Row> {
    let task = &compared.task;
    let sam = method.config(rho.unwrap_or_default(), task.first_twelfth());
    let jobs = task.jobs(
        options.first_seed..options.first_seed + options.seeds,
        sam.as_ref(),
    );
    let outcomes = task.run(&jobs, Look::Epochs, bar)?;
    Ok(Row {
        network: compared.network,
        noise: compared.noise,
        base: task.recipe.base,
        method,
        rho,
        tuned,
        accuracies: last(&outcomes),
        stopped_early: stopped_early(&outcomes),
    })
}

fn table(rows: &[Row], compared: &Compared, options: &Options) -> String {
    let recipe = &compared.task.recipe;
    let mut table = format!(
        "{:?}, {:?}, {:.0} % noisy labels, smoothing {}, {} epochs, {}, {} seeds\n\n| method |",
        compared.network,
        recipe.base,
        100.0 * compared.noise,
        recipe.smoothing,
        recipe.epochs,
        recipe.schedule.name(),
        options.seeds
    );
    let radii: Vec<f64> = match options.tuned_only {
        true => Vec::new(),
        false => options.radii.clone(),
    };
    for rho in &radii {
        table += &format!(" {rho} |");
    }
    table += " rho, tuned | accuracy, % | stopped early | over SGD stopped early | within 3 points of the best |\n|";
    table += &" --- |".repeat(radii.len() + 6);
    table += "\n";
    let sgd = rows.iter().find(|row| row.method == Method::Sgd);
    for method in &options.methods {
        let of_method: Vec<&Row> = rows.iter().filter(|row| row.method == *method).collect();
        table += &format!("| {} |", compared.task.method_name(*method));
        for rho in &radii {
            let at = of_method
                .iter()
                .find(|row| row.rho == Some(rho * method.scale()));
            table += &format!(" {} |", at.map_or(String::new(), |row| row.text()));
        }
        let chosen = (of_method.iter()).find(|row| row.tuned || row.rho.is_none());
        if let Some(row) = chosen {
            let rho = row.rho.map_or(String::new(), |rho| rho.to_string());
            let stopped_early = percents(row.stopped_early.iter().copied());
            let gain = sgd.map_or(String::new(), |sgd| {
                over(&row.accuracies, &sgd.stopped_early).to_string()
            });
            table += &format!(" {rho} | {} | {stopped_early} | {gain} |", row.text());
        }
        table += &match radii.is_empty() || !method.has_a_radius() {
            true => " |\n".to_string(),
            false => format!(" {} |\n", plateau(&of_method)),
        };
    }
    table
}

/// The widest stretch of radii around the best whose accuracies are within 3 points of it and lose no seed, and
/// its factor.
fn plateau(rows: &[&Row]) -> String {
    let best = rows.iter().map(|row| row.mean()).fold(0.0, f64::max);
    let is_good = |row: &Row| row.mean() >= best - 3.0 && row.accuracies.iter().all(|a| *a >= DEAD);
    let at = rows.iter().position(|row| row.mean() == best);
    let Some(at) = at.filter(|at| is_good(rows[*at])) else {
        return "none without a dead seed".to_string();
    };
    let before = rows[..at]
        .iter()
        .rev()
        .take_while(|row| is_good(row))
        .count();
    let after = rows[at..].iter().take_while(|row| is_good(row)).count();
    let [from, to] = [at - before, at + after - 1].map(|index| rows[index].rho.unwrap_or_default());
    format!("{from} to {to} (x {:.1})", to / from)
}

/// A panel for each task: accuracy over rho, a line a method; a method without a radius is a level line.
fn picture(rows: &[Row], file: &Path) -> anyhow::Result<()> {
    const FONT: &str = "sans-serif";
    let mut tasks: Vec<(Architecture, f64, Base)> = Vec::new();
    for row in rows {
        let task = (row.network, row.noise, row.base);
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let canvas = SVGBackend::new(file, (560 * tasks.len() as u32, 460)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let panels = canvas.split_evenly((1, tasks.len()));
    let radii = || rows.iter().filter_map(|row| row.rho);
    // Where no method has a radius, those that there might have been.
    let first = radii().reduce(f64::min).unwrap_or(RADII[0]);
    let last = radii().fold(2.0 * first, f64::max);
    for (panel, task) in panels.iter().zip(tasks) {
        let rows: Vec<&Row> = (rows.iter())
            .filter(|row| (row.network, row.noise, row.base) == task)
            .collect();
        let title = format!("{}, {:.0} % wrong labels", task.0.name(), 100.0 * task.1);
        let mut chart = ChartBuilder::on(panel)
            .caption(title, (FONT, 20))
            .margin(15)
            .x_label_area_size(45)
            .y_label_area_size(55)
            .build_cartesian_2d(first.log2()..last.log2(), 0.0..100.0)?;
        chart
            .configure_mesh()
            .x_desc("rho")
            .y_desc("test accuracy, %")
            .x_label_formatter(&|log| format!("{:.2}", log.exp2()))
            .y_label_formatter(&|accuracy| format!("{accuracy:.0}"))
            .axis_desc_style((FONT, 16))
            .label_style((FONT, 14))
            .light_line_style(WHITE)
            .draw()?;
        for &method in Method::value_variants() {
            let mut points: Vec<(f64, f64)> = Vec::new();
            for row in rows.iter().filter(|row| row.method == method) {
                match row.rho {
                    Some(rho) => points.push((rho.log2(), row.mean())),
                    None => points.extend([first, last].map(|rho| (rho.log2(), row.mean()))),
                }
            }
            if points.is_empty() {
                continue;
            }
            let style = colour(method).stroke_width(2);
            let line = match method {
                Method::Autotwopass => {
                    let dashes = DashedLineSeries::new(points, 6, 4, style);
                    chart.draw_series(dashes)?
                }
                _ => chart.draw_series(LineSeries::new(points, style))?,
            };
            line.label(method.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 14))
            .draw()?;
    }
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rho: f64, accuracies: [f64; 2]) -> Row {
        Row {
            network: Architecture::Mlp,
            noise: 0.4,
            base: Base::Sgd,
            method: Method::Both,
            rho: Some(rho),
            tuned: false,
            accuracies: accuracies.to_vec(),
            stopped_early: accuracies.to_vec(),
        }
    }

    #[test]
    fn a_plateau_ends_where_accuracy_falls_or_a_seed_dies() {
        let rows = [
            row(0.1, [0.8, 0.8]),
            row(0.2, [0.91, 0.92]),
            row(0.4, [0.93, 0.94]),
            row(0.8, [0.92, 0.92]),
            row(1.6, [0.95, 0.1]),
        ];
        let all: Vec<&Row> = rows.iter().collect();
        assert_eq!(plateau(&all), "0.2 to 0.8 (x 4.0)");
        assert_eq!(plateau(&all[4..]), "none without a dead seed");
        assert_eq!(rows[4].text(), "52.5 ± 60.1 (1 died)");
    }

    #[test]
    fn the_json_has_what_it_promises() {
        let json = serde_json::to_value(row(0.1, [0.5, 0.75])).unwrap();
        assert_eq!(json["network"], "mlp");
        assert_eq!(json["method"], "both");
        assert_eq!(json["rho"], 0.1);
        assert_eq!(json["accuracies"], serde_json::json!([0.5, 0.75]));
    }

    #[test]
    fn the_picture_names_its_axes_and_lines() {
        let file = tempfile::NamedTempFile::with_suffix(".svg").unwrap();
        let level = Row {
            method: Method::Auto,
            rho: None,
            ..row(0.1, [0.9, 0.9])
        };
        picture(
            &[row(0.1, [0.8, 0.8]), row(0.4, [0.9, 0.9]), level],
            file.path(),
        )
        .unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        for text in [
            "SAM, raised and limited",
            "rule, one pass",
            "perceptron",
            "test accuracy, %",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }
}
