//! What a test's code says in the log.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local! {
    static SAID: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct Collector;

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && record.target().starts_with("burn_sam") {
            SAID.with_borrow_mut(|said| {
                if let Some(said) = said {
                    said.push(record.args().to_string());
                }
            });
        }
    }

    fn flush(&self) {}
}

/// The warnings of burn-sam's that `f` brings about on this thread.
///
/// # Panics
///
/// If the program has another logger.
pub fn warnings(f: impl FnOnce()) -> Vec<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).expect("no other logger");
        log::set_max_level(LevelFilter::Warn);
    });
    SAID.set(Some(Vec::new()));
    f();
    SAID.take().expect("it was set")
}
