//! A renderer for Burn's Learner that shows a progress bar instead of a line a batch.

use std::sync::{Arc, Mutex};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use indicatif::ProgressBar;

/// Moves a progress bar on by one after each epoch, and keeps a validation metric's values.
pub struct ProgressRenderer {
    bar: ProgressBar,
    metric: &'static str,
    id: Option<MetricId>,
    current: Option<f64>,
    values: Values,
}

/// A validation metric's value after each epoch.
pub type Values = Arc<Mutex<Vec<f64>>>;

impl ProgressRenderer {
    /// A renderer, and where it puts the values of the validation metric called `metric`.
    pub fn new(bar: ProgressBar, metric: &'static str) -> (Self, Values) {
        let values = Values::default();
        let renderer = Self {
            bar,
            metric,
            id: None,
            current: None,
            values: values.clone(),
        };
        (renderer, values)
    }
}

impl MetricsRenderer for ProgressRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        if definition.name.as_str() == self.metric {
            self.id = Some(definition.metric_id);
        }
    }
}

impl MetricsRendererTraining for ProgressRenderer {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, Some(value)) = state
            && Some(&entry.metric_id) == self.id.as_ref()
        {
            self.current = Some(value.current());
        }
    }
}

impl TrainingProgressLogger for ProgressRenderer {
    fn start(&mut self, _epochs: usize, _first: usize, _items: Option<usize>, _: Option<&str>) {}

    fn start_split(&mut self, _split: &str, _items: usize) {}

    fn update_split(&mut self, _items: usize) {}

    fn end_split(&mut self) {}

    fn update_epoch(&mut self, _epoch: usize) {
        if let Some(value) = self.current.take() {
            self.values.lock().unwrap().push(value);
        }
        self.bar.inc(1);
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for ProgressRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for ProgressRenderer {
    fn start_global_progress(&mut self, _tests: usize) {}

    fn start_test(&mut self, _name: &str, _items: usize) {}

    fn update_test_progress(&mut self, _items: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}
