//! SAM in a training loop of one's own: a curve is fitted twice, once with SAM's two steps written
//! out, once with one call that does both. They do the same.

use burn::module::Module;
use burn::nn::loss::{MseLoss, Reduction};
use burn::nn::{Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Tensor};
use burn_sam::SamConfig;
use mimalloc::MiMalloc;

/// Passes on a CPU take as little as half of the time with it: see docs/guide.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const STEPS: usize = 300;
const LEARNING_RATE: f64 = 0.01;

#[derive(Module, Debug)]
struct Curve {
    hidden: Linear,
    output: Linear,
}

impl Curve {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(1, 32).init(device),
            output: LinearConfig::new(32, 1).init(device),
        }
    }

    fn loss(&self, (x, y): &(Tensor<2>, Tensor<2>)) -> Tensor<1> {
        let output = self.output.forward(tanh(self.hidden.forward(x.clone())));
        MseLoss::new().forward(output, y.clone(), Reduction::Mean)
    }
}

fn main() {
    let device = Device::flex().autodiff();
    device.seed(42);
    let points: Vec<f32> = (0..64).map(|i| i as f32 / 32.0 - 1.0).collect();
    let x = Tensor::<1>::from_floats(points.as_slice(), &device).unsqueeze_dim(1);
    let data = (x.clone(), (x * 3.0).sin());
    let model = Curve::new(&device);
    println!("before:              loss {:.6}", value(model.loss(&data)));

    let written_out = two_steps(model.clone(), &data);
    println!(
        "two steps:           loss {:.6}",
        value(written_out.loss(&data))
    );

    let in_one_call = closure(model, &data);
    println!(
        "one call, a closure: loss {:.6}",
        value(in_one_call.loss(&data))
    );
}

/// Each step takes the gradients at w, climbs, and applies the gradients at w + e(w) to w.
fn two_steps(mut model: Curve, data: &(Tensor<2>, Tensor<2>)) -> Curve {
    let sam = SamConfig::new();
    let mut optim = AdamConfig::new().init();
    for _ in 0..STEPS {
        let grads = model.loss(data).backward();
        let climbed = sam.first_step(model, grads);

        let grads = climbed.loss(data).backward();
        model = climbed.second_step(&mut optim, LEARNING_RATE, grads);
    }
    model
}

/// The same in one call, which hands back what the passes at w and at w + e(w) returned.
fn closure(mut model: Curve, data: &(Tensor<2>, Tensor<2>)) -> Curve {
    let sam = SamConfig::new();
    let mut optim = AdamConfig::new().init();
    for step in 0..STEPS {
        let (updated, [loss, climbed]) =
            sam.optimize(&mut optim, LEARNING_RATE, model, |model: &Curve| {
                let loss = model.loss(data);
                let grads = loss.backward();
                (loss, grads)
            });
        model = updated;
        // Reading the losses waits for the device, so they are read now and then only.
        if step % 100 == 0 {
            let (loss, climbed) = (value(loss), value(climbed));
            println!(
                "  step {step:3}:          loss {loss:.6}, sharpness {:.6}",
                climbed - loss
            );
        }
    }
    model
}

fn value(loss: Tensor<1>) -> f32 {
    loss.into_scalar()
}
