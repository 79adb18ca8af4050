//! What the first step does to weights, for all models and all gradients.

use burn::module::{Module, ParamGroup};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device};
use burn_sam::SamConfig;
use burn_sam_tests::{Parameters, devices, pseudo_random, random_cases, same_values, values};
use proptest::prelude::*;

/// A parameter to make, and its gradient.
#[derive(Clone, Debug)]
struct Spec {
    shape: Vec<usize>,
    weight: Vec<f64>,
    grad: Option<Vec<f64>>,
    transposed: bool,
    /// Its rho, if it has one of its own.
    rho: Option<f64>,
}

/// From 0 to 5 parameters of 1 to 5 dimensions, some empty, some of one element, some without a
/// gradient, some with a rho of their own. The gradients are from 1e-3 to 1e3 in size.
fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let spec = (
        prop::collection::vec(0..4usize, 1..=5),
        any::<u64>(),
        -3..=3i32,
        prop::option::weighted(0.8, Just(())),
        any::<bool>(),
        prop::option::weighted(0.3, prop_oneof![Just(0.0), 0.01..1.0]),
    )
        .prop_map(|(shape, seed, magnitude, has_grad, transposed, rho)| {
            let len = shape.iter().product();
            let values = |seed, scale: f64| -> Vec<f64> {
                (pseudo_random(seed, len).into_iter())
                    .map(|value| f64::from(value) * scale)
                    .collect()
            };
            Spec {
                weight: values(seed, 1.0),
                grad: has_grad.map(|()| values(!seed, 10f64.powi(magnitude))),
                shape,
                transposed,
                rho,
            }
        });
    prop::collection::vec(spec, 0..=5)
}

fn sam(specs: &[Spec], rho: f64, eta: Option<f64>) -> SamConfig {
    let mut counts = [0; 6];
    let config = SamConfig::new()
        .with_rho(rho)
        .with_adaptive(eta.is_some())
        .with_eta(eta.unwrap_or(0.0));
    specs.iter().fold(config, |config, spec| {
        let rank = spec.shape.len();
        let path = format!("rank{rank}.{}", counts[rank]);
        counts[rank] += 1;
        match spec.rho {
            None => config,
            // The one that counts is the last.
            Some(rho) => config
                .with_group(ParamGroup::from_path(&path), 100.0)
                .with_group(ParamGroup::from_path(&path), rho),
        }
    })
}

fn build(specs: &[Spec], on: (&Device, DType)) -> (Parameters, GradientsParams) {
    let mut module = Parameters::default();
    let mut grads = GradientsParams::new();
    for spec in specs {
        let grad = spec.grad.as_deref();
        module.push(
            &spec.shape,
            &spec.weight,
            grad,
            spec.transposed,
            on,
            &mut grads,
        );
    }
    (module, grads)
}

fn climb(specs: &[Spec], sam: &SamConfig, on: (&Device, DType)) -> (Parameters, Parameters) {
    let (module, grads) = build(specs, on);
    let climbed = sam.climb(module.clone(), grads);
    (module, (*climbed).clone())
}

/// The types that a device computes in, each with the relative error to expect of it.
fn dtypes(device: &Device) -> impl Iterator<Item = (DType, f64)> {
    [
        (DType::F64, 1e-13),
        (DType::F32, 1e-5),
        (DType::F16, 2e-3),
        (DType::BF16, 2e-2),
    ]
    .into_iter()
    .filter(|(dtype, _)| device.supports_dtype(*dtype))
}

/// The specs as a type holds them, in the order in which the module has them.
fn rounded(specs: &[Spec], on: (&Device, DType)) -> Vec<Spec> {
    let weights: Vec<_> = values(&build(specs, on).0);
    let as_weights: Vec<Spec> = specs
        .iter()
        .map(|spec| Spec {
            weight: spec.grad.clone().unwrap_or_else(|| spec.weight.clone()),
            ..spec.clone()
        })
        .collect();
    let grads = values(&build(&as_weights, on).0);
    let mut specs: Vec<Spec> = specs.to_vec();
    specs.sort_by_key(|spec| spec.shape.len());
    for ((spec, (_, weight)), (_, grad)) in specs.iter_mut().zip(weights).zip(grads) {
        spec.weight = weight;
        spec.grad = spec.grad.as_ref().map(|_| grad);
    }
    specs
}

