//! What a training on a CPU takes with the system's allocator, and with another.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use benchmarks::child::{KEEPING, json_of, this_program};
use benchmarks::models::{Measurement, NAMES, with};
use benchmarks::{median_ms, spread};
use burn::module::Module;
use burn::optim::SgdConfig;
use burn::tensor::Tensor;
use burn_sam::{AscentPart, SamConfig};
use clap::Parser;
use example_common::Backend;
use mimalloc::MiMalloc;
use serde_json::json;

/// One of two allocators, for the whole of a process.
struct Either;

#[global_allocator]
static ALLOCATOR: Either = Either;

const CHOICE: &core::ffi::CStr = c"BENCHMARKS_ALLOCATOR";

impl Either {
    /// Whether it is mimalloc, as the environment says.
    fn is_mimalloc(&self) -> bool {
        const UNKNOWN: u8 = 0;
        const NO: u8 = 1;
        const YES: u8 = 2;
        static IS_MIMALLOC: AtomicU8 = AtomicU8::new(UNKNOWN);
        match IS_MIMALLOC.load(Ordering::Relaxed) {
            UNKNOWN => {
                // SAFETY: the name ends with a zero, and nothing in this program changes the environment.
                // The standard library's way would allocate.
                let chosen = !unsafe { libc::getenv(CHOICE.as_ptr()) }.is_null();
                IS_MIMALLOC.store(if chosen { YES } else { NO }, Ordering::Relaxed);
                chosen
            }
            known => known == YES,
        }
    }
}

// SAFETY: all of it is one of two allocators, and the same one from the first allocation to the last.
unsafe impl GlobalAlloc for Either {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe {
            match self.is_mimalloc() {
                true => MiMalloc.alloc(layout),
                false => System.alloc(layout),
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe {
            match self.is_mimalloc() {
                true => MiMalloc.dealloc(pointer, layout),
                false => System.dealloc(pointer, layout),
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe {
            match self.is_mimalloc() {
                true => MiMalloc.alloc_zeroed(layout),
                false => System.alloc_zeroed(layout),
            }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe {
            match self.is_mimalloc() {
                true => MiMalloc.realloc(pointer, layout, size),
                false => System.realloc(pointer, layout, size),
            }
        }
    }
}

/// Measures trainings with SAM on a CPU with several allocators: the system's; glibc's, told to keep what is
/// freed; mimalloc; and mimalloc, told the same.
///
/// Each model and allocator has a process of its own in each round, in turn. gradient: a forward and backward
/// pass, the median of the rounds' medians, and their range. step: a whole step of SAM with SGD. held: the
/// memory that the process has between two steps, and most: the most it ever had, on Linux.
#[derive(Parser)]
struct Options {
    /// Where to measure
    #[arg(long, value_enum, default_value = "flex")]
    device: Backend,
    /// The models, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME", default_values_t = NAMES.map(str::to_string))]
    models: Vec<String>,
    /// Processes for each model and allocator
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// To measure one model, in this process
    #[arg(long, hide = true)]
    model: Option<String>,
}

/// Each with the environment that chooses it.
const ALLOCATORS: [(&str, &[(&str, &str)]); 4] = [
    ("the system's", &[]),
    ("glibc's, keeping", &KEEPING),
    ("mimalloc", &[("BENCHMARKS_ALLOCATOR", "mimalloc")]),
    (
        "mimalloc, keeping",
        &[
            ("BENCHMARKS_ALLOCATOR", "mimalloc"),
            ("MIMALLOC_PURGE_DELAY", "-1"),
        ],
    ),
];

#[derive(serde::Serialize, serde::Deserialize)]
struct Figures {
    gradient_ms: f64,
    step_ms: f64,
    held_mib: Option<f64>,
    most_mib: Option<f64>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(options.device != Backend::Wgpu, "allocators are the CPU's");
    if let Some(model) = &options.model {
        let device = options.device.device()?.autodiff();
        println!("{}", json!(with(model, &device, Training)));
        return Ok(());
    }
    let device = options.device.name();
    println!(
        "{device}, {} threads, {} rounds\n",
        rayon::current_num_threads(),
        options.rounds
    );
    println!(
        "| model | allocator | gradient, ms | range | over the system's | step, ms | held, MiB | most, MiB |"
    );
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for model in &options.models {
        let mut figures: [Vec<Figures>; ALLOCATORS.len()] = Default::default();
        for _ in 0..options.rounds {
            for ((_, environment), figures) in ALLOCATORS.iter().zip(&mut figures) {
                let mut program = this_program()?;
                program.args(["--device", device, "--model", model]);
                for (_, others) in ALLOCATORS {
                    others.iter().for_each(|(name, _)| {
                        program.env_remove(name);
                    });
                }
                let value = json_of(program.envs(environment.iter().copied()))?;
                figures.push(serde_json::from_value(value).context("figures")?);
            }
        }
        let mut systems = None;
        for ((name, _), figures) in ALLOCATORS.iter().zip(&figures) {
            let of_rounds = figures.iter().map(|of| of.gradient_ms);
            let [least, gradient, most] = spread(of_rounds).expect("a round");
            let median = |of: fn(&Figures) -> Option<f64>, digits: usize| {
                spread(figures.iter().filter_map(of)).map_or("-".to_string(), |[_, median, _]| {
                    format!("{median:.digits$}")
                })
            };
            println!(
                "| {model} | {name} | {gradient:.2} | {:.2} to {:.2} | {:.2} | {} | {} | {} |",
                least,
                most,
                gradient / *systems.get_or_insert(gradient),
                median(|of| Some(of.step_ms), 2),
                median(|of| of.held_mib, 0),
                median(|of| of.most_mib, 0),
            );
        }
    }
    Ok(())
}

/// Trains for a while.
struct Training;

impl Measurement for Training {
    type Output = Figures;

    fn of<M: Module>(self, mut module: M, loss: impl Fn(&M, AscentPart) -> Tensor<1>) -> Figures {
        const WARM_UP: usize = 3;
        const AT_LEAST: usize = 11;
        const FOR: Duration = Duration::from_millis(1500);
        let sam = SamConfig::new();
        let mut optim = SgdConfig::new().init();
        let [mut gradients, mut steps] = [Vec::new(), Vec::new()];
        let start = Instant::now();
        for step in 0.. {
            let begin = Instant::now();
            let mut passes = Vec::new();
            (module, _) = sam.optimize(&mut optim, 1e-6, module, |module: &M| {
                let begin = Instant::now();
                let grads = loss(module, sam.ascent_part()).backward();
                passes.push(begin.elapsed());
                ((), grads)
            });
            if step >= WARM_UP {
                gradients.append(&mut passes);
                steps.push(begin.elapsed());
            }
            if steps.len() >= AT_LEAST && start.elapsed() > FOR {
                break;
            }
        }
        Figures {
            gradient_ms: median_ms(gradients).expect("some"),
            step_ms: median_ms(steps).expect("some"),
            held_mib: of_process("VmRSS:"),
            most_mib: of_process("VmHWM:"),
        }
    }
}

/// What Linux says of this process, in MiB.
fn of_process(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
