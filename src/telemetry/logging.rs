//! Log lines on their way to stderr.
//!
//! Whoever reads stderr may stop reading. So a line is put into a bounded queue and written by a thread of its own;
//! where the queue is full the line is lost and counted, and nothing waits.

use std::io::{self, IsTerminal as _, Write};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;
use crate::domain::{Stopwatch, write_on_one_line};

/// What is logged where nobody says otherwise. What the others say at INFO is noise beside the gateway's own lines.
const DEFAULT_FILTER: &str = "warn,image_share_gateway=info";
/// Lines that wait to be written; at some 400 bytes each.
const LINES_WAITING_MAX: usize = 16 * 1024;
/// Beginnings of the targets that a filter may name without a level.
const TARGETS: [&str; 10] = [
    "image_share_gateway",
    "actix",
    "sqlx",
    "reqwest",
    "hyper",
    "rustls",
    "tokio",
    "tower",
    "cedar",
    "jsonwebtoken",
];

/// Logging goes on as long as this lives; what waits then is written, for a moment at most.
#[derive(Debug)]
pub struct Logging {
    writes: Option<WorkerGuard>,
    lines: Lines,
}

/// What waits at the end gets so long.
const LAST_LINES_TIME: Duration = Duration::from_millis(1500);
/// How often it is looked whether it is written.
const LAST_LINES_LOOK: Duration = Duration::from_millis(2);

impl Drop for Logging {
    fn drop(&mut self) {
        let waited = Stopwatch::start();
        while self.lines.wait_to_be_written() && waited.elapsed() < LAST_LINES_TIME {
            std::thread::park_timeout(LAST_LINES_LOOK);
        }
        // Where nobody reads stderr the guard's own end would wait for it, and say so on stdout. The process ends anyhow.
        std::mem::forget(self.writes.take());
    }
}

/// Lines on their way, counted. Clones count the same.
#[derive(Debug, Clone)]
struct Lines {
    /// Those for which there was no room.
    unqueued: ErrorCounter,
    counts: Arc<LineCounts>,
}

#[derive(Debug, Default)]
struct LineCounts {
    /// All that were to be written.
    begun: AtomicU64,
    /// Those that were handed to stderr, whether it took them or not.
    ended: AtomicU64,
    /// Those that it did not take.
    unwritten: AtomicU64,
}

impl Lines {
    fn unqueued(&self) -> u64 {
        u64::try_from(self.unqueued.dropped_lines()).unwrap_or(u64::MAX)
    }

    fn wait_to_be_written(&self) -> bool {
        let queued = self.counts.begun.load(Ordering::Acquire);
        let queued = queued.saturating_sub(self.unqueued());
        self.counts.ended.load(Ordering::Acquire) < queued
    }
}

/// How many lines were lost because nobody read them. Clones count the same.
#[derive(Debug, Clone)]
pub struct LostLines(Lines);

impl LostLines {
    /// So many since the start.
    #[must_use]
    pub fn count(&self) -> u64 {
        let unwritten = self.0.counts.unwritten.load(Ordering::Relaxed);
        self.0.unqueued().saturating_add(unwritten)
    }
}

/// Standard error, of which it is counted what was written and what could not be. Lines that wait together are written
/// together: whoever writes here flushes once nothing waits.
struct Stderr {
    counts: Arc<LineCounts>,
    buffer: Vec<u8>,
    /// Lines in the buffer.
    lines: u64,
}

/// So much is written at once, or one line that is longer: a pipe takes it whole, and nobody else's lines land within
/// (`PIPE_BUF`, pipe(7)).
const WRITTEN_AT_ONCE_BYTES: usize = 4096;

impl Stderr {
    fn new(counts: Arc<LineCounts>) -> Self {
        Self {
            counts,
            buffer: Vec::new(),
            lines: 0,
        }
    }
}

impl Write for Stderr {
    /// Takes a line whole: what cannot be written is lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + line.len() > WRITTEN_AT_ONCE_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(line);
        self.lines += 1;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if io::stderr().write_all(&self.buffer).is_err() {
            self.counts
                .unwritten
                .fetch_add(self.lines, Ordering::Relaxed);
        }
        self.counts.ended.fetch_add(self.lines, Ordering::Release);
        self.lines = 0;
        self.buffer.clear();
        Ok(())
    }
}

