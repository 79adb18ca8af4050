//! The operations by themselves; `ascent` tests what they make together.

use burn::tensor::{DType, Device, Tensor};
use burn_sam_kernels::internals::WithoutKernels;
use burn_sam_kernels::portable::{self, Scale, inner_product, perturb, sum_of_squares, total};
use burn_sam_kernels::{Along, Instead, Length, Number, Part, Vector};
use burn_sam_tests::{
    cpu_devices, devices, panic_message, pseudo_random, random_cases, read, tensor,
};
use proptest::prelude::*;

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
        let scale = Scale::new(Tensor::ones([1], &device), 0.0, None);
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
    let climbed = perturb(
        weight.clone(),
        weight,
        &Scale::new(sum, 0.0, None),
        10.0,
        None,
    );
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
        let climbed = perturb(weight, grad, &Scale::new(sum, 0.0, None), 7.5, Some(1.0));
        assert_eq!(read(climbed), [9.0, 7.0, 5.0, -8.5]);
    }
}

fn vector<const D: usize>(tensors: impl IntoIterator<Item = Tensor<D>>) -> Vector {
    (tensors.into_iter().enumerate())
        .map(|(place, tensor)| Part::new(place, tensor))
        .collect()
}

fn tensors<const D: usize>(vector: Vector) -> Vec<Tensor<D>> {
    vector.into_iter().map(Part::into_tensor).collect()
}

/// Each device with its kernels and on the portable path.
fn ways() -> impl Iterator<Item = (Device, bool)> {
    devices()
        .into_iter()
        .flat_map(|device| [(device.clone(), true), (device, false)])
}

/// Along a gradient, with this eta.
fn gradient(eta: Option<f64>) -> Along {
    Along::Gradient { eta }
}

#[test]
fn vectors_reach_across_devices_and_write_in_place_only_what_is_theirs() {
    let [flex, ndarray] = &cpu_devices()[..] else {
        panic!("two CPU devices")
    };
    let of = |values: [f32; 2], device: &Device| Tensor::<1>::from_floats(values, device);
    let held = of([1.0, 2.0], flex);
    let a = || vector([held.clone(), of([5.0, 6.0], ndarray)]);
    let b = vector([of([3.0, 4.0], ndarray), of([7.0, 8.0], flex)]);
    let products = a().products(&b).unwrap().map(|product| product.read());
    assert_eq!(products, [66.0, 94.0, 138.0]);
    let twice = vector([of([6.0, 8.0], flex), of([14.0, 16.0], ndarray)]);
    let slope = a().slope(&b, &twice).unwrap().map(|product| product.read());
    assert_eq!(slope, [66.0, 94.0]);
    let number = |value: f32| Number::from(Tensor::from_floats([value], ndarray));
    let combined = tensors::<1>(a().combine(number(2.0), &[(&b, number(-1.0))]));
    assert_eq!(
        [combined[0].device(), combined[1].device()],
        [flex.clone(), ndarray.clone()]
    );
    assert_eq!(
        combined.into_iter().map(read).collect::<Vec<_>>(),
        [[-1.0, 0.0], [3.0, 4.0]]
    );
    let scaled = tensors::<1>(a().scaled(number(0.5)));
    assert_eq!(
        scaled.into_iter().map(read).collect::<Vec<_>>(),
        [[0.5, 1.0], [2.5, 3.0]]
    );
    assert_eq!(read(held.clone()), [1.0, 2.0]);
    assert!(Vector::new().products(&b).is_none());
    assert!(Vector::new().squared_norm().is_none());
    let three = vector([Tensor::<1>::ones([3], flex)]);
    let message = panic_message(|| a().products(&three));
    assert!(message.contains("must have the same shape"), "{message}");
    let message = panic_message(|| a().combine(1.0, &[(&b, 1.0), (&b, 1.0), (&b, 1.0)]));
    assert!(message.contains("at most two other vectors"), "{message}");
}

