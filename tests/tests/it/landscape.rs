use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose1d, ConvTranspose1dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_sam::{Direction, Flatness, FlatnessError, LossCurve, LossSurface, Picture};
use burn_sam_tests::{Mlp, NormMlp, Points, devices, read, same_values, values};

fn near(value: f64, expected: f64, tolerance: f64) -> bool {
    (value - expected).abs() <= tolerance * expected.abs().max(1.0)
}

/// |w|² / 2.
fn half_square(weights: &Param<Tensor<1>>, _: &()) -> Tensor<1> {
    weights.val().square().sum() * 0.5
}

fn weights(values: [f32; 2], device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(Tensor::from_floats(values, device))
}

#[test]
fn a_curve_leads_from_one_model_to_the_other() {
    for device in devices() {
        let device = device.autodiff();
        let model = weights([3.0, 4.0], &device);
        // In whatever mode the other is, and wherever.
        let other = weights([0.0, 1.0], &cpu()).valid();
        let flatness = Flatness::new(&model, &[()], half_square).unwrap();
        let way = Direction::towards(&other)
            .with_range(-1.0, 2.0)
            .with_points(7);
        let curve = flatness.curve(&way).unwrap();
        assert_eq!(curve.x.positions, [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0]);
        for (t, loss) in curve.x.positions.iter().zip(&curve.losses) {
            let [a, b] = [3.0 - 3.0 * t, 4.0 - 3.0 * t];
            let expected = (a * a + b * b) / 2.0;
            let loss = loss.unwrap();
            assert!(near(loss, expected, 1e-5), "{loss} for {expected} at {t}");
        }
    }
}

fn cpu() -> Device {
    Device::flex()
}

#[derive(Module, Debug)]
struct Layers {
    linear: Linear,
    convolution: Conv2d,
    transposed: ConvTranspose1d,
    embedding: Embedding,
}

impl Layers {
    fn new(device: &Device) -> Self {
        Self {
            linear: LinearConfig::new(4, 3).init(device),
            convolution: Conv2dConfig::new([2, 3], [3, 3]).init(device),
            transposed: ConvTranspose1dConfig::new([3, 2], 3).init(device),
            embedding: EmbeddingConfig::new(5, 2).init(device),
        }
    }

    /// The squared length of each filter of the weights less those of `origin`, and of the biases.
    fn filters(&self, origin: &Self) -> Vec<Tensor<1>> {
        fn squares<const D: usize>(
            now: &Param<Tensor<D>>,
            origin: &Param<Tensor<D>>,
            filter: usize,
        ) -> Tensor<1> {
            let others = (0..D).filter(|dim| *dim != filter);
            let squares = (now.val() - origin.val().without_autodiff().autodiff()).square();
            let sums = others.fold(squares, Tensor::sum_dim);
            let filters = sums.dims()[filter];
            sums.reshape([filters])
        }

        let bias = |now: &Option<Param<Tensor<1>>>, origin: &Option<Param<Tensor<1>>>| {
            squares(now.as_ref().unwrap(), origin.as_ref().unwrap(), 0)
        };
        vec![
            squares(&self.linear.weight, &origin.linear.weight, 1),
            squares(&self.convolution.weight, &origin.convolution.weight, 0),
            squares(&self.transposed.weight, &origin.transposed.weight, 1),
            squares(&self.embedding.weight, &origin.embedding.weight, 0),
            bias(&self.linear.bias, &origin.linear.bias),
            bias(&self.convolution.bias, &origin.convolution.bias),
        ]
    }

    fn zeros(&self) -> Self {
        struct Zero;
        impl burn::module::ModuleMapper for Zero {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| tensor.zeros_like())
            }
        }
        self.clone().map(&mut Zero)
    }
}

