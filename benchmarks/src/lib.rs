//! What the programs that measure share.

pub mod child;
pub mod floor;
pub mod measure;
pub mod methods;
pub mod models;

use std::time::Duration;

/// The median in milliseconds, of none nothing.
pub fn median_ms(mut times: Vec<Duration>) -> Option<f64> {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map(|time| 1e3 * time.as_secs_f64())
}
