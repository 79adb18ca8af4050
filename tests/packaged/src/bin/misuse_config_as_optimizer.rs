//! A configuration in a rule's place.
//! expect: `AdamConfig` is not an optimizer's rule, which `SamConfig::optimizer` wraps
//! expect: `sam.optimizer(AdamConfig::new().build())`
use burn::optim::AdamConfig;
use burn_sam::SamConfig;

fn main() {
    SamConfig::new().optimizer(AdamConfig::new());
}
