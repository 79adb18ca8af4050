use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

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
pub struct SharpnessMetric {
    name: MetricName,
    state: NumericMetricState,
    seen: bool,
    steps: Arc<Steps>,
}

/// The losses at w and at w + e(w) of the steps that the metric has not seen yet, oldest first; of a step
/// without one of the two passes, none.
type Steps = Mutex<VecDeque<Option<[Tensor<1>; 2]>>>;

/// What a model calls at each step, with its outputs at w and at w + e(w).
pub(crate) type Observer<Output> = Arc<dyn Fn(Option<(&Output, &Output)>) + Send + Sync>;

impl SharpnessMetric {
    pub(crate) fn new<Output>(
        loss: impl Fn(&Output) -> Tensor<1> + Send + Sync + 'static,
    ) -> (Self, Observer<Output>) {
        let steps = Arc::<Steps>::default();
        let unseen = Arc::downgrade(&steps);
        let observer = move |outputs: Option<(&Output, &Output)>| {
            if let Some(steps) = unseen.upgrade() {
                let losses = outputs.map(|(at_w, climbed)| {
                    [at_w, climbed].map(|output| loss(output).without_autodiff())
                });
                lock(&steps).push_back(losses);
            }
        };
        let metric = Self {
            name: Arc::new("Sharpness".to_string()),
            state: NumericMetricState::new(),
            seen: false,
            steps,
        };
        (metric, Arc::new(observer))
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(2)
    }
}

fn lock(steps: &Steps) -> MutexGuard<'_, VecDeque<Option<[Tensor<1>; 2]>>> {
    steps.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metric for SharpnessMetric {
    type Input = ();

    fn update(
        &mut self,
        _item: &(),
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        // Only training steps have a learning rate.
        let step = (metadata.lr.as_ref()).and_then(|_| lock(&self.steps).pop_front().flatten());
        self.seen = step.is_some();
        let Some([at_w, climbed]) = step else {
            return Ok(SerializedEntry::not_available(None));
        };
        let [count] = at_w.dims();
        let sharpness = (climbed.mean() - at_w.mean()).try_into_scalar::<f64>()?;
        self.state.update(sharpness, count);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        // Of no steps at all, as in validation, there is no mean.
        let steps = self.state.running_value();
        Ok(match steps {
            NumericEntry::Aggregated { count: 0, .. } => SerializedEntry::not_available(None),
            _ => self.state.compute_final(self.format()),
        })
    }

    fn clear(&mut self) {
        self.state.reset();
    }

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn description(&self) -> Option<String> {
        Some("How much the loss rises from w to w + e(w)".to_string())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: false,
        }
        .into()
    }
}

impl Numeric for SharpnessMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.seen.then(|| self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.seen.then(|| self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
