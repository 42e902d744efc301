//! Bars that show how far long work is: on a terminal alone, on stderr, so that results stay what they are. Colours are left out
//! where `NO_COLOR` is set (no-color.org).

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::audit::{Progress, ProgressUnit};

const TICK: Duration = Duration::from_millis(100);

/// A bar; gone from the terminal with what holds it.
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// Where stderr is a terminal; elsewhere it shows nothing.
    pub(super) fn on_terminal() -> Self {
        Self::shown(std::io::stderr().is_terminal())
    }

    /// For work that prints while it goes on: shown where that goes elsewhere.
    pub(super) fn beside_output() -> Self {
        let mixed = std::io::stdout().is_terminal();
        Self::shown(std::io::stderr().is_terminal() && !mixed)
    }

    fn shown(shown: bool) -> Self {
        let target = if shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(waits) = ProgressStyle::with_template("{spinner:.green} {elapsed}") {
            bar.set_style(waits);
        }
        if shown {
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }

    /// Whether anybody sees it.
    pub(super) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Shows how far the work is.
    pub(super) fn tell(&self, progress: Progress) {
        if !self.is_shown() {
            return;
        }
        let (style, named) = style(progress);
        let is_new = self.bar.message() != named;
        if is_new {
            // Its rate is that of what is counted now.
            self.bar.reset();
        }
        if let Some(total) = progress.total {
            self.bar.set_length(total.max(progress.done));
        }
        self.bar.set_position(progress.done);
        if is_new {
            self.bar.set_message(named);
            self.bar.set_style(style);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(progress: Progress) -> (ProgressStyle, &'static str) {
    let named = match progress.unit {
        ProgressUnit::Bytes => "copied",
        ProgressUnit::Rows => "verified",
        ProgressUnit::Events => "exported",
    };
    let counts = match (progress.unit, progress.total) {
        (ProgressUnit::Bytes, _) => "{bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        (ProgressUnit::Rows, Some(_)) => "{human_pos} of {human_len} rows, {rate}/s, {eta} left",
        (ProgressUnit::Events, Some(_)) => {
            "{human_pos} of {human_len} events, {rate}/s, {eta} left"
        }
        (_, None) => "{human_pos}, {rate}/s",
    };
    let bar = if progress.total.is_some() {
        "{bar:30.green} {percent:>3} % "
    } else {
        "{spinner:.green} "
    };
    let template = format!("{bar}{{msg}}: {counts}");
    let style =
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // Where it cannot be written it is not seen.
        let _ = write!(text, "{:.0}", state.per_sec());
    };
    (style.with_key("rate", rate), named)
}
