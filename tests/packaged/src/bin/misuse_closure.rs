//! A closure made beforehand that does not say what it takes.
//! expect: type annotations needed
use burn::optim::SgdConfig;
use burn::tensor::Device;
use burn_sam::SamConfig;
use user::{Net, batch};

fn main() {
    let device = Device::flex().autodiff();
    let (model, batch) = (Net::new(&device), batch(&device));
    let pass = |model| ((), model.loss(&batch).backward());
    SamConfig::new().optimize(&mut SgdConfig::new().init(), 0.1, model, pass);
}