/// Vectors need not have parts of the same parameters.
#[test]
fn parts_are_told_by_their_places() {
    for device in devices() {
        let of = |places: &[usize]| -> Vector {
            let part = |&place| {
                let value = Tensor::<1>::from_floats([place as f32 + 1.0], &device);
                Part::new(place, value)
            };
            places.iter().map(part).collect()
        };
        let values = |vector: Vector| -> Vec<(usize, f32)> {
            let value = |part: Part| (part.place(), read(part.into_tensor::<1>())[0]);
            vector.into_iter().map(value).collect()
        };
        let (a, b) = (of(&[0, 2, 3]), of(&[1, 2]));
        let [aa, ab, bb] = a.products(&b).unwrap().map(|product| product.read());
        assert_eq!([aa, ab, bb], [9.0, 9.0, 9.0]);
        assert!(a.products(&of(&[1])).is_none());
        let twice = a.clone().combine(1.0, &[(&b, 1.0)]);
        assert_eq!(values(twice), [(0, 1.0), (2, 6.0), (3, 4.0)]);
        assert_eq!(values(b.padded(&a)), [(0, 0.0), (2, 3.0), (3, 0.0)]);
        assert_eq!(
            values(a.clone().filtered(|place| place > 1)),
            [(2, 3.0), (3, 4.0)]
        );
        assert_eq!(values(of(&[3]).merged(of(&[0]))), [(0, 1.0), (3, 4.0)]);
        assert!(a.get(1).is_none() && a.get(3).is_some() && a.len() == 3);
        let message = panic_message(|| of(&[1, 1]));
        assert!(message.contains("in the module's order"), "{message}");
        let along = gradient(None);
        let norm = Length::new(1.0, 0.0, None);
        let message = panic_message(|| a.clone().path(&b, along).end(|_| 1.0, &norm));
        assert!(
            message.contains("miss the parameter at place 0"),
            "{message}"
        );
        let message = panic_message(|| a.clone().scaled_or(None, true.into(), Instead::Vector(&b)));
        assert!(message.contains("misses a parameter"), "{message}");
        let part = a.get(0).unwrap().clone();
        let message = panic_message(|| part.into_tensor::<2>());
        assert!(message.contains("another rank"), "{message}");
    }
}

/// Along w less its value before, whatever way the backend takes.
#[test]
fn parameters_climb_along_their_updates() {
    for device in devices() {
        let on = (&device, DType::F32);
        let weight = tensor([2, 2], &[1.0, -2.0, 0.0, 4.0], true, on);
        let before = tensor([2, 2], &[4.0, 2.0, 0.0, 4.0], false, on);
        let weights = vector([weight.clone(), weight]);
        let befores = vector([before.clone(), before.clone()]);
        let path = befores.path(&weights, Along::Update);
        let norm = path.squared_length().unwrap();
        assert_eq!(norm.read(), 50.0);
        let quarter = Length::new(norm / 2.0, 0.0, None);
        let rho = |place| [10.0, 0.0][place];
        let climbed = path.end(rho, &quarter);
        let climbed: Vec<_> = tensors::<2>(climbed).into_iter().map(read).collect();
        assert_eq!(climbed[0], [-5.0, -10.0, 0.0, 4.0]);
        assert_eq!(climbed[1], [1.0, -2.0, 0.0, 4.0]);
        // Nothing is perturbed along an update that is not finite, and what is held stays.
        assert_eq!(read(before.clone()), [4.0, 2.0, 0.0, 4.0]);
        let bad = vector([before * f32::NAN]);
        let path = bad.path(&weights, Along::Update);
        let norm = path.squared_length().unwrap();
        let climbed = path.end(|_| 10.0, &Length::new(norm, 0.0, None));
        assert_eq!(read(tensors::<2>(climbed).remove(0)), [1.0, -2.0, 0.0, 4.0]);
    }
}

