//! A transformer that reads a text.

use burn::module::{Module, Param};
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::data::{LENGTH, TOKENS};

const WIDTH: usize = 64;

/// Two layers, with four heads each and dropout of 0.1.
#[derive(Module, Debug)]
pub(crate) struct Reader {
    embedding: Embedding,
    positions: Param<Tensor<2>>,
    encoder: TransformerEncoder,
    output: Linear,
}

impl Reader {
    pub(crate) fn new(kinds: usize, device: &Device) -> Self {
        let small = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        Self {
            embedding: EmbeddingConfig::new(TOKENS, WIDTH)
                .with_initializer(small.clone())
                .init(device),
            positions: small.init([LENGTH, WIDTH], device),
            encoder: TransformerEncoderConfig::new(WIDTH, 2 * WIDTH, 4, 2)
                .with_norm_first(true)
                .init(device),
            output: LinearConfig::new(WIDTH, kinds).init(device),
        }
    }

    /// Logits, `[batch, kinds]`, of tokens, `[batch, LENGTH]`.
    fn forward(&self, tokens: Tensor<2>) -> Tensor<2> {
        let tokens = tokens.int();
        let ended = tokens.clone().equal_elem(0);
        let x = self.embedding.forward(tokens) + self.positions.val().unsqueeze();
        let input = TransformerEncoderInput::new(x).mask_pad(ended.clone());
        let read = self.encoder.forward(input);
        let words = ended.bool_not().float().unsqueeze_dim::<3>(2);
        let sum = (read * words.clone()).sum_dim(1) / words.sum_dim(1);
        self.output.forward(sum.squeeze_dim(1))
    }
}

digits::classifies!(Reader);
