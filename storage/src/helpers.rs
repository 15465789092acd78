//! Threads that help the one that asks, a few for the whole store: many queries at once do not start many.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More are not started, however many cores there are: what they read goes through the same memory.
const HELPER_COUNT_MAX: usize = 3;

/// The helping threads that a store may still start.
#[derive(Debug)]
pub(crate) struct Helpers {
    free: AtomicUsize,
}

/// The right to start so many threads; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    helpers: &'a Helpers,
    count: usize,
}

impl Default for Helpers {
    /// As many as there are cores besides that of the one that asks.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Tests see several threads on any machine.
        let count = if cfg!(test) { 2 } else { cores.saturating_sub(1).min(HELPER_COUNT_MAX) };
        Helpers { free: AtomicUsize::new(count) }
    }
}

impl Helpers {
    /// How many others have the right to.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        Helpers::default().free.into_inner() - self.free.load(Ordering::Relaxed)
    }

    /// As many as are free. Who comes while others have them works alone.
    pub fn take(&self) -> Permit<'_> {
        Permit { helpers: self, count: self.free.swap(0, Ordering::Relaxed) }
    }
}

impl Permit<'_> {
    /// Threads that may work, the one that asks included.
    pub fn thread_count(&self) -> usize {
        self.count + 1
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.helpers.free.fetch_add(self.count, Ordering::Relaxed);
    }
}

/// Does work on each task, in their order, by so many threads with the one that calls; returns what came of each. Once `is_failed` says so
/// of one, no other is begun (`None`): all before it are done, so the first that has failed is the same one however the threads run.
pub(crate) fn for_each<T: Send, R: Send>(
    tasks: Vec<T>,
    thread_count: usize,
    is_failed: impl Fn(&R) -> bool + Sync,
    work: impl Fn(T) -> R + Sync,
) -> Vec<Option<R>> {
    let count = tasks.len();
    let results: Vec<Mutex<Option<R>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let run = || {
        loop {
            let next = lock(&queue).next();
            let Some((at, task)) = next else { return };
            let result = work(task);
            if is_failed(&result) {
                // What is left in the queue is not begun.
                lock(&queue).by_ref().for_each(drop);
            }
            *lock(&results[at]) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..thread_count.min(count) {
            // Without it there is less help.
            let _ = std::thread::Builder::new().name("helper".into()).spawn_scoped(scope, run);
        }
        run();
    });
    results.into_iter().map(|result| result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_by_one_is_missed_by_others_and_comes_back() {
        let helpers = Helpers::default();
        let first = helpers.take();
        assert_eq!((first.thread_count(), helpers.take().thread_count()), (3, 1));
        drop(first);
        assert_eq!(helpers.take().thread_count(), 3);
        assert_eq!(helpers.take().thread_count(), 3);
    }

    #[test]
    fn results_are_in_the_order_of_the_tasks_up_to_the_first_failure() {
        for thread_count in 1..4 {
            let squares = for_each((0..100).collect(), thread_count, |_| false, |n: u64| n * n);
            assert_eq!(squares, (0..100).map(|n| Some(n * n)).collect::<Vec<_>>());
            for _ in 0..50 {
                let results = for_each((0..100u64).collect(), thread_count, |result| *result % 40 == 33, |n| n);
                assert_eq!(results.iter().position(|result| result.is_some_and(|n| n % 40 == 33)), Some(33));
                assert!(results[..34].iter().all(Option::is_some));
            }
        }
        assert!(for_each(Vec::<u8>::new(), 3, |_| false, |n| n).is_empty());
    }
}
