//! How flat the loss is around a module's weights.

use core::fmt;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn_sam_kernels as kernels;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::lanczos::{Eigenvalue, Lanczos};
use super::vector::{Trainable, Vector, are_finite};
use crate::SamConfig;
use crate::method::{self, Factor};
use crate::step::{Survey, check_groups, climb, take, with_own_statistics};

/// Measures of how flat the loss is around a module's weights.
///
/// The loss is that of a closure, as the mean over some batches that count the same each. It is
/// taken of copies of the module, at its weights and around them: the module itself, its running
/// statistics included, stays as it is. A copy is in the mode (training, on an autodiff device) that
/// the module is in; batch normalization then normalizes by the batch.
///
/// What is measured is a matter of the loss, so leave out what does not belong to it: dropout makes
/// the loss another one at each call, and a difference of two then measures the noise.
///
/// Values are read back from the device, many of them for the Hessian: this is for looking at a model,
/// not for a training step.
///
/// # Example
///
/// ```
/// use burn::module::Param;
/// use burn::tensor::{Device, Tensor};
/// use burn_sam::{Flatness, SamConfig};
///
/// let device = Device::flex().autodiff();
/// let weights = Param::from_tensor(Tensor::<1>::from_floats([3.0, 4.0], &device));
///
/// // L(w) = |w|² / 2: a gradient of w, a Hessian of ones.
/// let loss = |weights: &Param<Tensor<1>>, _: &()| weights.val().square().sum() * 0.5;
/// let flatness = Flatness::new(&weights, &[()], loss)?;
///
/// let sharpness = flatness.sharpness(&SamConfig::new().with_rho(0.1))?;
/// assert!((sharpness - (5.1f64.powi(2) - 25.0) / 2.0).abs() < 1e-4);
/// let trace = flatness.trace(10, 0)?;
/// assert!((trace.mean - 2.0).abs() < 1e-3);
/// # Ok::<(), burn_sam::FlatnessError>(())
/// ```
pub struct Flatness<'a, M, B, L> {
    pub(super) module: &'a M,
    batches: &'a [B],
    loss: L,
    pub(super) trainable: Trainable,
    pub(super) progress: Box<dyn Fn(usize, usize) + 'a>,
}

/// A mean of samples.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error: the deviation of the samples, over the root of their number.
    pub standard_error: f64,
}

/// Why there is no measure.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FlatnessError {
    /// There are no batches, or none with anything in it.
    NoBatches,
    /// No parameter of the module requires gradients.
    NothingTrainable,
    /// A radius that is not a finite number above 0.
    Radius(f64),
    /// The loss of this batch, counted from 0, is not finite.
    Loss {
        /// The batch.
        batch: usize,
        /// Its loss.
        value: f64,
    },
    /// The loss is finite, but its gradient is not.
    Gradient,
    /// Of a landscape, no loss is finite.
    NothingFinite,
    /// A group with a rho of its own matches no parameter of the module: what there is.
    Group(String),
    /// A direction that does not go from a finite number to a larger one.
    Range {
        /// From here.
        from: f64,
        /// To here.
        to: f64,
    },
    /// A random direction that moves nothing: no trainable parameter has a rank of 2 or more.
    NoFilters,
    /// Another module that has no parameter of the same shape under this path.
    OtherShape {
        /// The path.
        path: String,
    },
    /// Two directions that are the same, or one that leads nowhere: they span no plane.
    NoPlane,
    /// A number of samples, eigenvalues or points that is too small or too large.
    Count {
        /// Of what.
        of: &'static str,
        /// The number asked for.
        asked: usize,
        /// The least that makes sense.
        least: usize,
        /// The most that there can be.
        most: usize,
    },
}

impl fmt::Display for FlatnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBatches => f.write_str("there are no batches to take the loss of"),
            Self::NothingTrainable => f.write_str(
                "no parameter of the module requires gradients: is it frozen, or not on an autodiff \
                 device (Device::autodiff, Module::train)?",
            ),
            Self::Radius(rho) => write!(
                f,
                "the radius rho is {rho}, but must be a finite number above 0"
            ),
            Self::Loss { batch, value } => write!(
                f,
                "the loss of batch {batch} is {value}: there is no flatness to measure where the loss \
                 is not finite; check the batch, or choose a smaller radius"
            ),
            Self::Gradient => f.write_str(
                "the loss is finite, but its gradient is not: there is no direction to look in",
            ),
            Self::NothingFinite => f.write_str(
                "no loss is finite at any of the points: choose a smaller range, or one that the weights \
                 lie in",
            ),
            Self::Group(message) => f.write_str(message),
            Self::Range { from, to } => write!(
                f,
                "the direction goes from {from} to {to}, but must go from a finite number to a larger \
                 one"
            ),
            Self::NoFilters => f.write_str(
                "a random direction moves nothing: no trainable parameter has a rank of 2 or more",
            ),
            Self::OtherShape { path } => write!(
                f,
                "the other module has no parameter {path} of the same shape: there is no line between \
                 the two"
            ),
            Self::NoPlane => f.write_str(
                "the two directions span no plane: give them other seeds, or other models",
            ),
            Self::Count {
                of,
                asked,
                least,
                most,
            } => match *most == usize::MAX {
                true => write!(f, "{asked} {of} were asked for, but it takes at least {least}"),
                false => write!(
                    f,
                    "{asked} {of} were asked for, but there can be {least} to {most}"
                ),
            },
        }
    }
}