#[test]
fn eps_is_added_to_the_norm() {
    for device in devices() {
        let one = Tensor::<1>::from_floats([1.0], &device);
        let scale = Scale::new(Tensor::from_floats([9.0], &device), 1.0, None);
        assert_eq!(read(perturb(one.clone(), one, &scale, 4.0, None)), [2.0]);
    }
}

proptest! {
    #![proptest_config(random_cases(48))]

    /// The same for the operations on pairs and threes, with coefficients that read all of them or leave out
    /// what is not finite.
    #[test]
    fn kernels_on_pairs_equal_the_portable_path(
        shapes in prop::collection::vec(([0..5usize, 0..70, 0..70], any::<bool>()), 1..5),
        coefficients in prop::array::uniform3(prop_oneof![Just(0.0), Just(1.0), -2.0..2.0f64]),
        third: bool,
        bad in prop_oneof![Just(1.0), Just(f64::NAN), Just(f64::INFINITY)],
        seed: u32,
    ) {
        for (device, has_kernels) in ways() {
            let _guard = (!has_kernels).then(WithoutKernels::new);
            for (dtype, tolerance) in [
                (DType::F64, 1e-12),
                (DType::F32, 1e-6),
                (DType::F16, 1e-3),
                (DType::BF16, 8e-3),
            ] {
                // With fusion, Burn 0.22.1 at times reads a view of wgpu's in the wrong order, and a masked f64 wrongly.
                let is_tried = has_kernels || cpu_devices().contains(&device);
                if !device.supports_dtype(dtype) || !is_tried {
                    continue;
                }
                // With fusion, Burn 0.22.1 at times reads an f16 view of wgpu's in the wrong order, and so the
                // portable path does.
                let reference_device = match dtype {
                    DType::F16 | DType::BF16 => &cpu_devices()[0],
                    _ => &device,
                };
                let scaled = |device: &Device, scales: [f64; 3]| -> Vec<[Tensor<3>; 3]> {
                    (shapes.iter().enumerate())
                        .map(|(index, (shape, transposed))| {
                            let seed = u64::from(seed) + 3 * index as u64;
                            // The layouts need not be the same.
                            [(0, *transposed), (1, false), (2, *transposed)].map(|(term, transposed)| {
                                let values: Vec<f64> =
                                    pseudo_random(seed + term as u64, shape.iter().product())
                                        .into_iter()
                                        .map(|value| f64::from(value) * scales[term])
                                        .collect();
                                tensor(*shape, &values, transposed, (device, dtype))
                            })
                        })
                        .collect()
                };
                // What is left out may hold anything, and only it.
                let scales = coefficients.map(|value| if value == 0.0 { bad } else { 1.0 });
                let made = |device: &Device| scaled(device, scales);
                let of = |term: usize| vector(made(&device).into_iter().map(|terms| terms[term].clone()));
                let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };

                let products = of(0).products(&of(1)).unwrap();
                let slope = of(0).slope(&of(2), &of(1)).unwrap();
                let expected = [0, 1, 2, 0, 3].map(|which| {
                    total(made(reference_device).into_iter().map(|[a, b, c]| match which {
                        0 => inner_product(a.clone(), a),
                        1 => inner_product(a, b),
                        2 => inner_product(b.clone(), b),
                        _ => inner_product(a, b.cast(wide) - c.cast(wide)),
                    }).collect()).unwrap()
                });
                for (product, expected) in products.into_iter().chain(slope).zip(expected) {
                    let (product, expected) = (product.read(), one(expected));
                    let bound = f64::min(tolerance, 1e-5) * (1.0 + expected.abs()) * 10.0;
                    prop_assert!(
                        (product - expected).abs() <= bound || (!product.is_finite() && !expected.is_finite()),
                        "{} for {} in {:?} on {:?}", product, expected, dtype, device
                    );
                }

                // What is not taken may hold anything.
                let flag = coefficients[1] == 0.0;
                let all = |scales| -> [Vec<Tensor<3>>; 3] {
                    let terms = scaled(&device, scales);
                    [0, 1, 2].map(|term| terms.iter().map(|terms| terms[term].clone()).collect())
                };
                for (share, way) in [(None, false), (Some(0.5), false), (None, true), (Some(0.5), true)] {
                    let number = |value: f64| Number::from(Tensor::from_data([value], (&device, wide)));
                    let [a, b, c] = all([!flag, flag, flag].map(|taken| if taken { 1.0 } else { bad }));
                    let taken = number(f64::from(flag)).is(1.0);
                    let [b, c] = [b, c].map(vector);
                    let instead = match way {
                        false => Instead::Vector(&b),
                        true => Instead::Way { from: &b, to: c, times: number(3.0) },
                    };
                    let chosen = vector(a).scaled_or(share.map(number), taken, instead);
                    let of = all([1.0; 3]);
                    for (index, chosen) in tensors::<3>(chosen).into_iter().enumerate() {
                        let [a, b, c] = of.each_ref().map(|of| of[index].clone());
                        let expected = match (flag, way) {
                            (false, _) => a * share.unwrap_or(1.0),
                            (true, false) => b,
                            (true, true) => (c - b) * 3.0,
                        };
                        prop_assert_eq!(chosen.dtype(), dtype);
                        for (chosen, expected) in values_of(chosen).zip(values_of(expected)) {
                            prop_assert!(
                                (chosen - expected).abs() <= tolerance * (4.0 + expected.abs()),
                                "{} for {} in {:?} on {:?}, kernels: {}, {:?}, way: {}",
                                chosen, expected, dtype, device, has_kernels, share, way
                            );
                        }
                    }
                }

                let terms = if third { 3 } else { 2 };
                let on = |device: &Device| -> Vec<Tensor<1>> {
                    (coefficients[..terms].iter())
                        .map(|value| Tensor::from_data([*value], (device, wide)))
                        .collect()
                };
                let numbers: Vec<Number> = on(&device).into_iter().map(Number::from).collect();
                let others = [of(1), of(2)];
                let others: Vec<(&Vector, Number)> =
                    others.iter().zip(numbers[1..].iter().cloned()).collect();
                let combined = of(0).combine(numbers[0].clone(), &others);
                let by_numbers: Vec<(&Vector, f64)> = (others.iter().zip(&coefficients[1..]))
                    .map(|((vector, _), number)| (*vector, *number))
                    .collect();
                let by_numbers = tensors::<3>(of(0).combine(coefficients[0], &by_numbers));
                let mut by_numbers =
                    by_numbers.into_iter().map(|tensor| values_of(tensor).collect::<Vec<_>>());
                for (combined, expected) in tensors::<3>(combined).into_iter().zip(made(reference_device)) {
                    let [a, b, c] = expected;
                    prop_assert_eq!(combined.dtype(), dtype);
                    prop_assert_eq!(combined.shape(), a.shape());
                    let stays = coefficients[..terms] == [1.0, 0.0, 0.0][..terms];
                    let others = &[b, c][..terms - 1];
                    prop_assert!(by_numbers.next().unwrap() == values_of(combined.clone()).collect::<Vec<_>>());
                    let expected = portable::combine(a.clone(), others, &on(reference_device));
                    if stays {
                        prop_assert!(values_of(combined.clone()).eq(values_of(a)), "a stays");
                    }
                    for (combined, expected) in values_of(combined).zip(values_of(expected)) {
                        prop_assert!(
                            (combined - expected).abs() <= tolerance * (4.0 + expected.abs()),
                            "{} for {} in {:?} on {:?}", combined, expected, dtype, device
                        );
                    }
                }
            }
        }
    }

    /// The backends' own kernels compute what the portable path does.
    #[test]
    fn kernels_equal_the_portable_path(
        shapes in prop::collection::vec(([0..5usize, 0..70, 0..70], any::<bool>()), 1..5),
        rhos in prop::array::uniform4(prop_oneof![Just(0.0), 0.01..2.0]),
        eta in prop::option::of(0.0..0.1),
        factor in prop::option::of(0.1..2.0f64),
        seed: u32,
        scale in prop_oneof![Just(0.0), Just(f64::INFINITY), Just(f64::NAN), 1e-3..1e3],
    ) {
        for (device, has_kernels) in ways() {
            let _guard = (!has_kernels).then(WithoutKernels::new);
            // Of half precision, the last bit may differ: it is rounded from f32.
            for (dtype, tolerance) in [
                (DType::F64, 1e-12),
                (DType::F32, 1e-6),
                (DType::F16, 1e-3),
                (DType::BF16, 8e-3),
            ] {
                // With fusion, as above.
                let is_tried = has_kernels || dtype == DType::F32 || cpu_devices().contains(&device);
                if !device.supports_dtype(dtype) || !is_tried {
                    continue;
                }
                let made = |device: &Device| -> Vec<(Tensor<3>, Tensor<3>)> {
                    (shapes.iter().enumerate())
                        .map(|(index, (shape, transposed))| {
                            let make = |seed, scale: f64| {
                                let values: Vec<f64> = pseudo_random(seed, shape.iter().product())
                                    .into_iter()
                                    .map(|value| f64::from(value) * scale)
                                    .collect();
                                tensor(*shape, &values, *transposed, (device, dtype))
                            };
                            let seed = u64::from(seed) + index as u64;
                            // One bad gradient among good ones is bad enough.
                            let scale = if index == 0 { scale } else { 1.0 };
                            (make(seed, 1.0), make(seed + 1000, scale))
                        })
                        .collect()
                };
                // With fusion, Burn 0.22.1 at times reads an f16 view of wgpu's in the wrong order, and
                // so the portable path does.
                let reference_device = match dtype {
                    DType::F16 | DType::BF16 => &cpu_devices()[0],
                    _ => &device,
                };
                let references = made(reference_device);
                let (weights, grads): (Vec<_>, Vec<_>) = made(&device).into_iter().unzip();
                let (weights, grads) = (vector(weights), vector(grads));

                let sums = (references.iter())
                    .map(|(weight, grad)| sum_of_squares(weight, grad.clone(), eta));
                let reference = total(sums.collect()).unwrap();
                let path = grads.path(&weights, gradient(eta));
                let norm = path.squared_length().unwrap();
                let bound = |of: f64| tolerance * (1.0 + of.abs());
                // Small tensors are summed together, in another order, and on some backends one by one.
                let of_sums = if has_kernels || dtype == DType::F64 { 1.0 } else { 100.0 };
                let (sum, expected) = (norm.read(), one(reference.clone()));
                prop_assert!(
                    (sum - expected).abs() <= of_sums * bound(expected)
                        || (!sum.is_finite() && !expected.is_finite()),
                    "{sum} for {expected} in {dtype:?} on {device:?}"
                );

                let on = |device: &Device| factor.map(|factor| Tensor::from_data([factor], (device, DType::F32)));
                let scale = Scale::new(reference, 1e-12, on(reference_device));
                let norm = Length::new(norm, 1e-12, on(&device).map(Number::from));
                let climbed = path.end(|place| rhos[place], &norm);
                let climbed = tensors::<3>(climbed);
                prop_assert_eq!(climbed.len(), references.len());
                for (((weight, grad), rho), climbed) in references.into_iter().zip(rhos).zip(climbed) {
                    let expected = match rho == 0.0 {
                        true => weight,
                        false => perturb(weight, grad, &scale, rho, eta),
                    };
                    prop_assert_eq!(climbed.dims(), expected.dims());
                    prop_assert_eq!(climbed.dtype(), expected.dtype());
                    for (climbed, expected) in values_of(climbed).zip(values_of(expected)) {
                        prop_assert!(
                            (climbed - expected).abs() <= of_sums * bound(expected),
                            "{climbed} for {expected} in {dtype:?} on {device:?}"
                        );
                    }
                }
            }
        }
    }
}

