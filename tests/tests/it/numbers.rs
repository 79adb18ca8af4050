//! The numbers that equations are made of.

use burn::tensor::{DType, Device, FloatDType, Tensor};
use burn_sam_kernels::internals::WithoutKernels;
use burn_sam_kernels::{Number, Part, Vector};
use burn_sam_tests::{cpu_devices, devices, panic_message, random_cases};
use proptest::prelude::*;

fn any_number() -> impl Strategy<Value = f64> {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0];
    prop_oneof![-10.0..10.0f64, prop::sample::select(odd.to_vec())]
}

/// All that equations do with numbers.
fn all(x: &Number, y: &Number) -> Vec<Number> {
    let flag = x.is_below(y);
    let one = Number::from(1.0);
    let flags = [
        flag.clone(),
        x.is_below(1.0),
        one.is_below(x),
        x.is_nan(),
        x.is_not_finite(),
        x.is_at_most(0.0),
        x.is_at_most(y),
        one.is_at_most(x),
        x.is(0.0),
        x.is(y),
        flag.not(),
        flag.or(&x.is_nan()),
        flag.or(&true.into()),
        flag.and(&y.is_not_finite()),
        flag.and(&true.into()),
    ];
    let flags = flags.map(|flag| Number::from(0.0).or_if(&flag, 1.0));
    let numbers = [
        x.or(0.5).clamp(0.1, 8.0).powf(-0.05),
        x + y,
        x - y,
        x * y,
        x / y,
        2.0 - y.clone(),
        2.0 / y.clone(),
        y / 3.0,
        -x.clone(),
        x.sqrt(),
        x.or(0.5).clamp(-1.0, 2.0),
        x.max(y),
        x.min(y),
        x.or(y),
        x.or_if(&flag, y),
        x.or_if(&flag, 7.0),
        Number::from(7.0).or_if(&flag, y),
    ];
    numbers.into_iter().chain(flags).collect()
}

/// In f64, on a device of which the host knows nothing.
fn unknown(value: f64) -> Number {
    let _on_device = WithoutKernels::new();
    Number::from(in_f64(&[value]))
}

fn in_f64(values: &[f64]) -> Tensor<1> {
    Tensor::from_data(values, (&Device::flex(), DType::F64))
}

/// Where a number can be.
const PLACES: [fn(f64) -> Number; 2] = [Number::from, unknown];

fn is_same(value: f64, expected: f64, tolerance: f64) -> bool {
    value == expected
        || (value - expected).abs() <= tolerance * expected.abs()
        || (value.is_nan() && expected.is_nan())
}

