//! The portable operations by themselves; `ascent` tests what they make together.

use burn::tensor::{DType, Tensor};
use burn_sam_kernels::portable::{Scale, perturb, sum_of_squares, total};
use burn_sam_tests::{cpu_devices, devices, read, tensor};

#[test]
fn sums_are_wide_and_total_takes_the_widest() {
    for device in cpu_devices() {
        let of = |dtype: DType| {
            let ones = Tensor::<1>::ones([3], (&device, dtype));
            sum_of_squares(&ones, ones.clone(), None)
        };
        for half in [DType::F16, DType::BF16] {
            if device.supports_dtype(half) {
                assert_eq!(of(half).dtype(), DType::F32);
            }
        }
        assert_eq!(of(DType::F32).dtype(), DType::F32);
        assert_eq!(of(DType::F64).dtype(), DType::F64);

        let sum = total(vec![of(DType::F32), of(DType::F64), of(DType::F32)]).unwrap();
        assert_eq!(sum.dtype(), DType::F64);
        assert_eq!(read(sum), [9.0]);
    }
}

#[test]
fn no_sums_have_no_total_and_empty_tensors_sum_to_nothing() {
    assert!(total(Vec::new()).is_none());
    for device in devices() {
        let empty = Tensor::<2>::zeros([0, 3], &device);
        assert_eq!(read(sum_of_squares(&empty, empty.clone(), None)), [0.0]);
        let scale = Scale::new(Tensor::ones([1], &device), 0.0);
        let climbed = perturb(empty.clone(), empty, &scale, 1.0, None);
        assert_eq!(climbed.dims(), [0, 3]);
    }
}

#[test]
fn total_reaches_across_devices() {
    let [flex, ndarray] = &cpu_devices()[..] else {
        panic!("two CPU devices")
    };
    let sum = total(vec![
        Tensor::<1>::from_floats([9.0], ndarray),
        Tensor::<1>::from_floats([16.0], flex),
    ])
    .unwrap();
    assert_eq!(&sum.device(), ndarray);

    // And the scale reaches a parameter on the other device.
    let weight = Tensor::<1>::from_floats([1.0], flex);
    let climbed = perturb(weight.clone(), weight, &Scale::new(sum, 0.0), 10.0, None);
    assert_eq!(read(climbed), [3.0]);
}

#[test]
fn asam_weighs_by_the_weights() {
    for device in devices() {
        let on = (&device, DType::F32);
        let weight = tensor([2, 2], &[1.0, -2.0, 0.0, 4.0], true, on);
        let grad = tensor([2, 2], &[2.0, 1.0, 5.0, -0.5], true, on);
        // T = |w| + 1: T g = [4, 3, 5, -2.5], T² g = [8, 9, 5, -12.5].
        let sum = sum_of_squares(&weight, grad.clone(), Some(1.0));
        assert_eq!(read(sum.clone()), [56.25]);
        let climbed = perturb(weight, grad, &Scale::new(sum, 0.0), 7.5, Some(1.0));
        assert_eq!(read(climbed), [9.0, 7.0, 5.0, -8.5]);
    }
}

#[test]
fn eps_is_added_to_the_norm() {
    for device in devices() {
        let one = Tensor::<1>::from_floats([1.0], &device);
        let scale = Scale::new(Tensor::from_floats([9.0], &device), 1.0);
        assert_eq!(read(perturb(one.clone(), one, &scale, 4.0, None)), [2.0]);
    }
}
