//! Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, UCI Machine Learning
//! Repository, CC BY 4.0): 1797 images of 8 x 8 pixels, embedded in the program.

use std::io::Read;
use std::sync::{Arc, Mutex};

use anyhow::{Context, anyhow, ensure};
use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_sam::AscentPart;
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::{Beta, Distribution};

/// Of an image's side.
pub const SIDE: usize = 8;
/// Of an image.
pub const PIXELS: usize = SIDE * SIDE;
/// The digits from 0 to 9.
pub const CLASSES: usize = 10;
/// Of the images, those that are trained on.
pub const TRAINING_IMAGES: usize = 1000;

/// An image of a digit and which it is said to be.
#[derive(Clone, Debug)]
pub struct Digit {
    pixels: Arc<[f32]>,
    label: usize,
}

impl Digit {
    /// An image, pixel by pixel, and what it is said to be.
    pub fn new(pixels: impl IntoIterator<Item = f32>, label: usize) -> Self {
        Self {
            pixels: pixels.into_iter().collect(),
            label,
        }
    }

    /// The pixels.
    pub fn values(&self) -> &[f32] {
        &self.pixels
    }

    /// The same digit in other pixels.
    pub fn with_values(&self, pixels: impl IntoIterator<Item = f32>) -> Self {
        Self::new(pixels, self.label)
    }
}

/// Of the images, those that an epoch is chosen by.
pub const VALIDATION_IMAGES: usize = 200;

/// Images to train on, to choose an epoch by, and to test on.
pub struct Split {
    /// To train on, some of them with a wrong label.
    pub train: Vec<Digit>,
    /// To choose an epoch by, as many of them with a wrong label.
    pub valid: Vec<Digit>,
    /// To test on, none of them with a wrong label.
    pub test: Vec<Digit>,
}

/// All images, in the order of the file.
///
/// # Errors
///
/// If the embedded file is damaged.
pub fn digits() -> anyhow::Result<Vec<Digit>> {
    let mut text = String::new();
    GzDecoder::new(&include_bytes!("../data/digits.csv.gz")[..]).read_to_string(&mut text)?;
    text.lines().map(digit).collect()
}

fn digit(line: &str) -> anyhow::Result<Digit> {
    let numbers = line
        .split(',')
        .map(|number| number.parse::<u8>().with_context(|| line.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(numbers.len() == PIXELS + 1, "{} numbers", numbers.len());
    let pixels = numbers[..PIXELS].iter();
    Ok(Digit::new(
        pixels.map(|pixel| f32::from(*pixel) / 16.0),
        usize::from(numbers[PIXELS]),
    ))
}

/// How labels are wrong, and how many of them; a number is a part of random ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    /// Labels of this part are drawn anew: any digit, the right one as well.
    Random(f64),
    /// Labels of this part are the digit that the right one is likeliest taken for.
    Confused(f64),
}

impl From<f64> for Noise {
    fn from(part: f64) -> Self {
        Self::Random(part)
    }
}

impl Noise {
    /// Of all labels, from 0 to 1.
    pub fn part(self) -> f64 {
        match self {
            Self::Random(part) | Self::Confused(part) => part,
        }
    }

    fn label(self, right: usize, classes: usize, rng: &mut StdRng) -> usize {
        /// By digit: 2 for 7, 3 for 8, 5 for 6, 6 for 5 and 7 for 1 as Patrini et al. have them
        /// ([1609.03683](https://arxiv.org/abs/1609.03683), section 5), and the others in their manner.
        const TAKEN_FOR: [usize; CLASSES] = [6, 7, 7, 8, 9, 6, 5, 1, 3, 4];
        match self {
            Self::Random(_) => rng.random_range(0..classes),
            Self::Confused(_) => TAKEN_FOR[right],
        }
    }
}

/// For readers.
impl core::fmt::Display for Noise {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let kind = match self {
            Self::Random(_) => "wrong",
            Self::Confused(_) => "confused",
        };
        write!(f, "{:.0} % {kind} labels", 100.0 * self.part())
    }
}

