//! What the programs that measure share.

pub mod child;
pub mod floor;
pub mod measure;
pub mod methods;
pub mod models;

use std::time::Duration;

/// The least, the median and the most of some values; of none nothing.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let median = *values.get(values.len() / 2)?;
    Some([values[0], median, values[values.len() - 1]])
}

/// The median in milliseconds, of none nothing.
pub fn median_ms(times: Vec<Duration>) -> Option<f64> {
    let [_, median, _] = spread(times.iter().map(|time| 1e3 * time.as_secs_f64()))?;
    Some(median)
}
