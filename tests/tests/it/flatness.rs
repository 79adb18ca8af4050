use burn::module::{Module, Param};
use burn::tensor::activation::tanh;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sam::{Flatness, FlatnessError, SamConfig};
use burn_sam_tests::{Mlp, NormMlp, Points, cpu_devices, devices, pseudo_random, read};

/// A symmetric matrix with eigenvalues that are known: a reflection, which is its own inverse, of a
/// diagonal one.
const EIGENVALUES: [f64; 6] = [5.0, 3.0, 1.5, 0.5, 0.0, -1.0];

fn matrix() -> Vec<Vec<f64>> {
    let normal: Vec<f64> = pseudo_random(3, 6).into_iter().map(f64::from).collect();
    let squares: f64 = normal.iter().map(|n| n * n).sum();
    let reflection =
        |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * normal[i] * normal[j] / squares;
    let entry = |i, j| -> f64 {
        let terms = EIGENVALUES.iter().enumerate();
        terms
            .map(|(k, value)| reflection(i, k) * value * reflection(k, j))
            .sum()
    };
    (0..6)
        .map(|i| (0..6).map(|j| entry(i, j)).collect())
        .collect()
}

/// L(w) = w · A w / 2.
struct Quadratic {
    weights: Param<Tensor<1>>,
    a: Tensor<2>,
}

const WEIGHTS: [f64; 6] = [0.3, -1.0, 0.5, 2.0, 0.25, -0.75];

impl Quadratic {
    fn new(device: &Device, dtype: DType) -> Self {
        let device = device.clone().autodiff();
        let a = TensorData::new(matrix().concat(), [6, 6]);
        let weights = TensorData::new(WEIGHTS.to_vec(), [6]);
        Self {
            weights: Param::from_tensor(Tensor::from_data(weights, (&device, dtype))),
            a: Tensor::from_data(a, (&device, dtype)),
        }
    }

    fn loss(&self) -> impl Fn(&Param<Tensor<1>>, &()) -> Tensor<1> {
        |weights, _| {
            let w = weights.val().reshape([6, 1]);
            (w.clone() * self.a.clone().matmul(w)).sum() * 0.5
        }
    }
}

fn quadratic_form(w: &[f64]) -> f64 {
    let a = matrix();
    let products = (0..36).map(|k| w[k / 6] * a[k / 6][k % 6] * w[k % 6]);
    products.sum::<f64>() / 2.0
}

fn near(value: f64, expected: f64, tolerance: f64) -> bool {
    (value - expected).abs() <= tolerance * expected.abs().max(1.0)
}

#[test]
fn the_measures_of_a_quadratic_are_known() {
    for device in devices() {
        for dtype in [DType::F32, DType::F64] {
            if !device.supports_dtype(dtype) {
                continue;
            }
            let on = format!("{dtype:?} on {device:?}");
            let quadratic = Quadratic::new(&device, dtype);
            let flatness = Flatness::new(&quadratic.weights, &[()], quadratic.loss()).unwrap();
            let loss = flatness.loss().unwrap();
            assert!(near(loss, quadratic_form(&WEIGHTS), 1e-5), "{loss} {on}");

            let eigenvalues = flatness.eigenvalues(3, 0).unwrap();
            for (found, expected) in eigenvalues.iter().zip(EIGENVALUES) {
                assert!(
                    near(found.value, expected, 1e-3),
                    "{found:?} for {expected}, {on}"
                );
                assert!(found.residual <= 1e-3 * EIGENVALUES[0], "{found:?}, {on}");
            }
            assert_eq!(eigenvalues.len(), 3);
            assert_eq!(flatness.eigenvalues(6, 0).unwrap().len(), 6);

            let trace = flatness.trace(60, 0).unwrap();
            let sum: f64 = EIGENVALUES.iter().sum();
            assert!(
                (trace.mean - sum).abs() < 4.0 * trace.standard_error,
                "{trace:?} {on}"
            );
            assert!(trace.standard_error < 0.2 * sum, "{trace:?} {on}");

            let rho = 0.1;
            for adaptive in [false, true] {
                let sam = SamConfig::new()
                    .with_rho(rho)
                    .with_adaptive(adaptive)
                    .with_eta(0.01);
                let t = |w: f64| if adaptive { w.abs() + 0.01 } else { 1.0 };
                let a = matrix();
                let grad: Vec<f64> = (0..6)
                    .map(|i| (0..6).map(|j| a[i][j] * WEIGHTS[j]).sum())
                    .collect();
                let norm = (0..6)
                    .map(|i| (t(WEIGHTS[i]) * grad[i]).powi(2))
                    .sum::<f64>()
                    .sqrt();
                let climbed: Vec<f64> = (0..6)
                    .map(|i| WEIGHTS[i] + rho * t(WEIGHTS[i]).powi(2) * grad[i] / norm)
                    .collect();
                let expected = quadratic_form(&climbed) - quadratic_form(&WEIGHTS);
                let sharpness = flatness.sharpness(&sam).unwrap();
                assert!(
                    near(sharpness, expected, 1e-5),
                    "{sharpness} for {expected}, {on}"
                );

                // Of u · T A T u, the mean over unit vectors u is the mean of the diagonal.
                let average = flatness.average_sharpness(&sam, 400, 0).unwrap();
                let expected =
                    rho * rho / 12.0 * (0..6).map(|i| t(WEIGHTS[i]).powi(2) * a[i][i]).sum::<f64>();
                assert!(
                    (average.mean - expected).abs() < 4.0 * average.standard_error,
                    "{average:?} for {expected}, {on}"
                );
                assert!(average.mean < sharpness);
            }
        }
    }
}