proptest! {
    #![proptest_config(random_cases(64))]

    /// On the CPU on the portable path, and elsewhere by kernels.
    #[test]
    fn an_equation_is_the_same_on_every_device(x in any_number(), y in any_number()) {
        for device in devices() {
            let _guard = cpu_devices().contains(&device).then(WithoutKernels::new);
            for (dtype, tolerance) in [(FloatDType::F32, 1e-5), (FloatDType::F64, 1e-12)] {
                if !device.supports_dtype(dtype) {
                    continue;
                }
                let rounded = |value: f64| match dtype {
                    FloatDType::F64 => value,
                    _ => f64::from(value as f32),
                };
                let (x, y) = (rounded(x), rounded(y));
                let [of_x, of_y] = Number::all(Tensor::from_data([x, y], (&device, DType::from(dtype))));
                let expected = all(&x.into(), &y.into());
                for (x, y, expected) in [
                    (&of_x, &of_y, &expected),
                    (&of_x, &y.into(), &expected),
                    (&x.into(), &of_y, &expected),
                ] {
                    let numbers = all(x, y);
                    let alone = numbers[1].read();
                    let values = at_once(numbers, &device, dtype);
                    prop_assert!(is_same(alone, values[1], tolerance), "{alone} alone, {} with others", values[1]);
                    for (index, (value, expected)) in values.into_iter().zip(expected).enumerate() {
                        let expected = expected.host().unwrap();
                        // Powers are those of f32 on ndarray and on GPUs.
                        let tolerance = if index == 0 { 1e-5 } else { tolerance };
                        prop_assert!(
                            is_same(value, expected, tolerance),
                            "{index}: {value} for {expected}, of {x:?} and {y:?} on {device:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_put_into_a_tensor_comes_back(x in any_number(), y in any_number()) {
        for (of_x, of_y) in PLACES.into_iter().flat_map(|x| PLACES.map(|y| (x, y))) {
            let tensor = Number::tensor([of_x(x), of_y(y)], &Device::flex(), FloatDType::F64);
            prop_assert_eq!(tensor.dims(), [2]);
            let values = [0, 1].map(|index| Number::at(tensor.clone(), index).read());
            prop_assert_eq!(values.map(f64::to_bits), [x, y].map(f64::to_bits));
        }
    }
}

/// Six at a time.
fn at_once(numbers: Vec<Number>, device: &Device, dtype: FloatDType) -> Vec<f64> {
    let six = |numbers: &[Number]| -> Vec<f64> {
        let six = core::array::from_fn::<_, 6, _>(|index| {
            let number = numbers.get(index).cloned();
            number.unwrap_or(0.0.into())
        });
        let tensor = Number::tensor(six, device, dtype);
        tensor.into_data().iter().take(numbers.len()).collect()
    };
    numbers.chunks(6).flat_map(six).collect()
}

#[test]
fn numbers_of_several_types_are_worked_out_in_the_widest() {
    let third = unknown(1.0 / 3.0);
    let _on_device = WithoutKernels::new();
    let narrow = Number::from(in_f64(&[2.0]).cast(DType::F32));
    let half = Number::from(in_f64(&[2.0]).cast(DType::F16));
    for (x, y) in [(&third, &narrow), (&narrow, &third), (&half, &third)] {
        assert_eq!((x * y).read(), 2.0 / 3.0);
    }
    // Of flags, too.
    assert_eq!(narrow.or_if(&third.is_below(1.0), &third).read(), 1.0 / 3.0);
    assert_eq!(third.or_if(&narrow.is_below(1.0), 5.0).read(), 1.0 / 3.0);
    assert_eq!((&narrow / 3.0).read(), f64::from(2.0f32 / 3.0));
    let both = Number::tensor([third, narrow], &Device::flex(), FloatDType::F64);
    assert_eq!(both.into_data(), in_f64(&[1.0 / 3.0, 2.0]).into_data());
}

#[test]
fn numbers_reach_across_devices() {
    let [flex, ndarray] = &cpu_devices()[..] else {
        panic!("two CPU devices")
    };
    let _on_device = WithoutKernels::new();
    let [x, y] = [flex, ndarray].map(|device| Number::from(Tensor::from_floats([3.0], device)));
    assert_eq!((&x * &y).read(), 9.0);
    for device in [flex, ndarray] {
        let both = Number::tensor([&x + &y, y.clone()], device, FloatDType::F32);
        assert_eq!(&both.device(), device);
        assert_eq!(burn_sam_tests::read(both), [6.0, 3.0]);
    }
}

#[test]
fn vectors_are_multiplied_by_them_wherever_they_are() {
    let vector = |values: [f64; 2]| -> Vector {
        let part = Part::new(0, in_f64(&values));
        [part].into_iter().collect()
    };
    let combined = |x, y| -> Vec<f64> {
        let combined = vector([1.0, 2.0]).combine(x, &[(&vector([10.0, f64::NAN]), y)]);
        let part = combined.into_iter().next().unwrap();
        part.flat().into_data().iter().collect()
    };
    for (x, y) in PLACES.into_iter().flat_map(|x| PLACES.map(|y| (x, y))) {
        assert_eq!(combined(x(3.0), y(0.0)), [3.0, 6.0]);
        assert_eq!(combined(x(3.0), y(0.5))[0], 8.0);
    }
}

#[test]
fn a_tensor_of_another_length_is_refused() {
    let two = || Tensor::<1>::ones([2], &Device::flex());
    let message = panic_message(|| Number::all::<3>(two()));
    assert!(message.contains("a tensor of so many numbers"), "{message}");
    let message = panic_message(|| Number::at(two(), 2));
    assert!(message.contains("number 2 of 2"), "{message}");
}
