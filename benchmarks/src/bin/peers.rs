//! A step of SAM here and in other frameworks, in turn on one machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use benchmarks::child::{KEEPING, json_of, this_program};
use benchmarks::measure::costs;
use benchmarks::{methods, models, spread};
use clap::Parser;
use example_common::{Backend, Counting};
use mimalloc::MiMalloc;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: Counting<MiMalloc> = Counting(MiMalloc);

/// Measures a step of SAM with burn-sam and with PyTorch and JAX on the CPU, on the same models and batches and
/// as many threads, and prints one table.
///
/// In each round each of them measures each model once, in a process of its own; the table has the medians of
/// the rounds' medians, in milliseconds, and in brackets what burn-sam takes over what the other takes. gradient: a forward
/// and backward pass. perturbation: from the gradients at w to w + e(w), and back to w. update: plain SGD's. step:
/// the whole of SAM's step, and the range of the rounds. None gives memory back to the system at each step: burn-sam has
/// mimalloc, and for the others glibc is told so.
///
/// Python and the packages of benchmarks/peers/requirements.txt are needed:
///
/// python3 -m venv target/peers
/// target/peers/bin/pip install -r benchmarks/peers/requirements.txt
/// cargo run --release -p benchmarks --bin peers
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Options {
    /// The Python that has the packages
    #[arg(long, default_value = "target/peers/bin/python", value_name = "FILE")]
    python: PathBuf,
    /// Of each of them; all cores, if not given
    #[arg(long)]
    threads: Option<usize>,
    /// Times that each of them measures each model
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measurements a figure in a round
    #[arg(long, default_value = "21", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where to write all figures, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// To measure burn-sam, in this process
    #[arg(long, hide = true)]
    ours: bool,
}

/// Their names, and what the Python program calls them.
const THEIRS: [(&str, &str); 3] = [
    ("PyTorch, two steps", "two-steps"),
    ("PyTorch, foreach", "foreach"),
    ("JAX, optax", "optax"),
];
const FIGURES: [&str; 4] = ["gradient", "perturbation", "update", "step"];

/// Milliseconds, by model and figure.
type Times = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runs = options.runs as usize;
    if options.ours {
        println!("{}", json!(ours(runs)?));
        return Ok(());
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/measure.py");
    if !options.python.exists() {
        bail!(
            "there is no {}: see --help for how to make it, or name another with --python",
            options.python.display()
        );
    }
    let threads = options.threads.unwrap_or_else(rayon::current_num_threads);
    let [threads, runs] = [threads, runs].map(|number| number.to_string());
    let models = models::NAMES.join(",");

    let mut all: Vec<(&str, Times)> = vec![("burn-sam, flex", Times::new())];
    all.extend(THEIRS.map(|(name, _)| (name, Times::new())));
    for round in 0..options.rounds {
        for (index, (name, times)) in all.iter_mut().enumerate() {
            eprintln!("round {} of {}: {name}", round + 1, options.rounds);
            let mut command = match index.checked_sub(1).map(|index| THEIRS[index].1) {
                None => {
                    let mut command = this_program()?;
                    command.args(["--ours", "--runs", &runs]);
                    command.env("RAYON_NUM_THREADS", &threads);
                    command
                }
                Some(peer) => {
                    let mut command = Command::new(&options.python);
                    command.arg(&program).args([peer, "--threads", &threads]);
                    command.args(["--runs", &runs, "--models", &models]);
                    // So that what they free is kept as well.
                    command.envs(KEEPING);
                    command
                }
            };
            let of_round: Times =
                serde_json::from_value(json_of(&mut command)?).context("not the figures")?;
            for (model, figures) in of_round {
                let times = times.entry(model).or_default();
                for (figure, values) in figures {
                    times.entry(figure).or_default().push(median(&values));
                }
            }
        }
    }

    println!(
        "{threads} threads, {} rounds of {runs} runs\n",
        options.rounds
    );
    println!("| model | | {} | range |", FIGURES.join(" | "));
    println!("| --- | --- |{} ---: |", " ---: |".repeat(FIGURES.len()));
    let ours = &all[0].1;
    for model in models::NAMES {
        for (index, (name, times)) in all.iter().enumerate() {
            let cells = FIGURES.map(|figure| {
                let [ours, value] = [ours, times].map(|of| median(&of[model][figure]));
                match index {
                    0 => format!("{value:.3}"),
                    _ => format!("{value:.3} ({:.2})", ours / value),
                }
            });
            let steps = times[model]["step"].iter().copied();
            let [least, _, most] = spread(steps).expect("a round");
            println!(
                "| {model} | {name} | {} | {least:.2} to {most:.2} |",
                cells.join(" | ")
            );
        }
    }
    if let Some(file) = &options.json {
        let file =
            File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        serde_json::to_writer_pretty(file, &json!(BTreeMap::from_iter(all)))?;
    }
    Ok(())
}

fn ours(runs: usize) -> anyhow::Result<Times> {
    let device = Backend::Flex.device()?.autodiff();
    let of_model = |model: &str| {
        let row = costs(model, "flex", &device, runs);
        let steps = methods::measure(model, &device, runs, |name| name == "sam");
        let step = steps.sgd_ms * steps.over_sgd[0].1;
        let gradient = row.gradient_ms.expect("it has passes");
        let values = [gradient, row.fused_ms + row.back_ms, row.update_ms, step];
        let figures = FIGURES.map(str::to_string).into_iter();
        let figures = figures.zip(values.map(|value| vec![value])).collect();
        (model.to_string(), figures)
    };
    Ok(models::NAMES.into_iter().map(of_model).collect())
}

fn median(values: &[f64]) -> f64 {
    let [_, median, _] = spread(values.iter().copied()).expect("a run");
    median
}