fn values_of<const D: usize>(tensor: Tensor<D>) -> impl Iterator<Item = f64> {
    tensor
        .into_data()
        .iter::<f64>()
        .collect::<Vec<_>>()
        .into_iter()
}

fn one(tensor: Tensor<1>) -> f64 {
    values_of(tensor).next().unwrap()
}

/// More than one thread's chunk, and a tail that no vector width divides.
const LARGE: usize = 300_007;

/// The squared norm and the climbed values of a large tensor.
fn climb_far(device: &Device, eta: Option<f64>) -> (f64, Vec<f64>) {
    let make = |seed| {
        let values: Vec<f64> = pseudo_random(seed, LARGE)
            .into_iter()
            .map(f64::from)
            .collect();
        tensor([LARGE], &values, false, (device, DType::F32))
    };
    let (weights, grads) = (vector([make(1)]), vector([make(2)]));
    let path = grads.path(&weights, gradient(eta));
    let norm = path.squared_length().unwrap();
    let sum = norm.read();
    let norm = Length::new(norm, 0.0, None);
    let climbed = path.end(|_| 0.5, &norm);
    (sum, values_of(tensors::<1>(climbed).remove(0)).collect())
}

#[test]
fn large_tensors_are_summed_and_climb_the_same_each_time() {
    for device in devices() {
        for eta in [None, Some(0.01)] {
            let (sum, climbed) = climb_far(&device, eta);
            let t = |w: f32| eta.map_or(1.0, |eta| f64::from(w).abs() + eta);
            let pairs = || {
                pseudo_random(1, LARGE)
                    .into_iter()
                    .zip(pseudo_random(2, LARGE))
            };
            let expected: f64 = pairs().map(|(w, g)| (t(w) * f64::from(g)).powi(2)).sum();
            assert!(
                (sum - expected).abs() <= 1e-6 * expected,
                "{sum} for {expected} on {device:?}"
            );
            for (climbed, (w, g)) in climbed.iter().zip(pairs()) {
                let expected = f64::from(w) + 0.5 * t(w).powi(2) * f64::from(g) / expected.sqrt();
                assert!((climbed - expected).abs() <= 1e-6);
            }
            let again = climb_far(&device, eta);
            assert_eq!((sum, climbed), again, "the same bits each time");
        }
    }
}

