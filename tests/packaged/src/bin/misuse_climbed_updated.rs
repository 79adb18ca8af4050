//! The optimizer is given w + e(w) to update.
//! expect: Climbed<Net>: Module` is not satisfied
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::Device;
use burn_sam::SamConfig;
use user::{Net, batch};

fn main() {
    let device = Device::flex().autodiff();
    let (model, batch) = (Net::new(&device), batch(&device));
    let mut optim = SgdConfig::new().init();
    let grads = model.loss(&batch).backward();
    let climbed = SamConfig::new().first_step(model, grads);
    let grads = climbed.second_gradients(climbed.loss(&batch).backward());
    optim.step(0.1, climbed.clone(), GradientsParams::new());
    optim.step(0.1, climbed, grads);
}
