use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use crate::method::tensor_like;
use crate::step::Taken;

/// How much the loss rises on SAM's way up, L(w + e(w)) - L(w), beside the loss in the dashboard
/// and the logs of Burn's `Learner`. From [`SamModel::sharpness`](crate::SamModel::sharpness).
///
/// Each SAM step computes both losses anyway: the metric needs no pass of its own. Their difference
/// is read by the `Learner`'s thread for metrics, as Burn's own metrics are read; the training does
/// not wait for it.
///
/// It is a metric of training steps, which are what climbs: register it with `metric_train_numeric`, or
/// with `metrics` among others; in validation it is not available, and no line of a log or a summary
/// says otherwise. With several devices or
/// gradient accumulation there is a value for each device's share of the batch or each micro-batch.
/// Dropout draws other masks in the second pass than in the first, and the difference has that too.
/// With an [ascent fraction](crate::SamConfig::with_ascent_fraction) below 1, the first loss is that of
/// the part and the second that of the whole batch: only the mean over many steps tells something.
///
/// For the sharpness on other data than a step's batch, at another rho or at the end of training,
/// see [`Flatness`](crate::Flatness).
#[derive(Clone)]
pub struct SharpnessMetric(PerStep<[Tensor<1>; 2]>);

impl SharpnessMetric {
    /// And where a model puts the losses at w and at w + e(w) of each step; of a step without one of the two
    /// passes, none.
    pub(crate) fn new() -> (Self, Steps<[Tensor<1>; 2]>) {
        let description = "How much the loss rises from w to w + e(w)";
        let (metric, steps) = PerStep::new("Sharpness", description, |losses: [Tensor<1>; 2]| {
            let [at_w, climbed] = losses;
            let [count] = at_w.dims();
            let sharpness = (climbed.mean() - at_w.mean()).try_into_scalar::<f64>()?;
            Ok((sharpness, count))
        });
        (Self(metric), steps)
    }
}

/// The radius rho of SAM's steps, beside the loss in the dashboard and the logs of Burn's `Learner`. From
/// [`SamModel::rho_metric`](crate::SamModel::rho_metric).
///
/// It is what shows a radius that [changes](crate::Radius) at work. It is a metric of training steps, as
/// [`SharpnessMetric`] is, and is read where that is read.
#[derive(Clone)]
pub struct RhoMetric(PerStep<Tensor<1>>);

impl RhoMetric {
    /// And where a model puts the radius of each step.
    pub(crate) fn new() -> (Self, Steps<Tensor<1>>) {
        let (metric, steps) = PerStep::new("Rho", "The radius of SAM's steps", |rho: Tensor<1>| {
            Ok((rho.try_into_scalar::<f64>()?, 1))
        });
        (Self(metric), steps)
    }
}

/// The loss at w of SAM's steps, beside the others in the dashboard and the logs of Burn's `Learner`. From
/// [`SamModel::loss_at_w`](crate::SamModel::loss_at_w).
///
/// A method of one pass ([`SamConfig::auto`](crate::SamConfig::auto), [`Ascent::Msam`](crate::Ascent::Msam)) takes it at
/// w + e(w), and the loss that other metrics see is that, which may be far above. This one is less what it has risen by on
/// the way, estimated; where a step has a pass at w, it is that one's. It is a metric of training steps, as
/// [`SharpnessMetric`] is, and is read where that is read.
#[derive(Clone)]
pub struct LossAtWMetric(PerStep<Tensor<1>>);

impl LossAtWMetric {
    /// And where a model puts the loss of each step.
    pub(crate) fn new() -> (Self, Steps<Tensor<1>>) {
        let description = "The loss at w, where SAM's step has none there an estimate of it";
        let (metric, steps) = PerStep::new("Loss at w", description, |loss: Tensor<1>| {
            // An estimate is a number, whatever the losses are that it is made of: each step counts alike.
            Ok((loss.mean().try_into_scalar::<f64>()?, 1))
        });
        (Self(metric), steps)
    }
}

