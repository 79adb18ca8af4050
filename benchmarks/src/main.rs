//! What a step of SAM costs, measured in one run: gradient passes, the perturbation with burn-sam's
//! kernels and with plain tensor operations, the base update, and the floor that memory sets.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use benchmarks::measure::{Row, costs, resnet50};
use benchmarks::{methods, models};
use clap::Parser;
use example_common::{Backend, Counting};
use mimalloc::MiMalloc;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: Counting<MiMalloc> = Counting(MiMalloc);

/// Measures what SAM adds to a training step.
///
/// All figures are medians of one process. gradient: a forward and backward pass. eighth: one over
/// the first eighth of the batch. portable: the perturbation in plain tensor operations, without
/// finding the parameters in the module. fused: the whole of SamConfig::climb, the first step. update: plain
/// SGD. floor: streaming the bytes that the perturbation must move, once, on one thread or on all, whichever
/// is faster; on a GPU, two copies of as many values. overhead: (2 gradient + fused + update) / (2 gradient + update). on the whole, on an
/// eighth: a step of SAM that climbs on that much of the batch, over one of plain SGD. extra: bytes
/// that the first step asks the allocator for (on a GPU, by which the allocator's pools grow), over the
/// bytes of the parameters. A second table has the time of a whole step of each method over plain SGD's.
/// launches: compute shaders of burn-sam's a first step.
#[derive(Parser)]
struct Options {
    /// Where to measure
    #[arg(long, value_enum, default_value = "flex")]
    device: Backend,
    /// The models, separated by commas; all, if not given
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    models: Vec<String>,
    /// Measurements a figure
    #[arg(long, default_value = "21", value_parser = clap::value_parser!(u32).range(20..))]
    runs: u32,
    /// Leave out the second table, which takes longer than the first
    #[arg(long)]
    no_methods: bool,
    /// The methods of the second table, separated by commas; all, if not given
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    methods: Vec<String>,
    /// Where to write the rows, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut json = match &options.json {
        Some(file) => {
            Some(File::create(file).with_context(|| format!("cannot write {}", file.display()))?)
        }
        None => None,
    };
    let device = options.device.device()?.autodiff();
    let name = options.device.name();
    let runs = options.runs as usize;

    println!(
        "{name}, {} threads, medians of {runs} runs, in milliseconds\n",
        rayon::current_num_threads()
    );
    println!("{}", Row::HEADER);
    let mut rows = Vec::new();
    let mut of_methods = Vec::new();
    let mut add = |row: Row| {
        println!("{row}");
        rows.push(row);
    };
    let is_wanted = |model: &str| {
        options.models.is_empty() || options.models.iter().any(|wanted| wanted == model)
    };
    for model in models::NAMES.into_iter().filter(|name| is_wanted(name)) {
        if !options.no_methods {
            let is_measured = |method: &str| {
                options.methods.is_empty() || options.methods.iter().any(|wanted| wanted == method)
            };
            of_methods.push(methods::measure(model, &device, runs, is_measured));
        }
        add(costs(model, name, &device, runs));
    }
    if is_wanted("resnet50") {
        add(resnet50(name, &device, runs));
    }

    if let Some(methods) = of_methods.first() {
        println!("\nA step of each method over one of plain SGD\n");
        println!("{}", methods.header());
    }
    for methods in &of_methods {
        println!("{methods}");
    }

    if let Some(file) = &mut json {
        file.write_all(
            serde_json::to_string_pretty(&json!({ "rows": rows, "methods": of_methods }))?
                .as_bytes(),
        )?;
    }
    Ok(())
}
