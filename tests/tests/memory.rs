//! What a first step allocates. In a program of its own, for its allocator.

use std::alloc::System;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{DType, Device, Tensor};
use burn_sam::SamConfig;
use burn_sam_tests::{Parameters, cpu_devices, devices, wgpu_device};
use example_common::{Counting, allocated};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// One test at a time: the count is of all threads.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two parameters of 4 MiB each, or of so many times that.
fn parameters(device: &Device, times: usize) -> (Parameters, GradientsParams) {
    let mut module = Parameters::default();
    let mut grads = GradientsParams::new();
    let on = (device, DType::F32);
    for shape in [&[times << 20][..], &[times << 10, 1 << 10]] {
        let values = vec![0.5; times << 20];
        module.push(shape, &values, Some(&values), false, on, &mut grads);
    }
    (module, grads)
}

#[test]
fn a_first_step_writes_into_the_gradients() {
    let _alone = alone();
    for device in cpu_devices() {
        for adaptive in [false, true] {
            let (module, grads) = parameters(&device, 1);
            let sam = SamConfig::new().with_adaptive(adaptive);
            let before = allocated();
            let climbed = sam.climb(module.clone(), grads);
            let bytes = allocated() - before;
            let size = 4 * module.num_params();
            assert!(100 * bytes < size, "{bytes} of {size} on {device:?}");
            drop(climbed);
        }
    }
}

/// As where a forward pass puts parameters together. Each is copied alone, and not with all others.
#[test]
fn gradients_that_are_parts_of_one_tensor_are_copied_once() {
    const COUNT: usize = 64;
    const LEN: usize = 1 << 12;
    let _alone = alone();
    for device in cpu_devices() {
        let with_autodiff = device.clone().autodiff();
        let zeros = || Param::from_tensor(Tensor::<1>::zeros([LEN], &with_autodiff));
        let module: Vec<Param<Tensor<1>>> = (0..COUNT).map(|_| zeros()).collect();
        let all = Tensor::<1>::ones([COUNT * LEN], &device);
        let mut grads = GradientsParams::new();
        for (index, weight) in module.iter().enumerate() {
            grads.register(weight.id, all.clone().narrow(0, index * LEN, LEN));
        }
        let before = allocated();
        let climbed = SamConfig::new().with_rho(512.0).climb(module, grads);
        let bytes = allocated() - before;
        let size = 4 * COUNT * LEN;
        assert!(bytes < 2 * size, "{bytes} of {size} on {device:?}");
        // |g| = 512
        for weight in climbed.iter() {
            assert!(
                burn_sam_tests::read(weight.val().inner())
                    .iter()
                    .all(|w| (w - 1.0).abs() < 1e-5)
            );
        }
        assert_eq!(burn_sam_tests::read(all), vec![1.0; COUNT * LEN]);
    }
}

/// In a loop, over the weights before the last update.
#[test]
fn msam_climbs_into_what_it_keeps() {
    let _alone = alone();
    for device in cpu_devices() {
        let (mut module, _) = parameters(&device.clone().autodiff(), 1);
        let size = 4 * module.num_params();
        for sam in [SamConfig::msam(), SamConfig::auto()] {
            let (mut steps, mut optim) = (sam.steps(&module), SgdConfig::new().init());
            for step in 0..25 {
                let (mut climb, before) = (0, allocated());
                (module, _) = steps.minimize(&mut optim, 0.1, module, |module: &Parameters| {
                    climb = allocated() - before;
                    (module.rank1[0].val().square().mean())
                        .add(module.rank2[0].val().square().mean())
                });
                // The first has nothing to climb along.
                let is_small = step == 0 || 100 * climb < size;
                assert!(is_small, "{climb} of {size} on {device:?} at {step}");
            }
        }
    }
}

/// On a GPU, where the allocator's pools would have to grow.
#[test]
fn a_first_step_writes_into_the_gradients_on_wgpu() {
    let _alone = alone();
    let Some(device) = wgpu_device() else { return };
    let reserved = || {
        device.sync().unwrap();
        device
            .memory_pool_usage()
            .expect("wgpu reports it")
            .bytes_reserved
    };
    let growth = |times, held: bool| {
        let (module, grads) = parameters(&device, times);
        let values: Vec<Tensor<1>> = match held {
            true => vec![grads.get::<1>(module.rank1[0].id).unwrap()],
            false => Vec::new(),
        };
        let sam = SamConfig::new();
        device.sync().unwrap();
        device.memory_cleanup();
        let before = reserved();
        let climbed = sam.climb(module.clone(), grads);
        let growth = reserved() - before;
        drop((climbed, values));
        growth as i64
    };
    // A pool grows by whole pages, if only for the norm.
    let page = growth(1, false);
    let size = 8 * (8 << 20);
    let grown = growth(8, false) - page;
    assert!(100 * grown < size, "{grown} of {size}");
    // Were it written elsewhere, it would show, as it does for a gradient that is held.
    let grown = growth(8, true) - page;
    assert!(2 * grown >= size, "{grown} of {size}");
}

/// Each launch costs a GPU as much as a small model's sums.
#[cfg(feature = "wgpu-unfused")]
#[test]
fn a_step_launches_few_kernels_on_wgpu() {
    use burn_sam_kernels::internals::launches;

    let _alone = alone();
    let Some(device) = wgpu_device() else { return };
    let (module, _) = parameters(&device.clone().autodiff(), 1);
    // Two for each sum over all weights, one for each update of them all, and one for whatever is made of numbers.
    for (sam, expected) in [
        (SamConfig::new(), 7),
        (SamConfig::msam(), 3),
        (SamConfig::auto(), 12),
        (SamConfig::auto_two_pass(), 10),
    ] {
        let (mut steps, mut optim) = (sam.steps(&module), SgdConfig::new().init());
        let (mut module, mut before) = (module.clone(), 0);
        for step in 0..26 {
            if step == 25 {
                device.sync().unwrap();
                before = launches();
            }
            (module, _) = steps.minimize(&mut optim, 0.1, module, |module: &Parameters| {
                (module.rank1[0].val().square().mean()).add(module.rank2[0].val().square().mean())
            });
        }
        device.sync().unwrap();
        assert_eq!(launches() - before, expected, "{sam:?}");
    }
}

/// A gradient that the caller still holds is not written over.
#[test]
fn gradients_that_are_held_stay() {
    let _alone = alone();
    for device in devices() {
        let weight = Param::from_tensor(Tensor::<1>::zeros([4], &device.clone().autodiff()));
        let grad = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &device);
        let mut grads = GradientsParams::new();
        grads.register(weight.id, grad.clone());
        let sam = SamConfig::new();
        let _ = sam.climb(weight.clone(), grads);
        assert_eq!(burn_sam_tests::read(grad), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(burn_sam_tests::read(weight.val()), [0.0; 4]);
    }
}