/// Two layers, in f64.
#[derive(Module, Debug)]
struct Small {
    hidden: Param<Tensor<2>>,
    output: Param<Tensor<2>>,
}

/// What [`Small`]'s loss is in plain numbers: of weights [2, 3] and [3, 1], over four points.
fn small_loss(weights: &[f64], points: &[f64]) -> f64 {
    let squares = points.chunks(3).map(|point| {
        let hidden = (0..3).map(|h| (point[0] * weights[h] + point[1] * weights[3 + h]).tanh());
        let output: f64 = hidden.zip(&weights[6..]).map(|(h, w)| h * w).sum();
        (output - point[2]).powi(2)
    });
    squares.sum::<f64>() / 4.0
}

#[test]
fn a_networks_hessian_agrees_with_a_dense_one() {
    let weights: Vec<f64> = pseudo_random(1, 9).into_iter().map(f64::from).collect();
    let points: Vec<f64> = pseudo_random(2, 12).into_iter().map(f64::from).collect();
    let second = |i: usize, j: usize| {
        const STEP: f64 = 1e-4;
        let at = |di: f64, dj: f64| {
            let mut weights = weights.clone();
            weights[i] += di * STEP;
            weights[j] += dj * STEP;
            small_loss(&weights, &points)
        };
        (at(1.0, 1.0) - at(1.0, -1.0) - at(-1.0, 1.0) + at(-1.0, -1.0)) / (4.0 * STEP * STEP)
    };
    let dense: Vec<Vec<f64>> = (0..9)
        .map(|i| (0..9).map(|j| second(i, j)).collect())
        .collect();
    let trace: f64 = (0..9).map(|i| dense[i][i]).sum();
    // Power iteration; shifted, so that the largest eigenvalue is the largest in magnitude.
    let shift: f64 = dense.concat().iter().map(|h| h * h).sum::<f64>().sqrt();
    let mut vector = vec![1.0; 9];
    let mut largest = 0.0;
    for _ in 0..5000 {
        let product: Vec<f64> = (0..9)
            .map(|i| (0..9).map(|j| dense[i][j] * vector[j]).sum::<f64>() + shift * vector[i])
            .collect();
        let norm = product.iter().map(|p| p * p).sum::<f64>().sqrt();
        largest = norm - shift;
        vector = product.into_iter().map(|p| p / norm).collect();
    }

    for device in devices() {
        // On wgpu, drivers take the tanh of f64 in f32, if they have f64.
        let (dtype, tolerance) = match cpu_devices().contains(&device) {
            true => (DType::F64, 1e-4),
            false => (DType::F32, 1e-2),
        };
        let device = device.autodiff();
        let tensor = |values: &[f64], dims: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), dims), (&device, dtype))
        };
        let model = Small {
            hidden: Param::from_tensor(tensor(&weights[..6], [2, 3])),
            output: Param::from_tensor(tensor(&weights[6..], [3, 1])),
        };
        // In two batches of two points.
        let batches = [0, 6].map(|start| tensor(&points[start..start + 6], [2, 3]));
        let loss = |model: &Small, points: &Tensor<2>| {
            let x = points.clone().slice([0..2, 0..2]);
            let y = points.clone().slice([0..2, 2..3]);
            let output = tanh(x.matmul(model.hidden.val())).matmul(model.output.val());
            (output - y).square().mean()
        };
        let flatness = Flatness::new(&model, &batches, loss).unwrap();
        assert!(near(
            flatness.loss().unwrap(),
            small_loss(&weights, &points),
            1e-2 * tolerance
        ));
        let found = flatness.eigenvalues(1, 1).unwrap()[0];
        assert!(
            near(found.value, largest, tolerance),
            "{found:?} for {largest} on {device:?}"
        );
        let all = flatness.eigenvalues(9, 1).unwrap();
        let sum: f64 = all.iter().map(|e| e.value).sum();
        assert!(
            near(sum, trace, tolerance),
            "{sum} for {trace} on {device:?}"
        );
        let estimate = flatness.trace(200, 1).unwrap();
        assert!(
            (estimate.mean - trace).abs() < 4.0 * estimate.standard_error,
            "{estimate:?} {trace}"
        );
    }
}

