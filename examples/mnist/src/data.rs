//! MNIST: 28 x 28 pixels of handwritten digits, 60,000 to train on and 10,000 to test on.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_sam::AscentPart;
use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// Of an image's side.
pub const SIDE: usize = 28;
/// The digits from 0 to 9.
pub const CLASSES: usize = 10;

/// An image.
#[derive(Clone, Debug)]
pub struct MnistItem {
    /// Row by row, each from 0 to 255.
    pub image: [[f32; SIDE]; SIDE],
    /// The digit.
    pub label: u8,
}

/// The images.
pub struct Mnist {
    /// 60,000
    pub train: Vec<MnistItem>,
    /// 10,000
    pub test: Vec<MnistItem>,
}

/// The images, from the four files in a folder, gzipped or not; without a folder Burn downloads them, once.
///
/// # Errors
///
/// If a file is not there, or is damaged, or there is no folder, nor the feature `download`.
pub fn load(folder: Option<&Path>) -> anyhow::Result<Mnist> {
    let Some(folder) = folder else {
        return downloaded();
    };
    Ok(Mnist {
        train: read(folder, "train")?,
        test: read(folder, "t10k")?,
    })
}

#[cfg(feature = "download")]
fn downloaded() -> anyhow::Result<Mnist> {
    use burn::data::dataset::Dataset;
    use burn_dataset::vision::MnistDataset;

    let items = |dataset: MnistDataset| -> anyhow::Result<Vec<MnistItem>> {
        let items = dataset.iter().map(|item| {
            let burn_dataset::vision::MnistItem { image, label } = item?;
            Ok(MnistItem { image, label })
        });
        items.collect()
    };
    Ok(Mnist {
        train: items(MnistDataset::train())?,
        test: items(MnistDataset::test())?,
    })
}

#[cfg(not(feature = "download"))]
fn downloaded() -> anyhow::Result<Mnist> {
    anyhow::bail!(
        "there are no images: name a folder with MNIST's four files (--data FOLDER), or build with --features download, \
         for Burn to download them"
    )
}

fn read(folder: &Path, name: &str) -> anyhow::Result<Vec<MnistItem>> {
    let images = idx(folder, &format!("{name}-images-idx3-ubyte"), &[SIDE, SIDE])?;
    let labels = idx(folder, &format!("{name}-labels-idx1-ubyte"), &[])?;
    let images = images.chunks_exact(SIDE * SIDE);
    ensure!(
        images.len() == labels.len(),
        "{name}: {} images and {} labels",
        images.len(),
        labels.len()
    );
    let item = |(pixels, label): (&[u8], u8)| MnistItem {
        image: core::array::from_fn(|y| core::array::from_fn(|x| f32::from(pixels[y * SIDE + x]))),
        label,
    };
    Ok(images.zip(labels).map(item).collect())
}

/// The bytes of an IDX file of unsigned bytes: a header of big-endian numbers (a magic one that ends with how many
/// dimensions there are, then their sizes), and the values.
fn idx(folder: &Path, name: &str, item: &[usize]) -> anyhow::Result<Vec<u8>> {
    let [plain, zipped] = [name.to_string(), format!("{name}.gz")].map(|name| folder.join(name));
    let mut bytes = Vec::new();
    match plain.exists() {
        true => File::open(&plain)?.read_to_end(&mut bytes),
        false => {
            let file = File::open(&zipped).with_context(|| {
                format!("there is no {name}, nor {name}.gz, in {}", folder.display())
            })?;
            GzDecoder::new(file).read_to_end(&mut bytes)
        }
    }
    .with_context(|| format!("{name} cannot be read"))?;

    let dimensions = 1 + item.len();
    let header = 4 * (1 + dimensions);
    ensure!(bytes.len() >= header, "{name} is too short for its header");
    let number = |index: usize| {
        let bytes = &bytes[4 * index..][..4];
        u32::from_be_bytes(bytes.try_into().expect("four")) as usize
    };
    ensure!(
        number(0) == 0x0800 + dimensions,
        "{name} is no IDX file of {dimensions} dimensions"
    );
    let sizes: Vec<usize> = (2..=dimensions).map(number).collect();
    ensure!(sizes == item, "{name} has items of {sizes:?}, not {item:?}");
    let len = number(1) * item.iter().product::<usize>();
    ensure!(
        bytes.len() == header + len,
        "{name} says that {len} bytes follow its header, and {} do",
        bytes.len() - header
    );
    Ok(bytes.split_off(header))
}

