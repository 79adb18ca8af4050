//! What the programs' command lines share.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

/// A number from 0 to 1.
///
/// # Errors
///
/// If it is none.
pub fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err("must be a number from 0 to 1".to_string()),
    }
}

/// A number above 0 and up to 1.
///
/// # Errors
///
/// If it is none.
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if fraction > 0.0 && fraction <= 1.0 => Ok(fraction),
        _ => Err("must be a number above 0 and up to 1".to_string()),
    }
}

/// A finite number of at least 0.
///
/// # Errors
///
/// If it is none.
pub fn radius(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rho) if rho.is_finite() && rho >= 0.0 => Ok(rho),
        _ => Err("must be a finite number of at least 0".to_string()),
    }
}

/// A bar that says what is being done, how much of it is done, and when it ends.
pub fn progress_bar(unit: &str, length: u64) -> ProgressBar {
    let template = format!("{{msg:24}} [{{bar:40}}] {{pos}}/{{len}} {unit}, {{eta}} left");
    let style = ProgressStyle::with_template(&template)
        .expect("a valid template")
        .progress_chars("=> ");
    ProgressBar::new(length).with_style(style)
}

/// Creates the files that are to be written in the end, so that one that cannot be is known before the
/// work.
///
/// # Errors
///
/// If one cannot be written.
pub fn create<'a>(files: impl IntoIterator<Item = Option<&'a PathBuf>>) -> anyhow::Result<()> {
    for file in files.into_iter().flatten() {
        File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// What a program has written as JSON.
///
/// # Errors
///
/// If the file cannot be read, or is another's.
pub fn load<T: serde::de::DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} has no such figures", file.display()))
}

/// A file's whole path, to be shown.
pub fn absolute(file: &Path) -> String {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    path.display().to_string()
}
