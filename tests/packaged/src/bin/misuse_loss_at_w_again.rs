//! The second loss is taken at w again.
//! expect: borrow of moved value: `model`
use burn::optim::SgdConfig;
use burn::tensor::Device;
use burn_sam::SamConfig;
use user::{Net, batch};

fn main() {
    let device = Device::flex().autodiff();
    let (mut model, batch) = (Net::new(&device), batch(&device));
    let mut optim = SgdConfig::new().init();
    let grads = model.loss(&batch).backward();
    let climbed = SamConfig::new().first_step(model, grads);
    let grads = model.loss(&batch).backward();
    model = climbed.second_step(&mut optim, 0.1, grads);
    drop(model);
}
