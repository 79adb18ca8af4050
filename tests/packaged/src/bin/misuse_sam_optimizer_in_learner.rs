//! A SamOptimizer in the Learner's optimizer's place.
//! expect: mismatched types
//! expect: expected `ModuleOptimizer`, found `SamOptimizer<Sgd>`
use burn::optim::SgdConfig;
use burn::train::{Learner, LearnerModel};
use burn_sam::SamConfig;

fn learner<M: LearnerModel>(model: M) -> Learner<M> {
    let optimizer = SamConfig::new().optimizer(SgdConfig::new().build());
    Learner::new(model, optimizer, 0.1)
}

fn main() {}
