//! The loss along lines and in planes through weight space.

use burn::module::Module;
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::measures::{Flatness, FlatnessError, Result, check_count};
use super::vector::Vector;

/// A line through weight space that goes through a module's weights, and the points on it to take
/// the loss at.
#[derive(Clone, Debug)]
pub struct Direction<'a, M> {
    kind: Kind<'a, M>,
    range: (f64, f64),
    points: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind<'a, M> {
    Random(u64),
    Towards(&'a M),
}

impl<'a, M> Direction<'a, M> {
    /// A random direction, filter-normalized ([Li et al.](https://arxiv.org/abs/1712.09913), section
    /// 4): each filter of it is as long as the module's own filter, so that a network with larger
    /// weights does not look flatter, and two networks can be compared. 1 is as far as the weights are
    /// from 0.
    ///
    /// Filters are the weights of one output: a column of a matrix, of an `Embedding` a row, of a
    /// convolution a slice along its output channels. Biases and the parameters of normalization
    /// layers, of rank 1, stay where they are.
    ///
    /// At 51 points from -1 to 1, if not said otherwise. The same `seed` draws the same direction on
    /// every backend.
    pub fn random(seed: u64) -> Self {
        Self {
            kind: Kind::Random(seed),
            range: (-1.0, 1.0),
            points: 51,
        }
    }

    /// The way to another module of the same shapes: the module is at 0, the other at 1.
    ///
    /// At 51 points from -0.5 to 1.5, if not said otherwise.
    pub fn towards(other: &'a M) -> Self {
        Self {
            kind: Kind::Towards(other),
            range: (-0.5, 1.5),
            points: 51,
        }
    }

    /// From where to where the points are, which are evenly spaced and count both ends.
    pub fn with_range(mut self, from: f64, to: f64) -> Self {
        self.range = (from, to);
        self
    }

    /// The number of points, 2 at least; an odd number has one in the middle.
    pub fn with_points(mut self, points: usize) -> Self {
        self.points = points;
        self
    }

    fn axis(&self) -> Result<Axis> {
        let (from, to) = self.range;
        if !(from.is_finite() && to.is_finite() && from < to) {
            return Err(FlatnessError::Range { from, to });
        }
        check_count("points", self.points, 2, usize::MAX)?;
        let last = (self.points - 1) as f64;
        let position = |point| (from * (last - point as f64) + to * point as f64) / last;
        Ok(Axis {
            label: match self.kind {
                Kind::Random(seed) => format!("random direction {seed}, in filter norms"),
                Kind::Towards(_) => "from one model, 0, to the other, 1".to_string(),
            },
            positions: (0..self.points).map(position).collect(),
        })
    }
}

/// An axis of a [`LossCurve`] or [`LossSurface`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Axis {
    /// What the axis is and what it is measured in.
    pub label: String,
    /// Where the loss was taken, in ascending order.
    pub positions: Vec<f64>,
}

/// The loss along a line through weight space. From [`Flatness::curve`].
///
/// Where the loss is not finite, as it may be far from the weights, the curve has a hole: `None`, in
/// serde's JSON `null`, in CSV an empty field.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossCurve {
    /// The line.
    pub x: Axis,
    /// A loss for each position, or none where it is not finite.
    pub losses: Vec<Option<f64>>,
}

/// The loss in a plane through weight space. From [`Flatness::surface`].
///
/// It can have holes as a [`LossCurve`] can.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossSurface {
    /// One direction of the plane.
    pub x: Axis,
    /// The other.
    pub y: Axis,
    /// For each position of `y`, a loss for each position of `x`, or none where it is not finite.
    pub losses: Vec<Vec<Option<f64>>>,
}

impl LossCurve {
    /// A line `x,loss`, and then one for each position.
    pub fn to_csv(&self) -> String {
        let rows = self.x.positions.iter().zip(&self.losses);
        let rows = rows.map(|(x, loss)| format!("{x},{}\n", field(loss)));
        "x,loss\n".to_string() + &rows.collect::<String>()
    }

    /// Where the loss is not finite.
    pub fn holes(&self) -> impl Iterator<Item = f64> {
        let points = self.x.positions.iter().zip(&self.losses);
        points.filter(|(_, loss)| loss.is_none()).map(|(x, _)| *x)
    }
}

