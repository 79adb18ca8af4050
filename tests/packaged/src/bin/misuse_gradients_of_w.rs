//! The second gradients are sorted by the parameters at w.
//! expect: borrow of moved value: `model`
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::Device;
use burn_sam::SamConfig;
use user::{Net, batch};

fn main() {
    let device = Device::flex().autodiff();
    let (mut model, batch) = (Net::new(&device), batch(&device));
    let mut optim = SgdConfig::new().init();
    let grads = model.loss(&batch).backward();
    let climbed = SamConfig::new().first_step(model, grads);
    let grads = GradientsParams::from_grads(climbed.loss(&batch).backward(), &model);
    model = optim.step(0.1, climbed.step_back(), grads);
    drop(model);
}
