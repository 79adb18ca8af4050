//! Two tables, embedded in the program.
//!
//! * Landsat satellite (A. Srinivasan, UCI Machine Learning Repository, CC BY 4.0), as R's mlbench has it: 6,435 patches
//!   of ground, each with 36 measures and one of six kinds.
//! * Diamonds, as ggplot2 (MIT) has it: 5,000 of its 53,940, drawn at random, each with nine features and a price.

use std::io::Read;

use anyhow::{Context, ensure};
use digits::data::{Digit, Split};
use flate2::read::GzDecoder;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Rows to train on, a fifth as many to choose an epoch by, and to test on.
const TRAINING_ROWS: usize = 2000;

const KINDS: [&str; 6] = [
    "red soil",
    "cotton crop",
    "grey soil",
    "damp grey soil",
    "vegetation stubble",
    "very damp grey soil",
];

/// From worst to best.
const GRADES: [&[&str]; 3] = [
    &["Fair", "Good", "Very Good", "Premium", "Ideal"],
    &["J", "I", "H", "G", "F", "E", "D"],
    &["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
];

/// A table's rows: the features, and what is to be told from them.
pub(crate) struct Table {
    features: Vec<Vec<f32>>,
    target: Target,
}

enum Target {
    /// The index of a class.
    Class(Vec<usize>),
    /// A number.
    Value(Vec<f32>),
}

impl Table {
    /// Which kind of ground a patch is.
    pub(crate) fn satellite() -> anyhow::Result<Self> {
        let lines = lines(include_bytes!("../data/satellite.csv.gz"))?;
        let (mut features, mut classes) = (Vec::new(), Vec::new());
        for line in &lines {
            let (measures, kind) = line.rsplit_once(',').with_context(|| line.clone())?;
            let measures = measures.split(',').map(str::parse);
            features.push(measures.collect::<Result<_, _>>()?);
            classes.push(index(&KINDS, kind)?);
        }
        let target = Target::Class(classes);
        Ok(Self { features, target })
    }

    /// The logarithm of a diamond's price.
    pub(crate) fn diamonds() -> anyhow::Result<Self> {
        let lines = lines(include_bytes!("../data/diamonds.csv.gz"))?;
        let (mut features, mut prices) = (Vec::new(), Vec::new());
        for line in &lines {
            let fields: Vec<&str> = line.split(',').collect();
            ensure!(fields.len() == 10, "{line}");
            let mut row = Vec::new();
            for (column, field) in fields.iter().enumerate() {
                match column {
                    1..=3 => row.push(index(GRADES[column - 1], field)? as f32),
                    6 => prices.push(field.parse::<f32>()?.ln()),
                    _ => row.push(field.parse()?),
                }
            }
            features.push(row);
        }
        let target = Target::Value(prices);
        Ok(Self { features, target })
    }

    /// How many features a row has.
    pub(crate) fn width(&self) -> usize {
        self.features[0].len()
    }

    /// Rows as `seed` has them, with features of mean 0 and deviation 1 over those to train on. A number that is to be
    /// told is made so too, and is the last one of the row.
    pub(crate) fn split(&self, seed: u64) -> Split {
        let mut order: Vec<usize> = (0..self.features.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        let mut rows: Vec<Vec<f32>> = order.iter().map(|at| self.features[*at].clone()).collect();
        if let Target::Value(values) = &self.target {
            for (row, at) in rows.iter_mut().zip(&order) {
                row.push(values[*at]);
            }
        }
        for column in 0..rows[0].len() {
            let train: Vec<f64> = rows[..TRAINING_ROWS]
                .iter()
                .map(|row| f64::from(row[column]))
                .collect();
            let (mean, deviation) = digits::training::mean_and_deviation(&train);
            for row in &mut rows {
                row[column] = ((f64::from(row[column]) - mean) / deviation) as f32;
            }
        }
        let class = |at: usize| match &self.target {
            Target::Class(classes) => classes[at],
            Target::Value(_) => 0,
        };
        let rows = order.iter().zip(rows);
        let mut train: Vec<Digit> = rows.map(|(at, row)| Digit::new(row, class(*at))).collect();
        let mut valid = train.split_off(TRAINING_ROWS);
        let test = valid.split_off(TRAINING_ROWS / 5);
        Split { train, valid, test }
    }
}

/// But for the names of the columns.
fn lines(zipped: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    GzDecoder::new(zipped).read_to_string(&mut text)?;
    Ok(text.lines().skip(1).map(str::to_string).collect())
}

fn index(names: &[&str], name: &str) -> anyhow::Result<usize> {
    let at = names.iter().position(|other| *other == name);
    at.with_context(|| format!("{name} is none of {names:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_whole() {
        let satellite = Table::satellite().unwrap();
        assert_eq!((satellite.features.len(), satellite.width()), (6435, 36));
        let Target::Class(classes) = &satellite.target else {
            panic!("classes")
        };
        let of = |class| classes.iter().filter(|of| **of == class).count();
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(of),
            [1533, 703, 1358, 626, 707, 1508]
        );
        let diamonds = Table::diamonds().unwrap();
        assert_eq!((diamonds.features.len(), diamonds.width()), (5000, 9));
    }

    #[test]
    fn columns_to_train_on_have_mean_0_and_deviation_1() {
        for table in [Table::satellite().unwrap(), Table::diamonds().unwrap()] {
            let Split { train, valid, test } = table.split(3);
            assert_eq!((train.len(), valid.len()), (2000, 400));
            assert_eq!(test.len(), table.features.len() - 2400);
            for column in 0..train[0].values().len() {
                let values = train.iter().map(|row| f64::from(row.values()[column]));
                let values: Vec<f64> = values.collect();
                let (mean, deviation) = digits::training::mean_and_deviation(&values);
                assert!(mean.abs() < 1e-5 && (deviation - 1.0).abs() < 1e-5);
            }
        }
    }
}