/// The types that a device has get tested, whichever they are.
#[test]
fn half_precision_is_among_the_types() {
    let [flex, _] = &cpu_devices()[..] else {
        panic!("two CPU devices")
    };
    assert!(flex.supports_dtype(DType::F16) && flex.supports_dtype(DType::BF16));
}

/// More cubes than a dimension holds, so that some are left over.
#[cfg(feature = "wgpu-unfused")]
#[test]
fn cubes_spread_over_two_dimensions() {
    let Some(device) = burn_sam_tests::wgpu_device() else {
        return;
    };
    let expected = climb_far(&device, None);
    burn_sam_kernels::internals::limit_cubes(7);
    let (norm, climbed) = climb_far(&device, None);
    burn_sam_kernels::internals::limit_cubes(u32::MAX);
    assert!(norm > 0.0);
    assert_eq!(norm, expected.0);
    assert!(climbed == expected.1, "the perturbations differ");
}

#[test]
fn a_gradient_of_another_shape_is_refused() {
    let device = &cpu_devices()[0];
    let weights = vector([Tensor::<1>::zeros([3], device)]);
    let grads = vector([Tensor::<1>::zeros([4], device)]);
    let norm = Length::new(1.0, 0.0, None);
    let message = panic_message(|| grads.path(&weights, gradient(None)).end(|_| 0.1, &norm));
    assert!(message.contains("must have the same shape"), "{message}");
}