impl core::error::Error for FlatnessError {}

pub(super) type Result<T> = core::result::Result<T, FlatnessError>;

impl<'a, M, B, L> Flatness<'a, M, B, L>
where
    M: Module,
    L: Fn(&M, &B) -> Tensor<1>,
{
    /// The loss around a module's weights.
    ///
    /// # Arguments
    ///
    /// * `module` - the module, with parameters that require gradients. These are what is measured:
    ///   frozen ones count as constants.
    /// * `batches` - what `loss` is given, one at a time. Of a single batch: `std::slice::from_ref`.
    /// * `loss` - the loss of a batch, of shape `[1]`.
    ///
    /// # Errors
    ///
    /// If there are no batches, or no parameter requires gradients.
    pub fn new(module: &'a M, batches: &'a [B], loss: L) -> Result<Self> {
        if batches.is_empty() {
            return Err(FlatnessError::NoBatches);
        }
        let trainable = Trainable::of(module);
        if trainable.len() == 0 {
            return Err(FlatnessError::NothingTrainable);
        }
        Ok(Self {
            module,
            batches,
            loss,
            trainable,
            progress: Box::new(|_, _| ()),
        })
    }

    /// Calls `progress` after each sample or iteration, with how many there have been and how many
    /// there are at most.
    pub fn with_progress(mut self, progress: impl Fn(usize, usize) + 'a) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// The loss at the weights.
    ///
    /// # Errors
    ///
    /// If it is not finite.
    pub fn loss(&self) -> Result<f64> {
        self.loss_of(&self.copy())
    }

    /// The sharpness at SAM's radius: the loss at w + e(w), less the loss at w.
    ///
    /// e(w) is SAM's own first step over all batches together (equation 2 of
    /// [SAM](https://arxiv.org/abs/2010.01412)), with the rho, the groups and, if adaptive, the T of
    /// `sam`.
    ///
    /// # Errors
    ///
    /// If no rho is above 0, a group matches no parameter, or a loss is not finite.
    pub fn sharpness(&self, sam: &SamConfig) -> Result<f64> {
        self.check(sam)?;
        let (loss, grads) = self.gradients_of(&self.copy())?;
        Ok(self.loss_of(&self.climbed(sam, grads))? - loss)
    }

    /// The sharpness at SAM's radius in random directions: the mean of the loss at w + rho T u, less
    /// the loss at w, over unit vectors u of uniform direction. A sample is a pair of opposite ones.
    ///
    /// # Arguments
    ///
    /// * `sam` - as for [`sharpness`](Self::sharpness): rho, and T if adaptive.
    /// * `samples` - the number of pairs of directions, 2 at least.
    /// * `seed` - what the directions are drawn with; the same on every backend.
    ///
    /// # Errors
    ///
    /// If no rho is above 0, a group matches no parameter, `samples` is less than 2, or a loss is not
    /// finite.
    pub fn average_sharpness(
        &self,
        sam: &SamConfig,
        samples: usize,
        seed: u64,
    ) -> Result<Estimate> {
        self.check(sam)?;
        check_count("samples", samples, 2, usize::MAX)?;
        let loss = self.loss()?;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut differences = Vec::with_capacity(samples);
        for sample in 0..samples {
            // SAM climbs along T² g / |T g|: with u / T for g, that is T u / |u|. With each direction
            // goes its opposite, so that the slope, which means nothing here, cancels out.
            let eta = sam.method().adaptive_eta();
            let mut difference = -loss;
            let seed: u64 = rng.random();
            for sign in [1.0, -1.0] {
                let mut rng = StdRng::seed_from_u64(seed);
                let direction = self.trainable.normal(self.module, &mut rng, eta, sign);
                let moved = self.climbed(sam, direction);
                difference += self.loss_of(&moved)? / 2.0;
            }
            differences.push(difference);
            (self.progress)(sample + 1, samples);
        }
        Ok(Estimate::of(&differences))
    }

    /// The largest eigenvalues of the Hessian, in descending order, by Lanczos iteration.
    ///
    /// Products with the Hessian are differences of gradients, to about three digits in f32. The
    /// iteration ends when all residuals are below 1e-4 of the largest eigenvalue, or after
    /// 20 + 4 `count` products, of two gradients each, if not: look at the residuals. It keeps as many
    /// vectors of the weights' size. An eigenvalue that occurs several times may be found once.
    ///
    /// # Arguments
    ///
    /// * `count` - how many, from 1 to the number of weights.
    /// * `seed` - what the first vector is drawn with; the same on every backend.
    ///
    /// # Errors
    ///
    /// If there are not `count` eigenvalues, or a loss is not finite.
    pub fn eigenvalues(&self, count: usize, seed: u64) -> Result<Vec<Eigenvalue>> {
        const TOLERANCE: f64 = 1e-4;
        let weights = self.trainable.len();
        check_count("eigenvalues", count, 1, weights)?;
        let most = (20 + 4 * count).min(weights);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut lanczos = Lanczos::default();
        let mut found = Vec::new();
        for step in 0..most {
            let mut start = || self.trainable.signs(self.module, &mut rng);
            let vector = lanczos.next_vector(&mut start);
            let product = self.hessian_times(&vector)?;
            lanczos.push(vector, product);
            (self.progress)(step + 1, most);
            found = lanczos.eigenvalues(count);
            let largest = found.iter().map(|e| e.value.abs()).fold(0.0, f64::max);
            let exact = |e: &Eigenvalue| e.residual <= TOLERANCE * largest;
            if found.len() == count && found.iter().all(exact) {
                break;
            }
        }
        Ok(found)
    }

    /// The trace of the Hessian, the sum of all its eigenvalues, as Hutchinson's estimate: the mean of
    /// v · H v over vectors v of random signs.
    ///
    /// # Arguments
    ///
    /// * `samples` - the number of vectors, 2 at least; each takes two gradients.
    /// * `seed` - what they are drawn with; the same on every backend.
    ///
    /// # Errors
    ///
    /// If `samples` is less than 2, or a loss is not finite.
    pub fn trace(&self, samples: usize, seed: u64) -> Result<Estimate> {
        check_count("samples", samples, 2, usize::MAX)?;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut products = Vec::with_capacity(samples);
        for sample in 0..samples {
            let vector = self.trainable.signs(self.module, &mut rng);
            products.push(vector.dot(&self.hessian_times(&vector)?));
            (self.progress)(sample + 1, samples);
        }
        Ok(Estimate::of(&products))
    }

    /// H v, as (g(w + h v) - g(w - h v)) / 2h.
    fn hessian_times(&self, vector: &Vector) -> Result<Vector> {
        let step = self.trainable.step() / vector.norm();
        let gradient = |step: f64| -> Result<Vector> {
            let module = self.trainable.displace(self.copy(), vector, step);
            let (_, grads) = self.gradients_of(&module)?;
            Ok(self.trainable.flatten(&module, grads))
        };
        let ahead = gradient(step)?;
        let difference = ahead.plus(&gradient(-step)?, -1.0);
        Ok(difference.scaled(0.5 / step / self.batches.len() as f64))
    }

    /// The module, with running statistics of its own.
    pub(super) fn copy(&self) -> M {
        let survey = Survey::of(SamConfig::new().method(), self.module);
        with_own_statistics(self.module, &survey)
    }

    /// SAM's first step along a direction.
    fn climbed(&self, sam: &SamConfig, direction: kernels::Vector) -> M {
        let settings = sam.method();
        let survey = Survey::of(settings, self.module);
        let own = with_own_statistics(self.module, &survey);
        let direction = method::Direction::Gradient(direction);
        climb(settings, &survey, &Factor::ONE, own, direction).module
    }

    fn check(&self, sam: &SamConfig) -> Result<()> {
        match sam.method().largest_rho() {
            rho if rho > 0.0 => {
                check_groups(sam.method(), self.module).map_err(FlatnessError::Group)
            }
            rho => Err(FlatnessError::Radius(rho)),
        }
    }

    pub(super) fn loss_of(&self, module: &M) -> Result<f64> {
        let mut sum = 0.0;
        for (batch, input) in self.batches.iter().enumerate() {
            sum += read_loss((self.loss)(module, input), batch)?;
        }
        Ok(sum / self.batches.len() as f64)
    }

    /// The mean loss, and the sum of the batches' gradients.
    fn gradients_of(&self, module: &M) -> Result<(f64, kernels::Vector)> {
        let mut sum = 0.0;
        let mut accumulator = GradientsAccumulator::new();
        for (batch, input) in self.batches.iter().enumerate() {
            let loss = (self.loss)(module, input);
            sum += read_loss(loss.clone(), batch)?;
            let grads = GradientsParams::from_grads(loss.backward(), module);
            accumulator.accumulate(module, grads);
        }
        let grads = take(module, accumulator.grads());
        match are_finite(&grads) {
            true => Ok((sum / self.batches.len() as f64, grads)),
            false => Err(FlatnessError::Gradient),
        }
    }
}

impl Estimate {
    fn of(samples: &[f64]) -> Self {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        Self {
            mean,
            standard_error: (squares / (count - 1.0) / count).sqrt(),
        }
    }
}

fn read_loss(loss: Tensor<1>, batch: usize) -> Result<f64> {
    let values: Vec<f64> = loss.into_data().iter::<f64>().collect();
    match values[..] {
        [value] if value.is_finite() => Ok(value),
        [value] => Err(FlatnessError::Loss { batch, value }),
        _ => panic!(
            "the loss of batch {batch} has {} values, but a loss is one: take its mean",
            values.len()
        ),
    }
}

pub(super) fn check_count(of: &'static str, asked: usize, least: usize, most: usize) -> Result<()> {
    match (least..=most).contains(&asked) {
        true => Ok(()),
        false => Err(FlatnessError::Count {
            of,
            asked,
            least,
            most,
        }),
    }
}
