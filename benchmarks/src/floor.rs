//! The floor: how long memory alone takes to read g, to read w and g, and to write over g.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

/// Streams of `len` f32 values.
pub(crate) enum Floor {
    /// Of the host's memory.
    Host { weight: Vec<f32>, grad: Vec<f32> },
    /// Of a GPU's: the bytes that must move are those of two copies.
    Gpu { values: Tensor<1> },
}

impl Floor {
    pub(crate) fn host(len: usize) -> Self {
        Self::Host {
            weight: vec![0.5; len],
            grad: vec![0.25; len],
        }
    }

    pub(crate) fn gpu(len: usize, device: &Device) -> Self {
        Self::Gpu {
            values: Tensor::ones([len], &device.clone().inner()),
        }
    }

    /// One round.
    pub(crate) fn stream(&mut self) -> Duration {
        match self {
            Self::Host { weight, grad } => stream_host(weight, grad),
            Self::Gpu { values } => {
                let device = values.device();
                let sync = || device.sync().expect("the device works");
                sync();
                let start = Instant::now();
                for _ in 0..2 {
                    // A kernel of its own each time: the copy is freed after it has been made.
                    let _copy = values.clone().mul_scalar(1.5);
                    sync();
                }
                start.elapsed()
            }
        }
    }
}

/// On as many threads as rayon has, an equal share for each.
fn stream_host(weight: &[f32], grad: &mut [f32]) -> Duration {
    let start = Instant::now();
    let share = grad.len().div_ceil(rayon::current_num_threads());
    let sum: f32 = (grad.par_chunks(share))
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
    (grad.par_chunks_mut(share))
        .zip(weight.par_chunks(share))
        .for_each(|(grad, weight)| {
            for (g, w) in grad.iter_mut().zip(weight) {
                *g = w + factor * *g;
            }
        });
    start.elapsed()
}
