//! Tests of the example on MNIST, on images that are made for them.

mod data;
mod evidence;

use std::fs::File;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use mnist::data::SIDE;

/// Four files of a few images each, half of them gzipped.
fn folder(count: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, zipped) in [("train", false), ("t10k", true)] {
        let header = |magic: u32, sizes: &[u32]| -> Vec<u8> {
            let numbers = [magic].into_iter().chain(sizes.iter().copied());
            numbers.flat_map(u32::to_be_bytes).collect()
        };
        let mut images = header(0x803, &[count, 28, 28]);
        images.extend((0..count).flat_map(|image| vec![image as u8; SIDE * SIDE]));
        let mut labels = header(0x801, &[count]);
        labels.extend((0..count).map(|image| (image % 10) as u8));
        for (kind, bytes) in [("images-idx3", images), ("labels-idx1", labels)] {
            let file = folder.path().join(format!("{name}-{kind}-ubyte"));
            if zipped {
                let file = File::create(file.with_added_extension("gz")).unwrap();
                let mut zip = GzEncoder::new(file, Compression::fast());
                zip.write_all(&bytes).unwrap();
                zip.finish().unwrap();
            } else {
                std::fs::write(file, bytes).unwrap();
            }
        }
    }
    folder
}