/// The loss at w of a step, estimated where it has no pass there.
pub(super) fn loss_at_w<T>(
    taken: &Taken<T>,
    loss: impl Fn(&T) -> Option<Tensor<1>>,
) -> Option<Tensor<1>> {
    if let Some(at_w) = &taken.passes.at_w {
        return loss(at_w);
    }
    let like = loss(taken.passes.climbed.as_ref()?)?;
    let [at_w, _] = taken.seen(loss)?.losses;
    Some(tensor_like([at_w], &like))
}

/// The losses at w and at w + e(w).
pub(super) fn losses<T>(
    taken: &Taken<T>,
    loss: impl Fn(&T) -> Option<Tensor<1>>,
) -> Option<[Tensor<1>; 2]> {
    let climbed = loss(taken.passes.climbed.as_ref()?)?;
    Some([loss_at_w(taken, loss)?, climbed])
}

/// Where a model puts a value for each training step. Without the metric, nothing is kept.
pub(crate) struct Steps<V>(Weak<Queue<V>>);

/// The values of the steps that a metric has not seen yet, oldest first.
type Queue<V> = Mutex<VecDeque<Option<V>>>;

impl<V> Steps<V> {
    pub(crate) fn push(&self, value: Option<V>) {
        if let Some(steps) = self.0.upgrade() {
            steps
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_back(value);
        }
    }
}

impl<V> Clone for Steps<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A metric of what a model says at each training step.
#[derive(Clone)]
struct PerStep<V> {
    name: MetricName,
    description: &'static str,
    /// A number, and of how many samples.
    read: fn(V) -> Result<(f64, usize), TensorReadError>,
    state: NumericMetricState,
    seen: bool,
    steps: Arc<Queue<V>>,
}

impl<V> PerStep<V> {
    fn new(
        name: &str,
        description: &'static str,
        read: fn(V) -> Result<(f64, usize), TensorReadError>,
    ) -> (Self, Steps<V>) {
        let steps = Arc::<Queue<V>>::default();
        let unseen = Steps(Arc::downgrade(&steps));
        let metric = Self {
            name: Arc::new(name.to_string()),
            description,
            read,
            state: NumericMetricState::new(),
            seen: false,
            steps,
        };
        (metric, unseen)
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name.clone()).precision(2)
    }

    fn update(&mut self, metadata: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        // Only training steps have a learning rate.
        let value = (metadata.lr.as_ref()).and_then(|_| {
            let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
            steps.pop_front().flatten()
        });
        self.seen = value.is_some();
        let Some(value) = value else {
            return Ok(SerializedEntry::not_available(None));
        };
        let (value, count) = (self.read)(value)?;
        self.state.update(value, count);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> SerializedEntry {
        // Of no steps at all, as in validation, there is no mean.
        match self.state.running_value() {
            NumericEntry::Aggregated { count: 0, .. } => SerializedEntry::not_available(None),
            _ => self.state.compute_final(self.format()),
        }
    }
}

macro_rules! metric {
    ($metric:ty) => {
        impl Metric for $metric {
            type Input = ();

            fn update(
                &mut self,
                _item: &(),
                metadata: &MetricMetadata,
            ) -> Result<SerializedEntry, TensorReadError> {
                self.0.update(metadata)
            }

            fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
                Ok(self.0.compute())
            }

            fn clear(&mut self) {
                self.0.state.reset();
            }

            fn name(&self) -> MetricName {
                self.0.name.clone()
            }

            fn description(&self) -> Option<String> {
                Some(self.0.description.to_string())
            }

            fn attributes(&self) -> MetricAttributes {
                NumericAttributes {
                    unit: None,
                    higher_is_better: false,
                }
                .into()
            }
        }

        impl Numeric for $metric {
            fn value(&self) -> Option<NumericEntry> {
                self.0.seen.then(|| self.0.state.current_value())
            }

            fn running_value(&self) -> Option<NumericEntry> {
                self.0.seen.then(|| self.0.state.running_value())
            }

            fn final_value(&self) -> NumericEntry {
                self.0.state.final_value()
            }
        }
    };
}

metric!(SharpnessMetric);
metric!(RhoMetric);
metric!(LossAtWMetric);