#[test]
fn a_random_direction_has_filters_as_long_as_the_models() {
    for device in devices() {
        let device = device.autodiff();
        let model = Layers::new(&device);
        let lengths: Vec<f32> = (model.filters(&model.zeros()).into_iter())
            .flat_map(read)
            .collect();
        let number = lengths.len();
        assert_eq!(number, 3 + 3 + 2 + 5 + 3 + 3);
        for (filter, length) in lengths.iter().enumerate() {
            // Only this filter counts.
            let loss = |now: &Layers, _: &()| {
                let all = Tensor::cat(now.filters(&model), 0);
                all.narrow(0, filter, 1)
            };
            let flatness = Flatness::new(&model, &[()], loss).unwrap();
            let along = Direction::random(7).with_range(0.0, 2.0).with_points(3);
            let losses = flatness.curve(&along).unwrap().losses;
            let is_bias = filter >= number - 6;
            for (t, loss) in [0.0, 1.0, 2.0]
                .into_iter()
                .zip(losses.into_iter().flatten())
            {
                let expected = match is_bias {
                    true => 0.0,
                    false => t * t * f64::from(*length),
                };
                assert!(
                    near(loss, expected, 1e-4),
                    "filter {filter}: {loss} for {expected} on {device:?}"
                );
            }
        }
    }
}

#[test]
fn a_surface_is_made_of_curves_and_is_the_same_everywhere() {
    let mut surfaces: Vec<LossSurface> = Vec::new();
    for device in devices() {
        let device = device.autodiff();
        let (model, before) = (NormMlp::new(1, &device), NormMlp::new(1, &device));
        let batches = [Points::new(1, &device), Points::new(2, &device)];
        let loss = |model: &NormMlp, points: &Points| {
            burn::train::InferenceStep::step(model, points.clone()).loss
        };
        let told = std::cell::RefCell::new(Vec::new());
        let flatness = Flatness::new(&model, &batches, loss)
            .unwrap()
            .with_progress(|done, all| told.borrow_mut().push((done, all)));
        let x = Direction::random(1).with_points(5);
        let y = Direction::random(2).with_range(-0.5, 0.5).with_points(3);
        let surface = flatness.surface(&x, &y).unwrap();
        assert_eq!(told.take(), (1..=15).map(|n| (n, 15)).collect::<Vec<_>>());
        let curve = flatness.curve(&x).unwrap();
        assert_eq!(surface.x, curve.x);
        assert_eq!(surface.y.positions, [-0.5, 0.0, 0.5]);
        for (in_plane, on_line) in surface.losses[1].iter().zip(&curve.losses) {
            let (in_plane, on_line) = (in_plane.unwrap(), on_line.unwrap());
            assert!(near(in_plane, on_line, 1e-5), "{in_plane} {on_line}");
        }
        let along_y = flatness.curve(&y).unwrap();
        let (corner, on_line) = (surface.losses[2][2], along_y.losses[2]);
        assert!(near(corner.unwrap(), on_line.unwrap(), 1e-5));
        assert!(near(
            curve.losses[2].unwrap(),
            flatness.loss().unwrap(),
            1e-6
        ));
        assert_ne!(surface.losses[0], surface.losses[2]);
        assert!(same_values(&model, &before) && model.statistics() == before.statistics());
        surfaces.push(surface);
    }
    for surface in &surfaces[1..] {
        let pairs = (surface.losses.concat().into_iter()).zip(surfaces[0].losses.concat());
        for (here, there) in pairs {
            let (here, there) = (here.unwrap(), there.unwrap());
            assert!(near(here, there, 1e-4), "{here} {there}");
        }
    }
}

#[test]
fn losses_are_data() {
    let model = weights([1.0, 0.0], &cpu().autodiff());
    let other = weights([0.0, 0.0], &cpu());
    let third = weights([1.0, 1.0], &cpu());
    let flatness = Flatness::new(&model, &[()], half_square).unwrap();
    let towards = |other| {
        Direction::towards(other)
            .with_range(0.0, 1.0)
            .with_points(2)
    };
    let curve = flatness.curve(&towards(&other)).unwrap();
    assert_eq!(curve.to_csv(), "x,loss\n0,0.5\n1,0\n");
    let surface = flatness
        .surface(&towards(&other), &towards(&third))
        .unwrap();
    assert_eq!(
        surface.to_csv(),
        "x,y,loss\n0,0,0.5\n1,0,0\n0,1,1\n1,1,0.5\n"
    );
    let json = serde_json::to_string(&(&curve, &surface)).unwrap();
    let read: (LossCurve, LossSurface) = serde_json::from_str(&json).unwrap();
    assert_eq!(read, (curve, surface));
}