impl Logging {
    /// The lines that were lost.
    #[must_use]
    pub fn lost(&self) -> LostLines {
        LostLines(self.lines.clone())
    }
}

/// Sends this process' log lines to stderr from now on. `filter` (`RUST_LOG`) chooses them.
///
/// A second call in one process changes nothing.
#[must_use]
pub fn start_logging(format: LogFormat, filter: Option<&str>) -> Logging {
    let filter = filter.filter(|text| !text.trim().is_empty());
    let (filter, odd) = match filter.map(read_filter) {
        None => (EnvFilter::new(DEFAULT_FILTER), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(odd)) => (EnvFilter::new(DEFAULT_FILTER), Some(odd)),
    };
    let counts = Arc::new(LineCounts::default());
    let (stderr, writes) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("log")
        .finish(Stderr::new(Arc::clone(&counts)));
    let lines = Lines {
        unqueued: stderr.error_counter(),
        counts: Arc::clone(&counts),
    };
    let queue = move |one_line| Queue {
        stderr: stderr.clone(),
        counts: Arc::clone(&counts),
        one_line,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Json => {
            let layer = fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false);
            let layer = layer.with_writer(move || queue(true));
            registry.with(layer).try_init()
        }
        LogFormat::Text => {
            // Colours are for people; in a file they are noise.
            let layer = fmt::layer().with_ansi(may_colour());
            let layer = layer.with_writer(move || queue(false));
            registry.with(layer).try_init()
        }
    };
    drop(started);
    if let Some(odd) = odd {
        tracing::warn!("RUST_LOG {odd}; the log is as without it: {DEFAULT_FILTER}");
    }
    // What panics would write to stderr itself, and wait for whoever does not read it.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(error.message = %panic, "a thread panicked");
    }));
    Logging {
        writes: Some(writes),
        lines,
    }
}

/// Where a line goes; one of JSON is one for every reader, whatever a caller sent.
struct Queue {
    stderr: NonBlocking,
    counts: Arc<LineCounts>,
    one_line: bool,
}

impl Write for Queue {
    /// Takes a line whole, which is what the subscriber writes at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.begun.fetch_add(1, Ordering::Release);
        // What has to be escaped is none of ASCII's printable characters.
        let may_hold_more = self.one_line && line.iter().any(|byte| *byte >= 0x7f);
        match std::str::from_utf8(line) {
            Ok(text) if may_hold_more => {
                let mut whole = Vec::with_capacity(line.len());
                write_on_one_line(&mut whole, text)?;
                self.stderr.write_all(&whole)?;
            }
            _ => self.stderr.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stderr.flush()
    }
}

/// Reads a filter. A word that is neither a level nor a target of this program would silence all others.
fn read_filter(text: &str) -> Result<EnvFilter, String> {
    let mut words = text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty());
    let is_known = |word: &str| {
        let target = word.split(['=', '[']).next().unwrap_or_default();
        LevelFilter::from_str(word).is_ok()
            || (target.is_empty() && word.starts_with('['))
            || TARGETS.iter().any(|known| target.starts_with(known))
    };
    if let Some(odd) = words.find(|word| !is_known(word)) {
        let odd: String = odd.chars().take(40).collect();
        return Err(format!(
            "names no level and no target: `{}`",
            odd.escape_debug()
        ));
    }
    EnvFilter::try_new(text).map_err(|error| format!("cannot be read: {error}"))
}

/// Whether colours are for somebody to see who wants them (no-color.org).
fn may_colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !unwanted && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_would_silence_everything_is_told() {
        for good in [
            "",
            "debug",
            "WARN",
            "off",
            "info,sqlx=debug",
            "image_share_gateway",
            "sqlx::query=trace, info",
        ] {
            assert!(read_filter(good).is_ok(), "{good}");
        }
        for bad in [
            "debgu",
            "inof,sqlx=warn",
            "info,gateway",
            "sqlx=loud",
            "foo=debug",
        ] {
            assert!(read_filter(bad).is_err(), "{bad}");
        }
    }
}
