//! What a first step allocates. In a program of its own, for its allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{DType, Device, Tensor};
use burn_sam::SamConfig;
use burn_sam_tests::{Parameters, cpu_devices};

/// The system's allocator, with a count of the bytes it was asked for.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all of it is the system's allocator; counting touches no memory of its.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on, and `alloc` is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Two parameters of 4 MiB each.
fn parameters(device: &Device) -> (Parameters, GradientsParams) {
    let mut module = Parameters::default();
    let mut grads = GradientsParams::new();
    let on = (device, DType::F32);
    for shape in [&[1 << 20][..], &[1 << 10, 1 << 10]] {
        let values = vec![0.5; 1 << 20];
        module.push(shape, &values, Some(&values), false, on, &mut grads);
    }
    (module, grads)
}

#[test]
fn a_first_step_writes_into_the_gradients() {
    for device in cpu_devices() {
        for adaptive in [false, true] {
            let (module, grads) = parameters(&device);
            let sam = SamConfig::new()
                .with_adaptive(adaptive)
                .optimizer(SgdConfig::new().build());
            let before = ALLOCATED.load(Ordering::Relaxed);
            let climbed = sam.first_step(&module, grads);
            let allocated = ALLOCATED.load(Ordering::Relaxed) - before;
            let size = 4 * module.num_params();
            assert!(
                100 * allocated < size,
                "{allocated} of {size} on {device:?}"
            );
            drop(climbed);
        }
    }
}

/// A gradient that the caller still holds is not written over.
#[test]
fn gradients_that_are_held_stay() {
    for device in cpu_devices() {
        let weight = Param::from_tensor(Tensor::<1>::zeros([4], &device.clone().autodiff()));
        let grad = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &device);
        let mut grads = GradientsParams::new();
        grads.register(weight.id, grad.clone());
        let sam = SamConfig::new().optimizer(SgdConfig::new().build());
        sam.first_step(&weight, grads);
        assert_eq!(burn_sam_tests::read(grad), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(burn_sam_tests::read(weight.val()), [0.0; 4]);
    }
}
