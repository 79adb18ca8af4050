//! A ready optimizer in a rule's place.
//! expect: `ModuleOptimizer` is not an optimizer's rule, which `SamConfig::optimizer` wraps
//! expect: hand it to `Climbed::second_step` or `SamConfig::optimize`
use burn::optim::AdamConfig;
use burn_sam::SamConfig;

fn main() {
    SamConfig::new().optimizer(AdamConfig::new().init());
}