impl LossSurface {
    /// A line `x,y,loss`, and then one for each pair of positions.
    pub fn to_csv(&self) -> String {
        let mut csv = "x,y,loss\n".to_string();
        for (y, losses) in self.y.positions.iter().zip(&self.losses) {
            for (x, loss) in self.x.positions.iter().zip(losses) {
                csv += &format!("{x},{y},{}\n", field(loss));
            }
        }
        csv
    }

    /// Where the loss is not finite, as positions of x and y.
    pub fn holes(&self) -> impl Iterator<Item = (f64, f64)> {
        let rows = self.y.positions.iter().zip(&self.losses);
        rows.flat_map(|(y, losses)| {
            let points = self.x.positions.iter().zip(losses);
            points
                .filter(|(_, loss)| loss.is_none())
                .map(|(x, _)| (*x, *y))
        })
    }
}

/// A hole is an empty field.
fn field(loss: &Option<f64>) -> String {
    loss.map_or(String::new(), |loss| loss.to_string())
}

impl<M, B, L> Flatness<'_, M, B, L>
where
    M: Module,
    L: Fn(&M, &B) -> Tensor<1>,
{
    /// The loss along a line. A point at which it is not finite is a hole.
    ///
    /// # Errors
    ///
    /// If the direction's range is none or it has less than 2 points, nothing of the module moves
    /// along it, the other module has other shapes, or the loss is not finite at the module's own weights
    /// or at all points.
    pub fn curve(&self, x: &Direction<M>) -> Result<LossCurve> {
        let axis = x.axis()?;
        let direction = self.direction(x)?;
        self.loss()?;
        let mut losses = Vec::with_capacity(x.points);
        for &position in &axis.positions {
            losses.push(self.loss_at(&direction, position)?);
            (self.progress)(losses.len(), x.points);
        }
        check_any(losses.iter())?;
        Ok(LossCurve { x: axis, losses })
    }

    /// The loss in the plane of two directions. A point at which it is not finite is a hole.
    ///
    /// # Errors
    ///
    /// As for [`curve`](Self::curve), and if both directions are the same or one leads nowhere.
    pub fn surface(&self, x: &Direction<M>, y: &Direction<M>) -> Result<LossSurface> {
        let axes = [x.axis()?, y.axis()?];
        let directions = [self.direction(x)?, self.direction(y)?];
        let cosine =
            directions[0].dot(&directions[1]) / directions[0].norm() / directions[1].norm();
        if cosine.is_nan() || cosine.abs() > 0.999 {
            return Err(FlatnessError::NoPlane);
        }
        let [x_axis, y_axis] = axes;
        let [along_x, along_y] = directions;
        self.loss()?;
        let mut losses = Vec::with_capacity(y.points);
        for &y_position in &y_axis.positions {
            let mut row = Vec::with_capacity(x.points);
            for &x_position in &x_axis.positions {
                let along_x = along_x.clone().scaled(x_position);
                row.push(self.loss_at(&along_x.plus(&along_y, y_position), 1.0)?);
                (self.progress)(losses.len() * x.points + row.len(), x.points * y.points);
            }
            losses.push(row);
        }
        check_any(losses.iter().flatten())?;
        Ok(LossSurface {
            x: x_axis,
            y: y_axis,
            losses,
        })
    }

    fn direction(&self, direction: &Direction<M>) -> Result<Vector> {
        match direction.kind {
            Kind::Random(seed) => {
                let mut rng = StdRng::seed_from_u64(seed);
                let filters = self.trainable.filters(self.module, &mut rng);
                filters.ok_or(FlatnessError::NoFilters)
            }
            Kind::Towards(other) => (self.trainable)
                .towards(self.module, other)
                .map_err(|path| FlatnessError::OtherShape { path }),
        }
    }

    /// `None` if it is not finite.
    fn loss_at(&self, vector: &Vector, position: f64) -> Result<Option<f64>> {
        let module = self.copy();
        match self.loss_of(&self.trainable.displace(module, vector, position)) {
            Err(FlatnessError::Loss { .. }) => Ok(None),
            loss => loss.map(Some),
        }
    }
}

fn check_any<'a>(mut losses: impl Iterator<Item = &'a Option<f64>>) -> Result<()> {
    match losses.any(Option::is_some) {
        true => Ok(()),
        false => Err(FlatnessError::NothingFinite),
    }
}
