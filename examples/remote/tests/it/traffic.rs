//! What a step sends. It does not grow with the weights: neither they nor gradients go over the wire.

use burn::module::Module;
use burn::nn::Linear;
use burn::optim::SgdConfig;
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};
use burn_sam_tests::{FEATURES, Points, linear};
use clap::ValueEnum;
use example_common::Method;

use crate::relay::Relay;
use crate::server::{Server, device};
use crate::training::step;

/// Of a measurement: two of LookSAM's periods.
const STEPS: usize = 10;

/// Burn's fusion, which comes with wgpu, sends a step's operations once, when it knows them again.
const FUSED: bool = cfg!(feature = "wgpu");

/// A perceptron of any depth and width.
#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
}

impl Stack {
    fn new(depth: usize, width: usize, device: &Device) -> Self {
        let inputs = |layer| if layer == 0 { FEATURES } else { width };
        let layers = (0..depth)
            .map(|layer| linear(layer as u64, inputs(layer), width, device))
            .collect();
        Self { layers }
    }

    fn loss(&self, points: &Points) -> Tensor<1> {
        let step = |x, layer: &Linear| tanh(layer.forward(x));
        self.layers
            .iter()
            .fold(points.x.clone(), step)
            .square()
            .mean()
    }
}

/// Messages and bytes from the client, and messages from the server, in so many steps and a wait for them.
fn traffic(relay: &Relay, method: Method, [depth, width]: [usize; 2]) -> [usize; 3] {
    let device = device(&relay.url);
    let mut model = Stack::new(depth, width, &device);
    let points = Points::new(0, &device);
    let mut optim = SgdConfig::new().init();
    let mut steps = method.config(0.1, 4).map(|sam| sam.steps(&model));
    let mut run = |mut model| {
        for _ in 0..STEPS {
            model = step(&mut steps, &mut optim, model, |model: &Stack, _| {
                model.loss(&points)
            });
        }
        device.sync().unwrap();
        model
    };
    // The rule at one pass stays at w for 20 steps, and fusion takes some to know them again.
    for _ in 0..if FUSED { 5 } else { 2 } {
        model = run(model);
    }
    let before = [relay.up.get(), relay.down.get()];
    run(model);
    let after = [relay.up.get(), relay.down.get()];
    let [messages, bytes] = [0, 1].map(|count| after[0][count] - before[0][count]);
    [messages, bytes, after[1][0] - before[1][0]]
}

/// How many times SGD's a step may take, of 8 tensors and of 24.
fn most_messages(method: Method) -> Option<[f64; 2]> {
    match method {
        Method::Msam => Some([2.0, 1.9]),
        Method::Sam => Some([3.0, 2.8]),
        Method::Friendly => Some([4.3, 4.0]),
        Method::Auto => Some([3.6, 2.6]),
        Method::Autotwopass => Some([4.4, 3.4]),
        _ => None,
    }
}

#[test]
fn neither_weights_nor_gradients_are_sent() {
    let server = Server::start();
    let relay = Relay::new(&server);
    // A tensor's number takes two bytes more from 65,536 on: count above that, whatever the other tests have made.
    let mut tensor = Tensor::<1>::ones([1], &device(&relay.url));
    for _ in 0..70_000 {
        tensor = tensor + 1.0;
    }
    drop(tensor);
    println!("a step of 8 parameters: messages, bytes; those for each 8 more");
    let mut sgd = [f64::NAN; 2];
    for method in Method::value_variants() {
        let [narrow, wide, deep, deeper] =
            [[4, 8], [4, 128], [8, 8], [12, 8]].map(|size| traffic(&relay, *method, size));
        let [messages, bytes, replies] = narrow;
        let name = method.name();
        // The wait's own. Nothing else is read.
        assert_eq!([replies, wide[2], deep[2], deeper[2]], [1; 4], "{name}");
        // 200 times the weights: shapes are a digit or two longer. With fusion, pieces of a step may come a step later.
        let most = if FUSED { bytes } else { bytes / 20 };
        assert!(
            FUSED || wide[0] == messages,
            "{name}: {} for {messages}",
            wide[0]
        );
        assert!(wide[1] < bytes + most, "{name}: {} for {bytes}", wide[1]);
        // Each layer costs the same; with fusion, that depends on where Burn cuts a step into pieces.
        for count in [0, 1] {
            let [first, second] = [[deep, narrow], [deeper, deep]]
                .map(|[more, less]| more[count] as f64 - less[count] as f64);
            assert!(
                FUSED || (first - second).abs() < first / 20.0,
                "{name}: {first}, then {second}"
            );
        }
        let per_step = |count: f64| count / STEPS as f64;
        let [m, b] = [0, 1].map(|count| per_step(narrow[count] as f64));
        let [more, more_bytes] =
            [0, 1].map(|count| per_step(deeper[count] as f64 - narrow[count] as f64) / 2.0);
        println!("{name}: {m:.1}, {b:.0}; {more:.1}, {more_bytes:.0}");
        let sent = [m, per_step(deeper[0] as f64)];
        if *method == Method::Sgd {
            sgd = sent;
        }
        if let Some(most) = most_messages(*method).filter(|_| !FUSED) {
            let is_few = |count: usize| sent[count] <= most[count] * sgd[count];
            assert!(
                is_few(0) && is_few(1),
                "{name}: {sent:?} for {sgd:?} of SGD's"
            );
        }
    }
}
