//! Measurements in processes of their own.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

/// What tells glibc, on Linux, to keep what is freed.
pub const KEEPING: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
    ("MALLOC_TOP_PAD_", "268435456"),
];

/// This program once more, to be given arguments and an environment of its own.
///
/// # Errors
///
/// If the program's file is not known.
pub fn this_program() -> anyhow::Result<Command> {
    Ok(Command::new(
        std::env::current_exe().context("this program's file is not known")?,
    ))
}

/// What a program prints, as JSON. What it says on its standard error is shown.
///
/// # Errors
///
/// If it cannot be started, fails, or prints something else.
pub fn json_of(command: &mut Command) -> anyhow::Result<Value> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = (command.stderr(Stdio::inherit()).output())
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name} ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{name} printed no JSON"))
}
