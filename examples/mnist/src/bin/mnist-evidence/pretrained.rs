//! Networks that know some of the digits, to be adapted to others with LoRA.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use burn::module::{Lora, Module, ParamGroup};
use burn::tensor::Device;
use digits::data::{Digit, Split};
use digits::model::seeded;
use digits::recipe::{Base, Recipe};
use digits::training::Setting;
use indicatif::ProgressBar;
use mnist::model::HIDDEN_INPUTS;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::{Flat, draw};

const IMAGES: usize = 5000;
const EPOCHS: usize = 3;

/// Of the hidden layer, its factor A as small as LoRA's authors have it.
fn lora() -> Lora {
    let hidden = ParamGroup::from_path("net.hidden.weight");
    let mut lora = Lora::new(8, 16.0).set_param_group(hidden);
    lora.init_std = Some((HIDDEN_INPUTS as f64).sqrt().recip());
    lora
}

fn output() -> ParamGroup {
    ParamGroup::from_paths(vec!["net.output.weight", "net.output.bias"])
}

/// A network for each seed, trained when it is first asked for.
pub(crate) struct Pretrained {
    digits: Vec<Digit>,
    of_seed: Mutex<HashMap<u64, Flat>>,
}

impl Pretrained {
    pub(crate) fn on(digits: Vec<Digit>) -> Self {
        Self {
            digits,
            of_seed: Mutex::default(),
        }
    }

    /// A network of this seed of which an adapter and a new output layer can be trained, and nothing else.
    pub(crate) fn adapted(&self, seed: u64, device: &Device) -> anyhow::Result<Flat> {
        let network = self.network(seed, device)?;
        let adapt = |_: &Device| {
            let net = network.net.with_new_output();
            Flat { net }.apply_lora(lora()).unfreeze_group(output())
        };
        Ok(seeded(adapt, seed, device))
    }

    fn network(&self, seed: u64, device: &Device) -> anyhow::Result<Flat> {
        let mut of_seed = self.of_seed.lock().unwrap_or_else(PoisonError::into_inner);
        let network = match of_seed.get(&seed) {
            Some(network) => network.clone(),
            None => {
                let network = self.train(seed, device)?;
                of_seed.insert(seed, network.clone());
                network
            }
        };
        // With running statistics of its own, which clones share.
        Ok(network.valid().train())
    }

    fn train(&self, seed: u64, device: &Device) -> anyhow::Result<Flat> {
        let mut rng = StdRng::seed_from_u64(seed);
        let train = draw(&self.digits, IMAGES.min(self.digits.len()), &mut rng);
        let split = Split {
            valid: Vec::new(),
            test: train[..1].to_vec(),
            train,
        };
        let setting = Setting {
            seed,
            recipe: Recipe::new(Base::Adamw, EPOCHS),
            device: device.clone(),
            split: &split,
            bar: &ProgressBar::hidden(),
        };
        let trained = setting.train(seeded(Flat::new, seed, device), None)?;
        Ok(trained.model)
    }
}
