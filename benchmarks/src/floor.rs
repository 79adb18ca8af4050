//! The floor: how long memory alone takes to read g, to read w and g, and to write over g.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

/// Streams so many f32 values.
pub(crate) type Floor = Box<dyn FnMut() -> Duration>;

/// In the host's memory.
pub(crate) fn host(len: usize) -> Floor {
    let weight = vec![0.5; len];
    let mut grad = vec![0.25; len];
    Box::new(move || stream(&weight, &mut grad))
}

/// In a GPU's: the bytes that must move are those of two copies, by Burn's kernels.
pub(crate) fn gpu(len: usize, device: &Device) -> Floor {
    let device = device.clone().inner();
    let values = Tensor::<1>::ones([len], &device);
    Box::new(move || {
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

/// On as many threads as rayon has, an equal share for each.
fn stream(weight: &[f32], grad: &mut [f32]) -> Duration {
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
