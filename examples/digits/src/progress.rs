//! A renderer for Burn's Learner that shows a progress bar and keeps the test accuracies.

use std::sync::{Arc, Mutex};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use indicatif::ProgressBar;

/// The test accuracy after each epoch, from 0 to 1.
pub(crate) type Accuracies = Arc<Mutex<Vec<f64>>>;

/// Moves `bar` on by one after each epoch.
pub(crate) struct Renderer {
    bar: ProgressBar,
    accuracy_metric: Option<MetricId>,
    accuracy: Option<f64>,
    accuracies: Accuracies,
}

impl Renderer {
    pub(crate) fn new(bar: ProgressBar, accuracies: Accuracies) -> Self {
        Self {
            bar,
            accuracy_metric: None,
            accuracy: None,
            accuracies,
        }
    }
}

impl MetricsRenderer for Renderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        if definition.name.as_str() == "Accuracy" {
            self.accuracy_metric = Some(definition.metric_id);
        }
    }
}

impl MetricsRendererTraining for Renderer {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, Some(value)) = state
            && Some(&entry.metric_id) == self.accuracy_metric.as_ref()
        {
            self.accuracy = Some(value.current() / 100.0);
        }
    }
}

impl TrainingProgressLogger for Renderer {
    fn start(&mut self, _epochs: usize, _first: usize, _items: Option<usize>, _: Option<&str>) {}

    fn start_split(&mut self, _split: &str, _items: usize) {}

    fn update_split(&mut self, _items: usize) {}

    fn end_split(&mut self) {}

    fn update_epoch(&mut self, _epoch: usize) {
        if let Some(accuracy) = self.accuracy.take() {
            self.accuracies.lock().unwrap().push(accuracy);
        }
        self.bar.inc(1);
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Renderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for Renderer {
    fn start_global_progress(&mut self, _tests: usize) {}

    fn start_test(&mut self, _name: &str, _items: usize) {}

    fn update_test_progress(&mut self, _items: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}
