//! The same, where its body does not need to know.
//! expect: implementation of `FnMut` is not general enough
use burn::optim::SgdConfig;
use burn::tensor::{Device, Gradients};
use burn_sam::SamConfig;
use user::{Net, batch};

fn gradients(model: &Net) -> Gradients {
    model.loss(&batch(&Device::flex().autodiff())).backward()
}

fn main() {
    let model = Net::new(&Device::flex().autodiff());
    let pass = |model| ((), gradients(model));
    SamConfig::new().optimize(&mut SgdConfig::new().init(), 0.1, model, pass);
}
