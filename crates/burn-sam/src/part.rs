use burn::tensor::Tensor;
use burn::tensor::kind::Basic;

/// The part of a batch on which SAM climbs: its first samples. From
/// [`SamConfig::ascent_part`](crate::SamConfig::ascent_part).
///
/// Which samples come first is the data loader's to say: if it shuffles, as for training it should,
/// the part is a random one, and the same again with the same seed.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_sam::SamConfig;
///
/// let images = Tensor::<4>::zeros([64, 3, 8, 8], &Device::flex());
/// let part = SamConfig::new().with_ascent_fraction(0.125).ascent_part();
/// assert_eq!(part.of(&images).dims(), [8, 3, 8, 8]);
/// assert_eq!(part.samples(64), 8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AscentPart {
    fraction: f64,
}

impl AscentPart {
    pub(crate) fn new(fraction: f64) -> Self {
        Self { fraction }
    }

    /// Whether it is all of the batch.
    pub(crate) fn is_whole(self) -> bool {
        self.fraction == 1.0
    }

    /// The first samples of a batch along its first dimension.
    pub fn of<const D: usize, K: Basic>(self, batch: &Tensor<D, K>) -> Tensor<D, K> {
        let samples = self.samples(batch.dims()[0]);
        batch.clone().narrow(0, 0, samples)
    }

    /// The number of samples, to the nearest, of a batch of this many: 1 at least, if there is any.
    pub fn samples(self, batch: usize) -> usize {
        let samples = (self.fraction * batch as f64).round() as usize;
        samples.max(1).min(batch)
    }
}