/// The weights, bit for bit, and the running statistics too.
#[test]
fn the_module_is_not_disturbed() {
    for device in devices() {
        let device = device.autodiff();
        let model = NormMlp::new(1, &device);
        let batches = [Points::new(1, &device), Points::new(2, &device)];
        model.gradients(&batches[0]); // Statistics that are not the initial ones.
        let state = |model: &NormMlp| (model.statistics(), read(model.hidden.weight.val()));
        let before = state(&model);
        let loss = |model: &NormMlp, points: &Points| {
            burn_sam_tests::TrainingModel::predict(model, points).loss
        };
        let flatness = Flatness::new(&model, &batches, loss).unwrap();
        let sam = SamConfig::new();
        let measures = || {
            (
                flatness.loss().unwrap(),
                flatness.sharpness(&sam).unwrap(),
                flatness.average_sharpness(&sam, 2, 0).unwrap(),
                flatness.eigenvalues(1, 0).unwrap(),
                flatness.trace(2, 0).unwrap(),
            )
        };
        let first = measures();
        assert!(first.1 > 0.0);
        assert_eq!(state(&model), before);
        assert_eq!(measures(), first, "seeded, the measures are the same again");
    }
}

#[test]
fn backends_draw_the_same_directions() {
    let measured: Vec<f64> = (devices().into_iter())
        .map(|device| {
            let device = device.autodiff();
            let model = Mlp::new(1, &device);
            let batches = [Points::new(1, &device)];
            let flatness = Flatness::new(&model, &batches, Mlp::loss).unwrap();
            flatness
                .average_sharpness(&SamConfig::new().with_rho(0.5), 2, 7)
                .unwrap()
                .mean
        })
        .collect();
    for mean in &measured {
        assert!(near(*mean, measured[0], 1e-5), "{measured:?}");
    }
}

#[test]
fn what_cannot_be_measured_is_said() {
    for device in devices() {
        let device = device.autodiff();
        let model = Mlp::new(1, &device);
        let batches = [Points::new(1, &device), Points::new(2, &device)];
        fn of(model: &Mlp, batches: &[Points]) -> Result<(), FlatnessError> {
            Flatness::new(model, batches, Mlp::loss).map(|_| ())
        }
        assert_eq!(of(&model, &[]), Err(FlatnessError::NoBatches));
        assert_eq!(
            of(&model.clone().no_grad(), &batches),
            Err(FlatnessError::NothingTrainable)
        );
        assert_eq!(
            of(&model.valid(), &batches),
            Err(FlatnessError::NothingTrainable)
        );

        let flatness = Flatness::new(&model, &batches, Mlp::loss).unwrap();
        let still = SamConfig::new().with_rho(0.0);
        assert_eq!(flatness.sharpness(&still), Err(FlatnessError::Radius(0.0)));
        assert_eq!(
            flatness.average_sharpness(&still, 2, 0),
            Err(FlatnessError::Radius(0.0))
        );
        let count = |error: FlatnessError| matches!(error, FlatnessError::Count { .. });
        assert!(count(
            flatness
                .average_sharpness(&SamConfig::new(), 1, 0)
                .unwrap_err()
        ));
        assert!(count(flatness.trace(1, 0).unwrap_err()));
        assert!(count(flatness.eigenvalues(0, 0).unwrap_err()));
        let many = flatness.eigenvalues(1 + model.num_params(), 0).unwrap_err();
        assert_eq!(
            many.to_string(),
            "42 eigenvalues were asked for, but there can be 1 to 41"
        );

        let nan = |model: &Mlp, points: &Points| model.loss(points) * f64::NAN;
        let flatness = Flatness::new(&model, &batches, nan).unwrap();
        assert!(
            matches!(flatness.loss(), Err(FlatnessError::Loss { batch: 0, value }) if value.is_nan())
        );
        let message = flatness
            .sharpness(&SamConfig::new())
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("the loss of batch 0 is NaN"),
            "{message}"
        );
    }
}

/// On the CPU: elsewhere, infinities may be flushed.
#[test]
fn a_gradient_that_is_not_finite_is_said() {
    for device in cpu_devices() {
        let device = device.autodiff();
        let model = Mlp::new(1, &device);
        let batches = [Points::new(1, &device)];
        // The root's slope at 0 is infinite.
        let steep = |model: &Mlp, points: &Points| (model.loss(points) * 0.0).sqrt();
        let flatness = Flatness::new(&model, &batches, steep).unwrap();
        let error = flatness.sharpness(&SamConfig::new()).unwrap_err();
        assert_eq!(error, FlatnessError::Gradient);
    }
}

#[test]
fn progress_is_told() {
    let device = Device::flex().autodiff();
    let model = Mlp::new(1, &device);
    let batches = [Points::new(1, &device)];
    let seen = std::cell::RefCell::new(Vec::new());
    let flatness = Flatness::new(&model, &batches, Mlp::loss)
        .unwrap()
        .with_progress(|done, of| seen.borrow_mut().push((done, of)));
    flatness.trace(3, 0).unwrap();
    assert_eq!(*seen.borrow(), [(1, 3), (2, 3), (3, 3)]);
}