/// Shuffles, splits, and makes some of the training and of the validation labels wrong, as `seed` has it.
pub fn split(mut digits: Vec<Digit>, noise: impl Into<Noise>, seed: u64) -> Split {
    let mut rng = StdRng::seed_from_u64(seed);
    digits.shuffle(&mut rng);
    let mut valid = digits.split_off(TRAINING_IMAGES);
    let test = valid.split_off(VALIDATION_IMAGES);
    Split {
        train: digits,
        valid,
        test,
    }
    .with_noise(noise.into(), &mut rng)
}

impl Split {
    /// With some of the training and of the validation labels wrong.
    pub fn with_noise(mut self, noise: Noise, rng: &mut StdRng) -> Self {
        let all = [&self.train, &self.valid, &self.test].into_iter().flatten();
        let classes = 1 + all.map(|digit| digit.label).max().unwrap_or(0);
        for digits in [&mut self.train, &mut self.valid] {
            let noisy = (noise.part() * digits.len() as f64).round() as usize;
            for digit in &mut digits[..noisy] {
                digit.label = noise.label(digit.label, classes, rng);
            }
        }
        self
    }
}

/// Images and their labels.
#[derive(Clone, Debug)]
pub struct DigitBatch {
    /// `[batch, pixels]`
    pub images: Tensor<2>,
    /// `[batch]`
    pub labels: Tensor<1, Int>,
    /// Of the labels, from 0 to below 1.
    pub smoothing: f32,
    /// If each image is mixed with another.
    pub mixed: Option<Mixed>,
}

/// What is mixed into the images of a batch.
#[derive(Clone, Debug)]
pub struct Mixed {
    /// Of the other images, `[batch]`.
    pub labels: Tensor<1, Int>,
    /// The other images' share, from 0 to 1.
    pub share: f32,
}

impl DigitBatch {
    /// What SAM climbs on, if that is not the whole batch.
    pub fn part(&self, part: AscentPart) -> Self {
        Self {
            images: part.of(&self.images),
            labels: part.of(&self.labels),
            smoothing: self.smoothing,
            mixed: self.mixed.as_ref().map(|mixed| Mixed {
                labels: part.of(&mixed.labels),
                share: mixed.share,
            }),
        }
    }
}

/// Makes a batch of some digits.
#[derive(Clone, Default)]
pub struct DigitBatcher {
    smoothing: f32,
    mixup: Option<Arc<Mutex<Mixup>>>,
}

/// Draws what is mixed with what, and how much of it.
struct Mixup {
    share: Beta<f64>,
    rng: StdRng,
}

impl DigitBatcher {
    /// With label smoothing, and with mixup of this alpha, drawn as `seed` has it.
    ///
    /// # Errors
    ///
    /// If alpha is not a finite number above 0.
    pub fn new(smoothing: f32, mixup: Option<f64>, seed: u64) -> anyhow::Result<Self> {
        let mixup = mixup.map(|alpha| {
            let share = Beta::new(alpha, alpha)
                .map_err(|error| anyhow!("a mixup of alpha {alpha}: {error}"))?;
            let rng = StdRng::seed_from_u64(seed);
            anyhow::Ok(Arc::new(Mutex::new(Mixup { share, rng })))
        });
        Ok(Self {
            smoothing,
            mixup: mixup.transpose()?,
        })
    }
}

