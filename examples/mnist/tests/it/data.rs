use std::path::Path;

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::Device;
use mnist::data::{MnistBatcher, MnistItem, SIDE, load, split};

use crate::folder;

#[test]
fn files_are_read_gzipped_or_not() {
    let folder = folder(30);
    let mnist = load(Some(folder.path())).unwrap();
    for items in [&mnist.train, &mnist.test] {
        assert_eq!(items.len(), 30);
        assert_eq!(items[17].label, 7);
        assert_eq!(items[17].image, [[17.0; SIDE]; SIDE]);
    }
    let batch = MnistBatcher.batch(mnist.train[..2].to_vec(), &Device::flex());
    assert_eq!(batch.images.dims(), [2, SIDE, SIDE]);
    let labels: Vec<i64> = batch.labels.into_data().iter().collect();
    assert_eq!(labels, [0, 1]);
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let folder = folder(3);
    let file = folder.path().join("train-labels-idx1-ubyte");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.pop();
    std::fs::write(&file, bytes).unwrap();
    let message = |folder: &Path| format!("{:#}", load(Some(folder)).err().unwrap());
    let damaged = message(folder.path());
    assert!(
        damaged.contains("train-labels-idx1-ubyte says that 3 bytes follow"),
        "{damaged}"
    );
    std::fs::remove_file(&file).unwrap();
    let missing = message(folder.path());
    assert!(
        missing.contains("there is no train-labels-idx1-ubyte"),
        "{missing}"
    );
}

#[cfg(not(feature = "download"))]
#[test]
fn without_downloads_a_folder_is_asked_for() {
    let message = load(None).err().unwrap().to_string();
    for way in ["--data", "--features download"] {
        assert!(message.contains(way), "{message}");
    }
}

#[test]
fn training_and_validation_have_wrong_labels_alike() {
    let folder = folder(120);
    let mnist = load(Some(folder.path())).unwrap();
    let wrong = |items: &[MnistItem]| {
        let right = |item: &&MnistItem| item.image[0][0] as u32 % 10 == u32::from(item.label);
        items.len() - items.iter().filter(right).count()
    };
    let clean = split(&mnist, 100, 0.0, 3).unwrap();
    assert_eq!(
        [clean.train.len(), clean.valid.len(), clean.test.len()],
        [100, 20, 120]
    );
    assert_eq!(
        [&clean.train, &clean.valid, &clean.test].map(|items| wrong(items)),
        [0; 3]
    );
    let noisy = split(&mnist, 100, 0.5, 3).unwrap();
    // A random label of ten is the right one for a tenth.
    assert!((35..=50).contains(&wrong(&noisy.train)));
    assert!((6..=10).contains(&wrong(&noisy.valid)));
    assert_eq!(wrong(&noisy.test), 0);
    assert!(split(&mnist, 101, 0.0, 3).is_err());
}
