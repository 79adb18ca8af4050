//! Images as none of those trained on: shifted, rotated, noisy.

use digits::comparison::Corruption;
use digits::data::Digit;
use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

use crate::data::{BLACK, SIDE};

/// Each in one way.
pub const ALL: [Corruption; 3] = [
    Corruption {
        name: "shifted by 3 pixels",
        of: shifted,
    },
    Corruption {
        name: "rotated by 30 degrees",
        of: rotated,
    },
    Corruption {
        name: "noisy",
        of: noisy,
    },
];

/// By 3 pixels, to one of the four sides.
fn shifted(image: &Digit, rng: &mut StdRng) -> Digit {
    let (dx, dy) = [(3.0, 0.0), (-3.0, 0.0), (0.0, 3.0), (0.0, -3.0)][rng.random_range(0..4)];
    moved(image, |x, y| (x - dx, y - dy))
}

/// By 30 degrees, to the left or to the right, around the middle.
fn rotated(image: &Digit, rng: &mut StdRng) -> Digit {
    let angle = 30_f32.to_radians() * if rng.random_bool(0.5) { 1.0 } else { -1.0 };
    let (sin, cos) = angle.sin_cos();
    let middle = (SIDE - 1) as f32 / 2.0;
    moved(image, |x, y| {
        let (x, y) = (x - middle, y - middle);
        (middle + cos * x + sin * y, middle - sin * x + cos * y)
    })
}

/// Normal noise on each pixel, as large as the pixels' own deviation.
fn noisy(image: &Digit, rng: &mut StdRng) -> Digit {
    let noise = || -> f32 { StandardNormal.sample(rng) };
    let pixels = image.values().iter().zip(std::iter::repeat_with(noise));
    image.with_values(pixels.map(|(pixel, noise)| pixel + noise))
}

/// Each pixel as it is at another place, between pixels in proportion; black beyond the edges.
fn moved(image: &Digit, from: impl Fn(f32, f32) -> (f32, f32)) -> Digit {
    let pixels = image.values();
    let at = |x: f32, y: f32| {
        let inside = |v: f32| (0.0..SIDE as f32).contains(&v);
        match inside(x) && inside(y) {
            true => pixels[y as usize * SIDE + x as usize],
            false => BLACK,
        }
    };
    let between = |x: f32, y: f32| {
        let (left, top) = (x.floor(), y.floor());
        let (dx, dy) = (x - left, y - top);
        let row = |y: f32| at(left, y) * (1.0 - dx) + at(left + 1.0, y) * dx;
        row(top) * (1.0 - dy) + row(top + 1.0) * dy
    };
    image.with_values((0..SIDE * SIDE).map(|place| {
        let (x, y) = from((place % SIDE) as f32, (place / SIDE) as f32);
        between(x, y)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Black but for one pixel.
    fn point(x: usize, y: usize) -> Digit {
        let mut pixels = vec![BLACK; SIDE * SIDE];
        pixels[y * SIDE + x] = 2.0;
        Digit::new(pixels, 7)
    }

    #[test]
    fn a_point_goes_where_it_should() {
        let image = point(20, 5);
        let at = |image: &Digit, x: usize, y: usize| image.values()[y * SIDE + x];
        let right = moved(&image, |x, y| (x - 3.0, y));
        assert_eq!((at(&right, 23, 5), at(&right, 20, 5)), (2.0, BLACK));
        let half = moved(&image, |x, y| (x - 0.5, y));
        assert!((at(&half, 20, 5) - (2.0 + BLACK) / 2.0).abs() < 1e-6);

        let mut rng = StdRng::seed_from_u64(1);
        for Corruption { of, name } in ALL {
            let corrupted = of(&image, &mut rng);
            assert_ne!(corrupted.values(), image.values(), "{name}");
            assert_eq!(corrupted.values().len(), SIDE * SIDE);
        }
        // The middle stays the middle: 30 degrees around it move the point by a known distance.
        let turned = rotated(&image, &mut rng);
        let brightest = (0..SIDE * SIDE)
            .max_by(|a, b| turned.values()[*a].total_cmp(&turned.values()[*b]))
            .unwrap();
        let (x, y) = ((brightest % SIDE) as f32, (brightest / SIDE) as f32);
        let expected = 2.0 * 15_f32.to_radians().sin() * 6.5_f32.hypot(8.5);
        let distance = (x - 20.0).hypot(y - 5.0);
        assert!(
            (distance - expected).abs() < 1.0,
            "{distance} for {expected}"
        );
    }
}