/// Images to train on, to choose by, and to test on.
pub struct Split {
    /// To train on, some of them with a wrong label.
    pub train: Vec<MnistItem>,
    /// To choose an epoch or a setting by: a fifth as many, as many of them with a wrong label.
    pub valid: Vec<MnistItem>,
    /// To test on, none of them with a wrong label.
    pub test: Vec<MnistItem>,
}

/// So many of the training images, and a fifth as many more to validate on, as `seed` has it; a part `noise` of
/// the labels of either is replaced by random ones.
///
/// # Errors
///
/// If there are not so many.
pub fn split(mnist: &Mnist, images: usize, noise: f64, seed: u64) -> anyhow::Result<Split> {
    let all = images + images / 5;
    ensure!(
        images >= 5 && all <= mnist.train.len(),
        "{images} images and a fifth more to validate on: there must be at least 5, and there are {}",
        mnist.train.len()
    );
    let mut rng = StdRng::seed_from_u64(seed);
    let mut indices: Vec<usize> = (0..mnist.train.len()).collect();
    let (chosen, _) = indices.partial_shuffle(&mut rng, all);
    let mut train: Vec<MnistItem> = chosen.iter().map(|at| mnist.train[*at].clone()).collect();
    let mut valid = train.split_off(images);
    for items in [&mut train, &mut valid] {
        let noisy = (noise * items.len() as f64).round() as usize;
        for item in &mut items[..noisy] {
            item.label = rng.random_range(0..CLASSES as u8);
        }
    }
    Ok(Split {
        train,
        valid,
        test: mnist.test.clone(),
    })
}

/// Images and their labels.
#[derive(Clone, Debug)]
pub struct MnistBatch {
    /// `[batch, SIDE, SIDE]`, of mean 0 and deviation 1.
    pub images: Tensor<3>,
    /// `[batch]`
    pub labels: Tensor<1, Int>,
}

impl MnistBatch {
    /// What SAM climbs on, if that is not the whole batch.
    pub fn part(&self, part: AscentPart) -> Self {
        Self {
            images: part.of(&self.images),
            labels: part.of(&self.labels),
        }
    }
}

/// Of the training images' pixels, from 0 to 1.
const MEAN: f32 = 0.1307;
const DEVIATION: f32 = 0.3081;
/// What is drawn on, [normalized].
pub const BLACK: f32 = -MEAN / DEVIATION;

/// The pixels of an image, row by row, so that those of all training images have mean 0 and deviation 1.
pub fn normalized(item: &MnistItem) -> impl Iterator<Item = f32> + '_ {
    let pixels = item.image.as_flattened().iter();
    pixels.map(|pixel| (pixel / 255.0 - MEAN) / DEVIATION)
}

/// Makes a batch of some images.
#[derive(Clone)]
pub struct MnistBatcher;

impl Batcher<MnistItem, MnistBatch> for MnistBatcher {
    fn batch(&self, items: Vec<MnistItem>, device: &Device) -> MnistBatch {
        let pixels: Vec<f32> = items.iter().flat_map(normalized).collect();
        let labels: Vec<i64> = items.iter().map(|item| i64::from(item.label)).collect();
        MnistBatch {
            images: Tensor::from_data(TensorData::new(pixels, [items.len(), SIDE, SIDE]), device),
            labels: Tensor::from_data(TensorData::new(labels, [items.len()]), device),
        }
    }
}
