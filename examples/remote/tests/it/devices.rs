//! Two servers, one Learner.

use burn::tensor::Device;
use burn::train::{ExecutionStrategy, Learner, MultiDeviceOptim, TrainingStrategy};
use burn_sam::SamConfig;
use burn_sam_tests::{Mlp, Points, train};

use crate::server::Server;
use crate::training::{LR, assert_same, methods, sgd};

/// Each of two devices climbs on its own share: four batches an epoch.
fn shared(sam: &SamConfig, strategy: MultiDeviceOptim, devices: [Device; 2]) -> Mlp {
    let model = sam.init_on_part(Mlp::new(1, &devices[0]), Points::part);
    let learner = Learner::new(model, sgd(), LR);
    let directory = tempfile::tempdir().unwrap();
    let on = (8, &devices[0].clone());
    let (result, _) = train(learner, on, directory.path(), |training| {
        let strategy = ExecutionStrategy::multi(devices.to_vec(), strategy);
        training
            .num_epochs(2)
            .with_training_strategy(TrainingStrategy::Default(strategy))
    });
    result.model.into_inner()
}

#[test]
fn two_servers_share_each_step() {
    let servers = [Server::start(), Server::start()];
    for method in methods() {
        let Some(sam) = method.config(0.1, 4) else {
            continue;
        };
        for strategy in [
            MultiDeviceOptim::OptimMainDevice,
            MultiDeviceOptim::OptimSharded,
        ] {
            let remote = shared(&sam, strategy, servers.each_ref().map(Server::device));
            let local = shared(&sam, strategy, [(); 2].map(|()| Device::flex().autodiff()));
            let what = format!("{}, {strategy:?}", method.name());
            assert_same(&what, &remote, &local);
        }
    }
}