/// Far from the weights the loss overflows: these points are holes, and the rest is there.
#[test]
fn points_that_are_not_finite_are_holes() {
    for device in devices() {
        let device = device.autodiff();
        // In f32, exp(88.8) is not finite.
        let loss = |weights: &Param<Tensor<2>>, _: &()| (weights.val() * 60.0).exp().sum();
        let rows = Tensor::<2>::from_floats([[0.5, 1.0], [0.25, 0.5]], &device);
        let weights = Param::from_tensor(rows);
        let flatness = Flatness::new(&weights, &[()], loss).unwrap();
        let x = Direction::random(0).with_points(21);
        let curve = flatness.curve(&x).unwrap();
        let holes: Vec<f64> = curve.holes().collect();
        assert!(!holes.is_empty() && holes.len() < 20, "{holes:?}");
        for (position, loss) in curve.x.positions.iter().zip(&curve.losses) {
            assert_eq!(loss.is_none(), holes.contains(position));
            assert!(loss.is_none_or(f64::is_finite));
        }
        assert!(curve.losses[10].is_some());
        let csv = curve.to_csv();
        assert_eq!(
            csv.lines().filter(|row| row.ends_with(',')).count(),
            holes.len()
        );
        let json = serde_json::to_string(&curve).unwrap();
        assert_eq!(json.matches("null").count(), holes.len());
        let read: LossCurve = serde_json::from_str(&json).unwrap();
        assert_eq!(read.holes().collect::<Vec<_>>(), holes);
        Picture::curves(&[("line", &curve)]).unwrap();

        let y = Direction::random(1).with_points(5);
        let surface = flatness.surface(&x, &y).unwrap();
        let holes = surface.holes().count();
        assert!(holes > 0 && holes < 105, "{holes}");
        let csv = surface.to_csv();
        assert_eq!(csv.lines().filter(|row| row.ends_with(',')).count(), holes);
        let json = serde_json::to_string(&surface).unwrap();
        let read: LossSurface = serde_json::from_str(&json).unwrap();
        assert!(read.holes().eq(surface.holes()));
        Picture::contours(&[("plane", &surface)]).unwrap();
    }
}

#[test]
fn what_has_no_landscape_is_an_error() {
    let device = cpu().autodiff();
    let (model, batches) = (Mlp::new(1, &device), [Points::new(1, &device)]);
    let flatness = Flatness::new(&model, &batches, Mlp::loss).unwrap();
    let before = values(&model);
    let random = || Direction::random(0);

    for (from, to) in [
        (1.0, 1.0),
        (1.0, 0.0),
        (f64::NAN, 1.0),
        (0.0, f64::INFINITY),
    ] {
        let error = flatness.curve(&random().with_range(from, to)).unwrap_err();
        assert!(matches!(error, FlatnessError::Range { .. }), "{error}");
        assert!(error.to_string().contains(&format!("from {from} to {to}")));
    }
    let error = flatness.curve(&random().with_points(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 points were asked for, but it takes at least 2"
    );
    let error = flatness.surface(&random(), &random()).unwrap_err();
    assert_eq!(error, FlatnessError::NoPlane);
    // Toward itself there is no direction at all.
    let error = flatness
        .surface(&random(), &Direction::towards(&model))
        .unwrap_err();
    assert_eq!(error, FlatnessError::NoPlane);

    let mut other = Mlp::new(2, &device);
    other.output = LinearConfig::new(8, 2).init(&device);
    let error = flatness.curve(&Direction::towards(&other)).unwrap_err();
    assert!(error.to_string().contains("output.weight"), "{error}");

    let biases = weights([1.0, 2.0], &device);
    let flatness_of_biases = Flatness::new(&biases, &[()], half_square).unwrap();
    let error = flatness_of_biases.curve(&Direction::random(0)).unwrap_err();
    assert_eq!(error, FlatnessError::NoFilters);

    // Nothing but points far away.
    let far = random().with_range(1e37, 1e38).with_points(3);
    let error = flatness.curve(&far).unwrap_err();
    assert_eq!(error, FlatnessError::NothingFinite);
    let error = flatness
        .surface(&far, &Direction::random(1).with_range(1e37, 1e38))
        .unwrap_err();
    assert_eq!(error, FlatnessError::NothingFinite);
    // The centre, though it is none of the points.
    let nan = |model: &Mlp, points: &Points| model.loss(points) * f64::NAN;
    let of_nan = Flatness::new(&model, &batches, nan).unwrap();
    let error = of_nan.curve(&random().with_points(2)).unwrap_err();
    assert!(
        matches!(error, FlatnessError::Loss { batch: 0, .. }),
        "{error}"
    );
    assert_eq!(values(&model), before);
}
