//! A line at the bottom of the terminal that tells how far copies have come, redrawn in place while they last.
//!
//! The log goes to the same terminal, so it is written through [`LogWriter`], which takes the line away first; the next tick draws it again. Nothing of this
//! happens where stderr is not a terminal.

use std::io::{self, IsTerminal, Stderr, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strandline_replication::CopyTotals;

use crate::subscriptions::Subscriptions;

/// How often the line is drawn.
const TICK: Duration = Duration::from_millis(250);

/// Characters of the bar.
const BAR_WIDTH: u64 = 24;

/// Back to the line's begin, and nothing behind it.
const CLEAR: &str = "\r\x1b[K";

/// The line is on the terminal.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Where the log goes.
pub struct LogWriter(Stderr);

impl LogWriter {
    pub fn new() -> Self {
        LogWriter(io::stderr())
    }
}

impl Default for LogWriter {
    fn default() -> Self {
        LogWriter::new()
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = self.0.lock();
        if SHOWN.swap(false, Ordering::Relaxed) {
            out.write_all(CLEAR.as_bytes())?;
        }
        out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Draws the line as long as the server runs and there is something to draw. Does nothing where stderr is not a terminal.
/// # Errors
/// No thread can be had.
pub(crate) fn start(subscriptions: &Arc<Subscriptions>) -> io::Result<()> {
    if !io::stderr().is_terminal() {
        return Ok(());
    }
    let subscriptions = Arc::clone(subscriptions);
    std::thread::Builder::new().name("progress".into()).spawn(move || {
        while !subscriptions.wait_for_stop(TICK) {
            draw(subscriptions.copy_totals());
        }
    })?;
    Ok(())
}

fn draw(totals: Option<CopyTotals>) {
    let mut out = io::stderr().lock();
    let was_shown = SHOWN.swap(totals.is_some(), Ordering::Relaxed);
    // A terminal that does not take it is no reason to stop.
    let _ = match totals {
        Some(totals) => write!(out, "{CLEAR}{}", line(&totals)).and_then(|()| out.flush()),
        None if was_shown => write!(out, "{CLEAR}").and_then(|()| out.flush()),
        None => Ok(()),
    };
}

/// `copying [#####...........]  21%  1,234,567 rows  118 MB  12 s left`
fn line(totals: &CopyTotals) -> String {
    let percent = (totals.through * 100).checked_div(totals.size).unwrap_or(0);
    let filled = (percent * BAR_WIDTH / 100) as usize;
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR_WIDTH as usize - filled.min(BAR_WIDTH as usize)));
    let left = match totals.seconds_left {
        None => String::new(),
        Some(seconds @ 0..=119) => format!("  {seconds} s left"),
        Some(seconds @ 120..=7199) => format!("  {} min left", seconds / 60),
        Some(seconds) => format!("  {} h left", seconds / 3600),
    };
    format!("copying [{bar}] {percent:>3}%  {} rows  {} MB{left}", grouped(totals.rows), totals.bytes / 1_000_000)
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_and_how_long() {
        let totals = CopyTotals { rows: 1_234_567, bytes: 118_000_000, through: 25, size: 100, seconds_left: Some(12) };
        assert_eq!(line(&totals), "copying [######..................]  25%  1,234,567 rows  118 MB  12 s left");
        let unknown = CopyTotals { through: 0, size: 0, seconds_left: None, ..totals };
        assert_eq!(line(&unknown), "copying [........................]   0%  1,234,567 rows  118 MB");
        let long = CopyTotals { through: 100, seconds_left: Some(7200), ..totals };
        assert_eq!(line(&long), "copying [########################] 100%  1,234,567 rows  118 MB  2 h left");
        assert_eq!([grouped(0), grouped(999), grouped(1000)], ["0", "999", "1,000"]);
    }
}
