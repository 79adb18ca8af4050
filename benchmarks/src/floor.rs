//! The floor: how long memory alone takes to read g, to read w and g, and to write over g.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

use crate::median_ms;

/// Streams so many f32 values. On a host with several threads, one and all take turns.
pub struct Floor {
    /// On so many threads.
    stream: Box<dyn FnMut(usize) -> Duration>,
    /// Numbers of threads, and their times.
    times: Vec<(usize, Vec<Duration>)>,
    runs: usize,
}

impl Floor {
    /// In the host's memory.
    pub fn host(len: usize) -> Self {
        let weight = vec![0.5; len];
        let mut grad = vec![0.25; len];
        let threads = match rayon::current_num_threads() {
            1 => vec![1],
            all => vec![1, all],
        };
        Self::new(threads, move |threads| stream(&weight, &mut grad, threads))
    }

    /// In a GPU's: the bytes that must move are those of two copies, by Burn's kernels.
    pub fn gpu(len: usize, device: &Device) -> Self {
        let device = device.clone().inner();
        let values = Tensor::<1>::ones([len], &device);
        Self::new(vec![1], move |_| {
            let sync = || device.sync().expect("the device works");
            sync();
            let start = Instant::now();
            for _ in 0..2 {
                // Waited for, lest fusion makes both at once.
                let _copy = values.clone().mul_scalar(1.5);
                sync();
            }
            start.elapsed()
        })
    }

    fn new(threads: Vec<usize>, stream: impl FnMut(usize) -> Duration + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            times: threads
                .into_iter()
                .map(|count| (count, Vec::new()))
                .collect(),
            runs: 0,
        }
    }

    /// Once, and whether it counts.
    pub fn run(&mut self, counts: bool) {
        let turn = self.runs % self.times.len();
        let (threads, times) = &mut self.times[turn];
        let time = (self.stream)(*threads);
        if counts {
            times.push(time);
        }
        self.runs += 1;
    }

    /// In milliseconds, on one thread or on all, whichever is faster; of no run, nothing.
    pub fn median_ms(self) -> Option<f64> {
        let medians = (self.times.into_iter()).filter_map(|(_, times)| median_ms(times));
        medians.min_by(f64::total_cmp)
    }
}

fn stream(weight: &[f32], grad: &mut [f32], threads: usize) -> Duration {
    let start = Instant::now();
    if threads == 1 {
        let factor = 1e-6 / (sum_of_squares(grad) + 1.0);
        add(weight, factor, grad);
        return start.elapsed();
    }
    let share = grad.len().div_ceil(threads);
    let sum: f32 = grad.par_chunks(share).map(sum_of_squares).sum();
    let factor = 1e-6 / (sum + 1.0);
    (grad.par_chunks_mut(share))
        .zip(weight.par_chunks(share))
        .for_each(|(grad, weight)| add(weight, factor, grad));
    start.elapsed()
}

#[multiversion(targets("x86_64+avx2"))]
fn sum_of_squares(values: &[f32]) -> f32 {
    let mut sums = [0.0f32; 32];
    for block in values.as_chunks::<32>().0 {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += value * value;
        }
    }
    sums.iter().sum()
}

#[multiversion(targets("x86_64+avx2"))]
fn add(weight: &[f32], factor: f32, grad: &mut [f32]) {
    for (g, w) in grad.iter_mut().zip(weight) {
        *g = w + factor * *g;
    }
}
