//! Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, UCI Machine Learning
//! Repository, CC BY 4.0): 1797 images of 8 x 8 pixels, embedded in the program.

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, ensure};
use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_sam::AscentPart;
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

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

/// Shuffles, splits, and replaces a part `noise` of the training and of the validation labels by random ones, as
/// `seed` has it.
pub fn split(mut digits: Vec<Digit>, noise: f64, seed: u64) -> Split {
    let mut rng = StdRng::seed_from_u64(seed);
    digits.shuffle(&mut rng);
    let mut valid = digits.split_off(TRAINING_IMAGES);
    let test = valid.split_off(VALIDATION_IMAGES);
    Split {
        train: digits,
        valid,
        test,
    }
    .with_noise(noise, &mut rng)
}

impl Split {
    /// With a part `noise` of the training and of the validation labels replaced by random ones.
    pub fn with_noise(mut self, noise: f64, rng: &mut StdRng) -> Self {
        for digits in [&mut self.train, &mut self.valid] {
            let noisy = (noise * digits.len() as f64).round() as usize;
            for digit in &mut digits[..noisy] {
                digit.label = rng.random_range(0..CLASSES);
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
}

impl DigitBatch {
    /// What SAM climbs on, if that is not the whole batch.
    pub fn part(&self, part: AscentPart) -> Self {
        Self {
            images: part.of(&self.images),
            labels: part.of(&self.labels),
            smoothing: self.smoothing,
        }
    }
}

/// Makes a batch of some digits.
#[derive(Clone, Default)]
pub struct DigitBatcher {
    smoothing: f32,
}

impl DigitBatcher {
    /// With label smoothing.
    pub fn smoothing(smoothing: f32) -> Self {
        Self { smoothing }
    }
}

impl Batcher<Digit, DigitBatch> for DigitBatcher {
    fn batch(&self, digits: Vec<Digit>, device: &Device) -> DigitBatch {
        let pixels: Vec<&[f32]> = digits.iter().map(|digit| &digit.pixels[..]).collect();
        let pixels = pixels.concat();
        let shape = [digits.len(), pixels.len() / digits.len()];
        let labels: Vec<i64> = digits.iter().map(|digit| digit.label as i64).collect();
        DigitBatch {
            images: Tensor::from_data(TensorData::new(pixels, shape), device),
            labels: Tensor::from_data(TensorData::new(labels, [digits.len()]), device),
            smoothing: self.smoothing,
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
    }
}