impl Batcher<Digit, DigitBatch> for DigitBatcher {
    fn batch(&self, digits: Vec<Digit>, device: &Device) -> DigitBatch {
        let labels = |digits: &[Digit]| {
            let labels: Vec<i64> = digits.iter().map(|digit| digit.label as i64).collect();
            Tensor::from_data(TensorData::new(labels, [digits.len()]), device)
        };
        let images = |digits: &[Digit]| {
            let pixels: Vec<&[f32]> = digits.iter().map(|digit| &digit.pixels[..]).collect();
            let pixels = pixels.concat();
            let shape = [digits.len(), pixels.len() / digits.len()];
            Tensor::from_data(TensorData::new(pixels, shape), device)
        };
        let batch = DigitBatch {
            images: images(&digits),
            labels: labels(&digits),
            smoothing: self.smoothing,
            mixed: None,
        };
        let Some(mixup) = &self.mixup else {
            return batch;
        };
        let mut mixup = mixup.lock().expect("nobody panics");
        let Mixup { share, rng } = &mut *mixup;
        let share = share.sample(rng) as f32;
        let mut others = digits;
        others.shuffle(rng);
        DigitBatch {
            images: batch.images * (1.0 - share) + images(&others) * share,
            mixed: Some(Mixed {
                labels: labels(&others),
                share,
            }),
            ..batch
        }
    }
}

/// All of some digits, in batches of `size`.
pub fn batches(digits: &[Digit], size: usize, device: &Device) -> Vec<DigitBatch> {
    (digits.chunks(size))
        .map(|digits| DigitBatcher::default().batch(digits.to_vec(), device))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_set_is_whole() {
        let digits = digits().unwrap();
        assert_eq!(digits.len(), 1797);
        assert!((0..CLASSES).all(|label| digits.iter().filter(|d| d.label == label).count() > 170));
        assert!(
            digits
                .iter()
                .all(|digit| digit.pixels.iter().all(|p| (0.0..=1.0).contains(p)))
        );
    }

    #[test]
    fn noise_replaces_labels_of_all_but_the_test_images() {
        let clean = split(digits().unwrap(), 0.0, 7);
        let noisy = split(digits().unwrap(), 0.4, 7);
        let changed = |clean: &[Digit], noisy: &[Digit]| {
            (clean.iter().zip(noisy))
                .filter(|(clean, noisy)| clean.label != noisy.label)
                .count()
        };
        let sizes = [&noisy.train, &noisy.valid, &noisy.test].map(Vec::len);
        assert_eq!(sizes, [1000, 200, 597]);
        assert_eq!(changed(&clean.test, &noisy.test), 0);
        // A random label of ten is the right one for a tenth of the 400, and of the 80.
        assert!((320..400).contains(&changed(&clean.train, &noisy.train)));
        assert!((60..80).contains(&changed(&clean.valid, &noisy.valid)));

        let confused = split(digits().unwrap(), Noise::Confused(0.4), 7);
        assert_eq!(changed(&clean.train, &confused.train), 400);
        assert_eq!(changed(&clean.test, &confused.test), 0);
        let labels = clean.train.iter().zip(&confused.train).take(400);
        for (right, wrong) in labels.filter(|(right, _)| right.label == 4) {
            assert_eq!(wrong.label, 9);
            assert_eq!(wrong.pixels, right.pixels);
        }
    }

    #[test]
    fn mixed_images_are_so_much_of_either() {
        let device = Device::flex();
        let digits: Vec<Digit> = (0..8).map(|n| Digit::new([n as f32; 3], n)).collect();
        let batcher = || DigitBatcher::new(0.0, Some(1.0), 3).unwrap();
        let batch = batcher().batch(digits.clone(), &device);
        let mixed = batch.mixed.unwrap();
        assert!(mixed.share > 0.0 && mixed.share < 1.0, "{}", mixed.share);
        let expected =
            batch.labels.float() * (1.0 - mixed.share) + mixed.labels.float() * mixed.share;
        let expected = expected.unsqueeze_dim::<2>(1).repeat_dim(1, 3);
        expected
            .into_data()
            .assert_approx_eq::<f32>(&batch.images.to_data(), Default::default());
        let again = batcher().batch(digits, &device);
        assert_eq!(again.images.into_data(), batch.images.into_data());
        assert!(DigitBatcher::new(0.0, Some(0.0), 3).is_err());
    }
}
