//! The Learner's model, without the feature for it.
//! features: none
//! expect: `SamConfig::init` and `init_on_part` need burn-sam's feature `train`
//! expect: features = ["train"]
use burn::tensor::Device;
use burn_sam::SamConfig;
use user::Net;

fn main() {
    SamConfig::new().init(Net::new(&Device::flex().autodiff()));
}
