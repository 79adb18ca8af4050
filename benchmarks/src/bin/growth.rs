//! How a first step's time grows with the parameters and with the number of tensors.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use benchmarks::child::{json_of, this_program};
use benchmarks::floor::Floor;
use benchmarks::median_ms;
use benchmarks::models::Vectors;
use burn::optim::GradientsParams;
use burn_sam::SamConfig;
use clap::Parser;
use example_common::Backend;
use mimalloc::MiMalloc;
use plotters::prelude::*;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures SAM's first step over the number of parameters, in ten tensors, and over the number of tensors, of 100
/// parameters each, with one thread and with two, and draws it.
///
/// The times are medians of interleaved runs; each number of threads has a process of its own. floor: streaming the
/// bytes that must move, once, on one thread or on as many, whichever is faster.
#[derive(Parser)]
struct Options {
    /// Where to measure
    #[arg(long, value_enum, default_value = "flex")]
    device: Backend,
    /// Numbers of threads, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_name = "N")]
    threads: Vec<usize>,
    /// Measurements a point, at least
    #[arg(long, default_value = "21", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The largest number of parameters
    #[arg(long, default_value = "100000000", value_name = "N")]
    most: usize,
    /// Where to draw it
    #[arg(long, default_value = "growth.svg", value_name = "FILE")]
    picture: PathBuf,
    /// Where to write the figures, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// To measure, in this process
    #[arg(long, hide = true)]
    child: bool,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Point {
    tensors: usize,
    parameters: usize,
    step_ms: f64,
    floor_ms: f64,
}

/// Of so many threads.
#[derive(serde::Serialize, serde::Deserialize)]
struct Growth {
    threads: usize,
    over_parameters: Vec<Point>,
    over_tensors: Vec<Point>,
}

const TENSORS: [usize; 7] = [1, 3, 10, 30, 100, 300, 1000];
const SMALLEST: usize = 10_000;
const OF_PARAMETERS: usize = 10;
const LEN_OF_TENSORS: usize = 100;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(
        options.device != Backend::Wgpu && options.most >= SMALLEST,
        "this is of CPUs, and of {SMALLEST} parameters and more"
    );
    if options.child {
        println!("{}", json!(measure(&options)?));
        return Ok(());
    }
    let device = options.device.name();
    let mut all = Vec::new();
    for threads in &options.threads {
        let mut program = this_program()?;
        program.args(["--child", "--device", device]);
        program.args(["--runs", &options.runs.to_string()]);
        program.args(["--most", &options.most.to_string()]);
        program.env("RAYON_NUM_THREADS", threads.to_string());
        let growth: Growth = serde_json::from_value(json_of(&mut program)?).context("figures")?;

        println!(
            "{device}, {threads} threads, medians of {} runs or more\n",
            options.runs
        );
        println!(
            "| tensors | parameters | first step, ms | floor, ms | over the floor | a tensor, µs |"
        );
        println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
        for point in growth.over_parameters.iter().chain(&growth.over_tensors) {
            println!(
                "| {} | {} | {:.4} | {:.4} | {:.2} | {:.2} |",
                point.tensors,
                point.parameters,
                point.step_ms,
                point.floor_ms,
                point.step_ms / point.floor_ms,
                1e3 * point.step_ms / point.tensors as f64,
            );
        }
        println!();
        all.push(growth);
    }
    picture(&all, &options.picture).context("the picture")?;
    if let Some(file) = &options.json {
        let file =
            File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        serde_json::to_writer_pretty(file, &all)?;
    }
    Ok(())
}

fn measure(options: &Options) -> anyhow::Result<Growth> {
    let device = options.device.device()?.autodiff();
    let of = |tensors, parameters| {
        let module = Vectors::new(tensors, parameters / tensors, &device);
        let grads = module.gradients();
        // Of small models, more: they take no time, and the clock has its grain.
        let runs = (options.runs as usize)
            .max(10_000_000 / parameters)
            .min(1000);
        measure_point(module, grads, tensors, parameters, runs)
    };
    let sizes =
        (8..).map(|half_decades| 10f64.powf(half_decades as f64 / 2.0).round() as usize / 10 * 10);
    Ok(Growth {
        threads: rayon::current_num_threads(),
        over_parameters: (sizes.take_while(|size| *size <= options.most))
            .map(|size| of(OF_PARAMETERS, size))
            .collect(),
        over_tensors: TENSORS
            .map(|count| of(count, count * LEN_OF_TENSORS))
            .into(),
    })
}

