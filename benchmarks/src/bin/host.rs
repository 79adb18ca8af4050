//! The host's time for each parameter tensor.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, ensure};
use benchmarks::methods::steps;
use benchmarks::models::Vectors;
use benchmarks::spread;
use burn::tensor::Device;
use burn_sam::SamConfig;
use clap::Parser;
use example_common::Backend;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures what the host spends on each parameter tensor. On Linux alone, which says how long each thread has been
/// running.
///
/// All are medians, in microseconds a tensor, of the thread that trains, and of all others: Burn's, and a software
/// driver's, which cannot be told apart. On wgpu the thread that trains spins while Burn's queue is full: with a device
/// that is slower than the host, its time is the device's.
///
/// pass: all tensors are put together and squared, and back. update: plain SGD's. The methods: what a step takes beside its
/// passes and the update.
#[derive(Parser)]
struct Options {
    /// Where to measure
    #[arg(long, value_enum, default_value = "flex")]
    device: Backend,
    /// Numbers of tensors, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "60,600",
        value_name = "N"
    )]
    tensors: Vec<usize>,
    /// Elements of each
    #[arg(long, default_value = "64", value_name = "N")]
    elements: usize,
    /// Measurements a figure
    #[arg(long, default_value = "21", value_parser = clap::value_parser!(u32).range(20..))]
    runs: u32,
}

/// The rule at one pass stays at w for its first 20 steps.
const WARM_UP: u32 = 5;
/// So many steps are timed together.
const TURN: u32 = 5;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(
        options.elements > 0 && options.tensors.iter().all(|tensors| *tensors > 0),
        "0 tensors, or tensors of 0 elements, take no time"
    );
    let device = options.device.device()?.autodiff();
    println!(
        "{}, tensors of {} elements, medians of {} runs, microseconds a tensor\n",
        options.device.name(),
        options.elements,
        options.runs
    );
    println!("| tensors | | caller | others |");
    println!("| ---: | --- | ---: | ---: |");
    for &tensors in &options.tensors {
        for (name, times) in measure(tensors, &options, &device)? {
            let [caller, others] = times.map(|time| time / tensors as f64);
            println!("| {tensors} | {name} | {caller:.2} | {others:.2} |");
        }
    }
    Ok(())
}

/// Microseconds of the caller, and of all other threads.
type Times = [f64; 2];

fn measure(
    tensors: usize,
    options: &Options,
    device: &Device,
) -> anyhow::Result<Vec<(&'static str, Times)>> {
    let methods = [
        ("SAM", 2.0, SamConfig::new()),
        ("MSAM", 1.0, SamConfig::msam()),
        ("`auto`", 1.0, SamConfig::auto()),
        ("`auto_two_pass`", 2.0, SamConfig::auto_two_pass()),
    ];
    let module = Vectors::new(tensors, options.elements, device);
    let loss = |module: &Vectors| module.loss();
    let pass = || drop(loss(&module).backward());
    let mut turns: Vec<Box<dyn FnMut()>> = vec![Box::new(pass)];
    turns.extend(steps(&module, methods.iter().map(|(.., sam)| sam), &loss));

    let mut times = vec![Vec::new(); turns.len()];
    for round in 0..WARM_UP + options.runs {
        for (step, times) in turns.iter_mut().zip(&mut times) {
            let before = running(device)?;
            for _ in 0..TURN {
                step();
            }
            let taken = since(&before, &running(device)?);
            if round >= WARM_UP {
                times.push(taken.map(|time| time / f64::from(TURN)));
            }
        }
    }
    let mut medians = times.iter().map(|times| {
        [0, 1].map(|part| {
            let [_, median, _] = spread(times.iter().map(|times| times[part])).expect("some");
            median
        })
    });
    let [pass, sgd] = [(); 2].map(|()| medians.next().expect("it was measured"));
    let update = less(sgd, pass, 1.0);
    let of_methods = (methods.iter().zip(medians))
        .map(|((name, passes, _), times)| (*name, less(less(times, update, 1.0), pass, *passes)));
    Ok([("pass", pass), ("update", update)]
        .into_iter()
        .chain(of_methods)
        .collect())
}

fn less(times: Times, others: Times, count: f64) -> Times {
    [0, 1].map(|part| times[part] - count * others[part])
}

/// Nanoseconds that each thread has been running for, by its number, once the device has nothing to do.
type Running = BTreeMap<String, u64>;

fn running(device: &Device) -> anyhow::Result<Running> {
    device.sync()?;
    // Up to here, and not to the clock's last tick, is counted of a thread that yields.
    std::thread::yield_now();
    let threads = fs::read_dir("/proc/self/task").context("this is for Linux alone")?;
    let mut running = Running::new();
    for thread in threads {
        let thread = thread?;
        // One that has ended meanwhile is not there.
        let Ok(statistics) = fs::read_to_string(thread.path().join("schedstat")) else {
            continue;
        };
        let time = statistics.split(' ').next().context("no time")?.parse()?;
        running.insert(thread.file_name().to_string_lossy().into_owned(), time);
    }
    ensure!(
        running.values().any(|time| *time > 0),
        "this system does not say how long threads have been running"
    );
    Ok(running)
}

fn since(before: &Running, after: &Running) -> Times {
    let caller = std::process::id().to_string();
    let mut times = [0.0; 2];
    for (thread, time) in after {
        // The number may be another thread's by now.
        let taken = time.saturating_sub(before.get(thread).copied().unwrap_or(0));
        times[usize::from(*thread != caller)] += taken as f64 / 1e3;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_told_apart() {
        let caller = std::process::id().to_string();
        let of = |threads: &[(&str, u64)]| -> Running {
            let threads = threads.iter();
            threads
                .map(|(number, time)| (number.to_string(), *time))
                .collect()
        };
        let before = of(&[(&caller, 5_000), ("2", 1_000)]);
        let after = of(&[(&caller, 7_000), ("2", 4_000), ("3", 250)]);
        assert_eq!(since(&before, &after), [2.0, 3.25]);
        assert_eq!(less([3.0, 2.0], [1.0, 0.5], 2.0), [1.0, 1.0]);
    }
}
