//! Replays reference trajectories with burn-sam and prints how far the results are apart.

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::FloatDType;
use clap::Parser;
use conformance::{Case, CaseError, replay};
use example_common::Backend;
use mimalloc::MiMalloc;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Replays reference trajectories of other SAM implementations with burn-sam.
///
/// Prints for each file the largest relative deviation of the losses, the gradient norms and the
/// final weights: the largest absolute difference over the largest absolute reference value.
///
/// Exit code: 0 if all files agree, 1 if one does not or cannot be read, 2 if one asks for a
/// method or a base optimizer that is not known.
#[derive(Parser)]
struct Options {
    /// Reference trajectories; docs/conformance.md has the format
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where to train: in f64 on the CPU backends, in f32 on wgpu
    #[arg(long, value_enum, default_value = "flex")]
    backend: Backend,
}

/// The largest deviation that counts as agreement.
fn tolerance(case: &Case, dtype: FloatDType) -> f64 {
    match dtype {
        // Burn computes Adam's bias correction in f32.
        FloatDType::F64 if case.has_adam_base() => 1e-5,
        FloatDType::F64 => 1e-10,
        _ => 1e-5,
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let dtype = match options.backend {
        Backend::Flex | Backend::Ndarray => FloatDType::F64,
        Backend::Wgpu => FloatDType::F32,
    };
    let device = match options.backend.device() {
        Ok(device) => device,
        Err(err) => {
            eprintln!("{err}");
            return ExitCode::FAILURE;
        }
    };
    let mut unknown = false;
    let mut disagree = false;

    println!(
        "{:<28} {:>9} {:>9} {:>9}   {:<10}",
        "case", "losses", "norms", "weights", "tolerance"
    );
    for file in &options.files {
        match Case::load(file) {
            Ok(case) => {
                let deviations = replay(&case, &device, dtype);
                let tolerance = tolerance(&case, dtype);
                let agrees = deviations.largest() <= tolerance;
                disagree |= !agrees;
                println!(
                    "{:<28} {:>9.1e} {:>9.1e} {:>9.1e}   {:<9.0e} {}",
                    case.name,
                    deviations.losses,
                    deviations.norms,
                    deviations.weights,
                    tolerance,
                    if agrees { "agrees" } else { "DOES NOT AGREE" },
                );
            }
            Err(err) => {
                match err {
                    CaseError::Unsupported(_) => unknown = true,
                    CaseError::Invalid(_) => disagree = true,
                }
                eprintln!("{}: {err}", file.display());
            }
        }
    }
    ExitCode::from(match (unknown, disagree) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    })
}
