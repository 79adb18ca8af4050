use burn::optim::SgdConfig;
use burn::tensor::Device;
use burn_sam::SamConfig;
use user::{Net, batch};

fn main() {
    let device = Device::flex().autodiff();
    let mut model = Net::new(&device);
    let batch = batch(&device);
    let before = model.loss(&batch).into_scalar::<f32>();

    let sam = SamConfig::new().with_rho(0.05);
    let mut optim = SgdConfig::new().init();
    for _ in 0..20 {
        let grads = model.loss(&batch).backward();
        let climbed = sam.first_step(model, grads);
        let grads = climbed.loss(&batch).backward();
        model = climbed.second_step(&mut optim, 0.05, grads);
    }
    let after = model.loss(&batch).into_scalar::<f32>();
    assert!(after < before / 2.0, "{before} -> {after}");
    println!("loss {before} -> {after}");
}
