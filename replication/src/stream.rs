//! The reader: receives, hands on, and reports progress; never waits for the applier.
//!
//! Between reader and applier lies a queue of batches, bounded in bytes. When it is full the reader stops receiving, and TCP slows the primary down, but status
//! updates go on: a primary that hears nothing keeps its log, and cannot shut down.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use strandline_storage::Lsn;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::client::{Batch, ReplicationStream};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::status::Status;

/// How many bytes may wait for the applier before the reader stops receiving.
const QUEUE_SIZE_MAX: usize = 32 << 20;

/// How often the primary is told where we are at least.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How soon after the last status update news of durable changes are told.
const NEWS_INTERVAL: Duration = Duration::from_millis(10);

/// How long the primary may be silent before it is asked for a sign of life.
const SILENCE_ASK: Duration = Duration::from_secs(15);

/// How long the primary may be silent before the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How full the queue is.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    size: AtomicUsize,
    space: Notify,
}

impl Queue {
    fn add(&self, size: usize) {
        self.size.fetch_add(size, Ordering::AcqRel);
    }

    /// The applier is done with so many bytes.
    pub(crate) fn release(&self, size: usize) {
        let before = self.size.fetch_sub(size, Ordering::AcqRel);
        if before >= QUEUE_SIZE_MAX && before - size < QUEUE_SIZE_MAX {
            self.space.notify_one();
        }
    }

    fn is_full(&self) -> bool {
        self.size.load(Ordering::Acquire) >= QUEUE_SIZE_MAX
    }
}

/// Why the reader ended without an error of its own.
pub(crate) enum Ended {
    /// It was asked to.
    Stopped,
    /// The applier ended first, with this.
    Applier(Result<()>),
}

/// What the reader of one connection works with.
pub(crate) struct Reader<'a> {
    pub(crate) stream: ReplicationStream,
    pub(crate) batches: Sender<Batch>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) status: Arc<Status>,
    pub(crate) stop: &'a mut watch::Receiver<bool>,
}

impl Reader<'_> {
    /// Reads until the connection fails, the applier ends or a stop is asked for. `tick` is called about once a second.
    pub(crate) async fn run(&mut self, applier: &mut oneshot::Receiver<Result<()>>, mut tick: impl FnMut()) -> Result<Ended> {
        let Reader { stream, batches, queue, progress, status, stop } = self;
        let mut told = Lsn(0);
        let mut told_at = tell(stream, progress, status, false, &mut told).await?;
        let mut ticked_at = told_at;
        let mut heard_at = Instant::now();
        let mut asked_at = heard_at;
        loop {
            if let Some(failure) = progress.failure() {
                return Err(Error::Setup(failure));
            }
            let may_read = !queue.is_full();
            let has_news = progress.durable() > told;
            let next = told_at + if has_news { NEWS_INTERVAL } else { STATUS_INTERVAL };
            tokio::select! {
                biased;
                ended = &mut *applier => {
                    return Ok(Ended::Applier(ended.unwrap_or_else(|_| Err(Error::Setup("the applier ended unexpectedly".into())))));
                }
                _ = stop.wait_for(|stop| *stop) => return Ok(Ended::Stopped),
                () = sleep_until(next) => {
                    let silent = heard_at.elapsed();
                    if may_read && silent > SILENCE_MAX {
                        let source = io::Error::new(io::ErrorKind::TimedOut, "the primary has been silent for too long");
                        return Err(Error::Connection { action: "receive from the primary", source });
                    }
                    let ask = silent > SILENCE_ASK && asked_at.elapsed() > SILENCE_ASK;
                    if ask {
                        asked_at = Instant::now();
                    }
                    told_at = tell(stream, progress, status, ask, &mut told).await?;
                    if told_at - ticked_at >= STATUS_INTERVAL {
                        ticked_at = told_at;
                        tick();
                    }
                }
                () = progress.moved.notified(), if !has_news => {}
                () = queue.space.notified(), if !may_read => heard_at = Instant::now(),
                batch = stream.receive(), if may_read => {
                    let batch = batch?;
                    heard_at = Instant::now();
                    status.note_message();
                    progress.note_received(batch.received);
                    let reply_requested = batch.reply_requested;
                    queue.add(batch.bytes.len());
                    // If the applier has ended, its result is about to arrive.
                    let _ = batches.send(batch);
                    if reply_requested {
                        told_at = tell(stream, progress, status, false, &mut told).await?;
                    }
                }
            }
        }
    }
}

/// Sends a status update and returns when.
async fn tell(stream: &mut ReplicationStream, progress: &Progress, status: &Status, ask: bool, told: &mut Lsn) -> Result<Instant> {
    let durable = progress.durable();
    stream.send_status(progress.received(), durable, ask).await?;
    status.note_status_sent();
    *told = durable;
    Ok(Instant::now())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
    use tokio::time::timeout;

    use super::*;

    /// Far more than the machine needs for what a test waits for, and far less than the timer would.
    const PATIENCE: Duration = Duration::from_secs(100);

    struct Primary {
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
    }

    impl Primary {
        async fn send(&mut self, body: &[u8]) {
            let header = [&b"d"[..], &(body.len() as u32 + 4).to_be_bytes()].concat();
            self.to.write_all(&header).await.unwrap();
            self.to.write_all(body).await.unwrap();
        }

        /// The received LSN of the next status update.
        async fn status(&mut self) -> u64 {
            let mut update = [0; 39];
            self.from.read_exact(&mut update).await.unwrap();
            assert_eq!((&update[..5], update[5]), (&b"d\0\0\0\x26"[..], b'r'));
            u64::from_be_bytes(*update[6..].first_chunk().unwrap())
        }
    }

    /// Runs a reader whose applier does nothing until `primary` is done.
    async fn with_reader<F: Future<Output = Primary> + Send + 'static>(primary: impl FnOnce(Primary) -> F) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (from, to) = theirs.into_split();
        let (stop, mut stopped) = watch::channel(false);
        let (batches, _input) = mpsc::channel();
        let (_done, mut applier) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let status = Arc::new(Status::new("slot".into(), Vec::new(), Arc::clone(&progress)));
        let stream = ReplicationStream::over(ours);
        let mut reader = Reader { stream, batches, queue: Arc::default(), progress, status, stop: &mut stopped };
        let primary = tokio::spawn(primary(Primary { from, to }));
        let watched = async {
            // The connection stays open until the reader has ended.
            let _primary = timeout(PATIENCE, primary).await.expect("the reader keeps the primary waiting").unwrap();
            stop.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = reader.run(&mut applier, || {}) => assert!(matches!(ended, Ok(Ended::Stopped))),
            () = watched => {}
        }
    }

    #[tokio::test]
    async fn a_reply_that_is_asked_for_does_not_wait_for_the_timer() {
        with_reader(|mut primary| async move {
            // With the timer alone this would take one interval for each.
            for lsn in 1..=300u64 {
                primary.send(&[&b"k"[..], &lsn.to_be_bytes(), &[0; 8], &[1]].concat()).await;
                while primary.status().await < lsn {}
            }
            primary
        })
        .await;
    }

    #[tokio::test]
    async fn the_primary_hears_from_us_while_nothing_is_applied() {
        with_reader(|mut primary| async move {
            let change = [&b"w"[..], &[0; 24], &vec![0; 1 << 20]].concat();
            for _ in 0..QUEUE_SIZE_MAX >> 20 {
                primary.send(&change).await;
            }
            // The queue is full: nothing more is read, and what we say does not depend on it.
            for _ in 0..3 {
                primary.status().await;
            }
            primary
        })
        .await;
    }
}
