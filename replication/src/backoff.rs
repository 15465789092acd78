//! When to try again: at once, then ever more slowly, never all at the same moment.

use std::time::Duration;

use rand::Rng;

/// The first wait at most: switch-over tools that kill our walsender expect us back soon.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10);

/// Waits that double up to a limit, with jitter: between half and all of the step. Endless.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failure_count: u32,
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let step = FIRST.saturating_mul(1 << self.failure_count.min(16)).min(LONGEST);
        self.failure_count = self.failure_count.saturating_add(1);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// An attempt went well.
    pub(crate) fn reset(&mut self) {
        self.failure_count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wait_is_short_and_later_ones_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_wait() <= FIRST);
        let waits: Vec<Duration> = (0..40).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] >= FIRST && waits.iter().all(|w| *w <= LONGEST) && waits[39] >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