/// Equation 2 of the paper, in f64 on the host.
fn expected(specs: &[Spec], rho: f64, eta: Option<f64>) -> Vec<Vec<f64>> {
    let t = |w: f64| eta.map_or(1.0, |eta| w.abs() + eta);
    let pairs = |spec: &Spec| -> Vec<(f64, Option<f64>)> {
        let grad = |index| spec.grad.as_ref().map(|grad| grad[index]);
        (spec.weight.iter().enumerate())
            .map(|(index, w)| (*w, grad(index)))
            .collect()
    };
    let norm = specs
        .iter()
        .flat_map(pairs)
        .map(|(w, g)| (t(w) * g.unwrap_or(0.0)).powi(2))
        .sum::<f64>()
        .sqrt();
    (specs.iter())
        .map(|spec| {
            let rho = spec.rho.unwrap_or(rho);
            (pairs(spec).into_iter())
                .map(|(w, g)| w + rho * t(w).powi(2) * g.unwrap_or(0.0) / (norm + 1e-12))
                .collect()
        })
        .collect()
}

/// The Euclidean distance of two modules of the same structure.
fn distance<M: Module>(a: &M, b: &M) -> f64 {
    let (a, b) = (values(a), values(b));
    let pairs = a
        .iter()
        .flat_map(|(_, a)| a)
        .zip(b.iter().flat_map(|(_, b)| b));
    pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

fn has_gradient(specs: &[Spec]) -> bool {
    (specs.iter()).any(|spec| spec.grad.as_ref().is_some_and(|grad| !grad.is_empty()))
}

proptest! {
    #![proptest_config(random_cases(48))]

    #[test]
    fn it_is_the_papers_equation(
        specs in specs(),
        rho in 0.01..1.0,
        eta in prop::option::of(0.0..0.1),
    ) {
        for device in devices() {
            for (dtype, tolerance) in dtypes(&device) {
                let sam = sam(&specs, rho, eta);
                let (_, climbed) = climb(&specs, &sam, (&device, dtype));
                let expected = expected(&rounded(&specs, (&device, dtype)), rho, eta);
                for ((path, climbed), expected) in values(&climbed).iter().zip(expected) {
                    prop_assert_eq!(climbed.len(), expected.len());
                    for (climbed, expected) in climbed.iter().zip(expected) {
                        prop_assert!(
                            (climbed - expected).abs() <= tolerance * (1.0 + expected.abs()),
                            "{} in {:?} on {:?}: {} for {}",
                            path, dtype, device, climbed, expected
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_perturbation_is_rho_long(mut specs in specs(), rho in 0.01..10.0) {
        specs.iter_mut().for_each(|spec| spec.rho = None);
        let length = if has_gradient(&specs) { rho } else { 0.0 };
        for device in devices() {
            let dtype = if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 };
            let (module, climbed) = climb(&specs, &sam(&specs, rho, None), (&device, dtype));
            let tolerance = if dtype == DType::F64 { 1e-8 } else { 1e-4 };
            prop_assert!((distance(&module, &climbed) - length).abs() <= tolerance * (1.0 + rho));
        }
    }

    #[test]
    fn the_weights_keep_every_bit(specs in specs(), adaptive: bool) {
        for device in devices() {
            let eta = adaptive.then_some(0.01);
            let sam = sam(&specs, 0.5, eta);
            let (module, _) = climb(&specs, &sam, (&device, DType::F32));
            prop_assert!(same_values(&module, &build(&specs, (&device, DType::F32)).0));
        }
    }

    #[test]
    fn scaling_the_loss_changes_nothing(specs in specs(), scale in 1e-3..1e3) {
        for device in devices() {
            let sam = sam(&specs, 0.5, None).with_eps(0.0);
            let scaled: Vec<Spec> = (specs.iter().cloned())
                .map(|mut spec| {
                    if let Some(grad) = &mut spec.grad {
                        grad.iter_mut().for_each(|g| *g *= scale);
                    }
                    spec
                })
                .collect();
            let (_, climbed) = climb(&specs, &sam, (&device, DType::F32));
            let (_, scaled) = climb(&scaled, &sam, (&device, DType::F32));
            prop_assert!(distance(&climbed, &scaled) <= 1e-5);
        }
    }

    #[test]
    fn the_order_of_the_parameters_does_not_matter(mut specs in specs()) {
        specs.iter_mut().for_each(|spec| spec.rho = None);
        let mut reversed = specs.clone();
        reversed.reverse();
        for device in devices() {
            let sam = sam(&specs, 0.5, None);
            let (_, climbed) = climb(&specs, &sam, (&device, DType::F32));
            let (_, mut backwards) = climb(&reversed, &sam, (&device, DType::F32));
            backwards.rank1.reverse();
            backwards.rank2.reverse();
            backwards.rank3.reverse();
            backwards.rank4.reverse();
            backwards.rank5.reverse();
            prop_assert!(distance(&climbed, &backwards) <= 1e-5);
        }
    }

    #[test]
    fn one_bad_gradient_and_nothing_moves(
        mut specs in specs(),
        bad in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
        eta in prop::option::of(0.0..0.1),
        at: prop::sample::Index,
    ) {
        prop_assume!(has_gradient(&specs));
        let mut all: Vec<&mut f64> = specs
            .iter_mut()
            .flat_map(|spec| spec.grad.iter_mut().flatten())
            .collect();
        let at = at.index(all.len());
        *all[at] = bad;
        for device in devices() {
            for (dtype, _) in dtypes(&device) {
                let (module, climbed) = climb(&specs, &sam(&specs, 0.5, eta), (&device, dtype));
                // A weight of 0 times a gradient of infinity is NaN: with adaptive SAM too, the
                // norm is not finite.
                prop_assert_eq!(values(&module), values(&climbed), "{:?} {:?}", device, dtype);
            }
        }
    }

    #[test]
    fn zero_gradients_move_nothing(
        mut specs in specs(),
        eps in prop_oneof![Just(0.0), Just(1e-12)],
        adaptive: bool,
    ) {
        for spec in &mut specs {
            spec.grad.iter_mut().flatten().for_each(|g| *g = 0.0);
        }
        for device in devices() {
            for (dtype, _) in dtypes(&device) {
                let sam = sam(&specs, 0.5, adaptive.then_some(0.0)).with_eps(eps);
                let (module, climbed) = climb(&specs, &sam, (&device, dtype));
                prop_assert_eq!(values(&module), values(&climbed));
            }
        }
    }
}

#[test]
fn the_types_tested_include_the_small_ones() {
    let tested: Vec<DType> = devices()
        .iter()
        .flat_map(dtypes)
        .map(|(dtype, _)| dtype)
        .collect();
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        assert!(tested.contains(&dtype), "{dtype:?} is tested nowhere");
    }
}

/// The norm of half-precision gradients must not overflow: 300² is more than an f16 holds.
#[test]
fn large_half_precision_gradients_climb() {
    let spec = Spec {
        shape: vec![2],
        weight: vec![0.0, 0.0],
        grad: Some(vec![300.0, 400.0]),
        transposed: false,
        rho: None,
    };
    for device in devices() {
        for (dtype, tolerance) in dtypes(&device) {
            let specs = [spec.clone()];
            let (_, climbed) = climb(&specs, &sam(&specs, 1.0, None), (&device, dtype));
            let climbed = &values(&climbed)[0].1;
            assert!((climbed[0] - 0.6).abs() <= tolerance && (climbed[1] - 0.8).abs() <= tolerance);
        }
    }
}

/// A norm beyond the accumulation type counts as not finite: no perturbation rather than a wrong
/// one.
#[test]
fn a_norm_that_overflows_moves_nothing() {
    let spec = Spec {
        shape: vec![1],
        weight: vec![1.0],
        grad: Some(vec![1e30]),
        transposed: false,
        rho: None,
    };
    for device in devices() {
        let specs = [spec.clone()];
        let (module, climbed) = climb(&specs, &sam(&specs, 1.0, None), (&device, DType::F32));
        assert_eq!(values(&module), values(&climbed));
    }
}
