//! The floor: how long memory alone takes.

use std::time::{Duration, Instant};

use rayon::prelude::*;

/// Streams of `len` f32 values: reads g; reads w and g, and writes over g.
pub(crate) struct Floor {
    weight: Vec<f32>,
    grad: Vec<f32>,
}

impl Floor {
    pub(crate) fn new(len: usize) -> Self {
        Self {
            weight: vec![0.5; len],
            grad: vec![0.25; len],
        }
    }

    /// One round, on as many threads as rayon has, an equal share for each.
    pub(crate) fn stream(&mut self) -> Duration {
        let start = Instant::now();
        let share = self.grad.len().div_ceil(rayon::current_num_threads());
        let sum: f32 = (self.grad.par_chunks(share))
            .map(|grad| {
                let mut sums = [0.0f32; 16];
                for block in grad.chunks(16) {
                    for (sum, g) in sums.iter_mut().zip(block) {
                        *sum += g * g;
                    }
                }
                sums.iter().sum::<f32>()
            })
            .sum();
        let factor = 1e-6 / (sum + 1.0);
        (self.grad.par_chunks_mut(share))
            .zip(self.weight.par_chunks(share))
            .for_each(|(grad, weight)| {
                for (g, w) in grad.iter_mut().zip(weight) {
                    *g = w + factor * *g;
                }
            });
        start.elapsed()
    }
}