fn measure_point(
    mut module: Vectors,
    mut grads: GradientsParams,
    tensors: usize,
    parameters: usize,
    runs: usize,
) -> Point {
    const WARM_UP: usize = 3;
    let sam = SamConfig::new();
    let mut floor = Floor::host(parameters);
    let mut steps = Vec::new();
    for run in 0..WARM_UP + runs {
        let begin = Instant::now();
        let climbed = sam.climb(module, grads);
        let step = begin.elapsed();
        // The values at w + e(w) are as good gradients as any, and nothing else holds them.
        grads = climbed.as_gradients();
        module = climbed.step_back();
        floor.run(run >= WARM_UP);
        if run >= WARM_UP {
            steps.push(step);
        }
    }
    Point {
        tensors,
        parameters,
        step_ms: median_ms(steps).expect("some"),
        floor_ms: floor.median_ms().expect("some"),
    }
}

/// Two charts: over the parameters beside the floor, and a tensor's share over the number of tensors.
fn picture(all: &[Growth], file: &Path) -> anyhow::Result<()> {
    // Okabe and Ito's colours, which the colour-blind can tell apart.
    let colours = [
        RGBColor(213, 94, 0),
        RGBColor(0, 114, 178),
        RGBColor(0, 158, 115),
    ];
    let canvas = SVGBackend::new(file, (1000, 440)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let (left, right) = canvas.split_horizontally(540);
    let points = || all.iter().flat_map(|growth| &growth.over_parameters);
    let times = || points().flat_map(|point| [point.step_ms, point.floor_ms]);
    let least = times().fold(f64::INFINITY, f64::min) / 2.0;
    let most = times().fold(0.0, f64::max) * 2.0;
    let first = points().map(|point| point.parameters).min().unwrap_or(1) as f64;
    let last = points().map(|point| point.parameters).max().unwrap_or(10) as f64;
    let mut chart = ChartBuilder::on(&left)
        .caption("SAM's first step, ten tensors", ("sans-serif", 18))
        .margin(15)
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d((first..last).log_scale(), (least..most).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("parameters")
        .y_desc("milliseconds")
        .x_label_formatter(&|x| format!("{x:.0e}"))
        .y_label_formatter(&|y| format!("{y}"))
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    for (growth, colour) in all.iter().zip(colours.into_iter().cycle()) {
        let threads = match growth.threads {
            1 => "1 thread".to_string(),
            threads => format!("{threads} threads"),
        };
        let line = |of: fn(&Point) -> f64| {
            let points = growth.over_parameters.iter();
            points.map(move |point| (point.parameters as f64, of(point)))
        };
        chart
            .draw_series(LineSeries::new(
                line(|point| point.step_ms),
                colour.stroke_width(2),
            ))?
            .label(&threads)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart
            .draw_series(DashedLineSeries::new(
                line(|point| point.floor_ms),
                6,
                4,
                colour.stroke_width(1),
            ))?
            .label(format!("memory alone, {threads}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.mix(0.4)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;

    let share = |point: &Point| 1e3 * point.step_ms / point.tensors as f64;
    let shares = || {
        all.iter()
            .flat_map(|growth| &growth.over_tensors)
            .map(share)
    };
    let mut chart = ChartBuilder::on(&right)
        .caption("a tensor's share, 100 parameters each", ("sans-serif", 18))
        .margin(15)
        .margin_right(25)
        .x_label_area_size(45)
        .y_label_area_size(50)
        .build_cartesian_2d(
            (1.0..1000.0).log_scale(),
            0.0..1.1 * shares().fold(0.0, f64::max),
        )?;
    chart
        .configure_mesh()
        .x_desc("tensors")
        .y_desc("microseconds a tensor")
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y}"))
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    for (growth, colour) in all.iter().zip(colours.into_iter().cycle()) {
        let line = growth.over_tensors.iter();
        let line = line.map(|point| (point.tensors as f64, share(point)));
        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
    }
    canvas.present()?;
    Ok(())
}
