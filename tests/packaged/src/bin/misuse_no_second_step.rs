//! A step that ends with the first one.
//! expect: use of moved value: `model`
use burn::tensor::Device;
use burn_sam::SamConfig;
use user::{Net, batch};

fn main() {
    let device = Device::flex().autodiff();
    let (model, batch) = (Net::new(&device), batch(&device));
    for _ in 0..2 {
        let grads = batch.clone().require_grad().sum().backward();
        let climbed = SamConfig::new().first_step(model, grads);
        climbed.loss(&batch);
    }
}
