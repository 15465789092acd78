//! The workers of a copy: each has a connection on the same snapshot and takes the next part of a table as soon as it is free.
//!
//! A worker does everything for its part on its own thread: it receives, decodes, encodes keys and builds leaves, so nothing is handed over row by row, and while it
//! does so the primary fills its socket. What the parts have become is put together by the worker that ends the table's last part (`TableLoad::finish`), and goes to
//! the thread that writes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use strandline_storage::Error as StoreError;
use strandline_storage::edit::{LoadedTable, SortedRun, TableLoad};
use tokio::runtime;
use tokio::sync::watch;

use super::plan::{Part, Task};
use super::progress::{CopyProgress, LogPace, TableProgress};
use super::rows::{Decoder, Format};
use crate::apply::{self, Mapping};
use crate::catalog::RemoteTypes;
use crate::client::{Connection, ConnectionConfig, CopyMessages, quote_literal};
use crate::error::{Error, Result};

/// How often the log may hear of a copy under way is looked at this often.
const TICK: Duration = Duration::from_secs(1);

/// What workers set beside what every connection does: rows in the order in which they lie (so that they need no sorting here), nothing left out by
/// row security.
const SETTINGS: &str = "SET row_security = off; SET synchronize_seqscans = off; SET max_parallel_workers_per_gather = 0";

/// A table on its way.
pub(crate) struct TableCopy {
    pub(crate) task: Task,
    pub(crate) mapping: Mapping,
    pub(crate) progress: Arc<TableProgress>,
    format: Format,
    load: Arc<TableLoad>,
    gathered: Mutex<Gathered>,
}

struct Gathered {
    runs: Vec<SortedRun>,
    parts_left: usize,
    has_failed: bool,
}

/// From where and how workers copy.
pub(crate) struct Source<'a> {
    pub(crate) connection: ConnectionConfig,
    /// Lasts until all are done.
    pub(crate) snapshot: &'a str,
    pub(crate) worker_count: usize,
    /// Turns true, or loses its sender, when nobody wants the copy any more.
    pub(crate) stop: watch::Receiver<bool>,
}

struct Shared<'a> {
    source: &'a Source<'a>,
    tables: &'a [TableCopy],
    /// (table, part), the largest tables first.
    parts: Vec<(usize, Part)>,
    next: AtomicUsize,
    begin: &'a (dyn Fn(&TableCopy) -> Result<()> + Sync),
    /// Turns true when the rest is not to be copied.
    cancel: watch::Receiver<bool>,
}

impl TableCopy {
    pub(crate) fn new(task: Task, mapping: Mapping, types: &RemoteTypes, load: Arc<TableLoad>) -> Self {
        let format = Format::of(&task.relation, &mapping, types);
        let progress = TableProgress::new(mapping.table, task.size);
        let gathered = Mutex::new(Gathered { runs: Vec::new(), parts_left: task.parts.len(), has_failed: false });
        TableCopy { task, mapping, progress, format, load, gathered }
    }

    pub(crate) fn not_copied(&self, error: &StoreError) -> Error {
        not_copied(&self.mapping.name, error)
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes what a part has become; everything when it was the last one.
    fn end_part(&self, runs: Vec<SortedRun>) -> Option<Vec<SortedRun>> {
        let mut gathered = self.gathered();
        gathered.runs.extend(runs);
        gathered.parts_left -= 1;
        (gathered.parts_left == 0 && !gathered.has_failed).then(|| std::mem::take(&mut gathered.runs))
    }

    /// The first to call it is told so.
    fn fail(&self) -> bool {
        let mut gathered = self.gathered();
        gathered.runs = Vec::new();
        !std::mem::replace(&mut gathered.has_failed, true)
    }

    fn has_failed(&self) -> bool {
        self.gathered().has_failed
    }
}

/// A table's rows cannot be taken.
pub(crate) fn not_copied(table: &str, error: &StoreError) -> Error {
    let detail = match error {
        StoreError::DuplicateKey { key, .. } => format!("; DETAIL: Key {key} already exists."),
        _ => String::new(),
    };
    Error::Setup(format!("could not copy table \"{table}\": {error}{detail}"))
}

/// Copies all of these tables. `begin` is called by a worker before a table's first row is asked for, `take` by this thread with each table or with why it could not
/// be copied, in the order in which they end; what it returns as an error ends the copy.
/// # Errors
/// What `take` and `begin` return.
pub(crate) fn copy_tables(
    source: &Source<'_>,
    tables: &[TableCopy],
    begin: &(dyn Fn(&TableCopy) -> Result<()> + Sync),
    mut take: impl FnMut(usize, Result<LoadedTable>) -> Result<()>,
) -> Result<()> {
    let (cancel, cancelled) = watch::channel(false);
    let mut order: Vec<usize> = (0..tables.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(tables[*at].task.size));
    let parts: Vec<(usize, Part)> = order.into_iter().flat_map(|at| tables[at].task.parts.iter().map(move |part| (at, *part))).collect();
    let worker_count = source.worker_count.clamp(1, parts.len().max(1));
    let shared = Shared { source, tables, parts, next: AtomicUsize::new(0), begin, cancel: cancelled };
    let progress = CopyProgress::new(tables.iter().map(|table| Arc::clone(&table.progress)).collect());
    std::thread::scope(|scope| {
        let (done, results) = mpsc::channel();
        let mut outcome = Ok(());
        for number in 0..worker_count {
            let (shared, done) = (&shared, done.clone());
            let thread = std::thread::Builder::new().name(format!("copy-{number}"));
            if let Err(source) = thread.spawn_scoped(scope, move || work(shared, &done)) {
                // Fewer do it, too.
                if number == 0 {
                    outcome = Err(Error::File { action: "start thread", path: "copy".into(), source });
                }
                break;
            }
        }
        drop(done);
        let mut pace = LogPace::new();
        loop {
            match results.recv_timeout(TICK) {
                Ok((table, result)) if outcome.is_ok() => {
                    outcome = take(table, result);
                    if outcome.is_err() {
                        cancel.send_replace(true);
                    }
                }
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if pace.is_due() {
                let now = progress.now();
                let (table_count, left) = (progress.tables().iter().filter(|table| table.is_under_way()).count(), now.seconds_left());
                let percent = (now.through * 100).checked_div(now.size).unwrap_or(0);
                let seconds_left = left.map_or_else(|| "unknown".to_owned(), |seconds| seconds.to_string());
                tracing::info!(tables_under_way = table_count, rows = now.rows, bytes = now.bytes, percent, seconds_left, "copying");
            }
        }
        outcome
    })
}

type Done = mpsc::Sender<(usize, Result<LoadedTable>)>;

/// A worker's life.
fn work(shared: &Shared<'_>, done: &Done) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let error = Error::File { action: "start a runtime for", path: "copy".into(), source };
            // Nobody listens only where the copy has ended.
            let _ = done.send((0, Err(error)));
            return;
        }
    };
    runtime.block_on(async {
        let (mut cancel, mut stop) = (shared.cancel.clone(), shared.source.stop.clone());
        tokio::select! {
            biased;
            // A sender that is gone says the same.
            _ = cancel.wait_for(|cancel| *cancel) => {}
            _ = stop.wait_for(|stop| *stop) => {}
            () = copy_parts(shared, done) => {}
        }
    });
}

async fn copy_parts(shared: &Shared<'_>, done: &Done) {
    let mut connection = None;
    while let Some(&(at, part)) = shared.parts.get(shared.next.fetch_add(1, Ordering::Relaxed)) {
        let table = &shared.tables[at];
        if table.has_failed() {
            continue;
        }
        let copied = match copy_part(shared, &mut connection, table, part).await {
            Ok(runs) => match table.end_part(runs) {
                None => continue,
                Some(runs) => table.load.finish(runs).map_err(|error| table.not_copied(&error)),
            },
            Err(error) => {
                // Its transaction has failed, or the rest of the rows is still on its way.
                connection = None;
                Err(error)
            }
        };
        if copied.is_err() && !table.fail() {
            continue;
        }
        table.progress.end();
        let _ = done.send((at, copied));
    }
}

async fn copy_part(shared: &Shared<'_>, connection: &mut Option<Connection>, table: &TableCopy, part: Part) -> Result<Vec<SortedRun>> {
    if table.progress.begin() {
        (shared.begin)(table)?;
    }
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(connect(shared.source).await?),
    };
    let refused = |what: String| Error::Setup(format!("could not copy table \"{}\": {what}", table.mapping.name));
    let mut decoder = Decoder::new(&table.mapping, apply::pinned_settings(), table.format).map_err(refused)?;
    let mut loader = table.load.loader();
    connection.begin_copy_out(&table.task.query(part, &table.mapping, table.format)).await?;
    while let Some(messages) = connection.copied().await? {
        let mut row_count = 0;
        for message in CopyMessages::new(&messages) {
            let decoded = decoder.decode(message, |row| Ok(loader.push(row)?));
            row_count += decoded.map_err(|failure| match failure {
                Failure::Row(what) => refused(what),
                Failure::Store(error) => table.not_copied(&error),
            })?;
        }
        table.progress.add(row_count, messages.len() as u64);
    }
    decoder.finish().map_err(refused)?;
    table.progress.end_part(part.size);
    loader.finish().map_err(|error| table.not_copied(&error))
}

/// A connection that sees the primary as the snapshot does.
async fn connect(source: &Source<'_>) -> Result<Connection> {
    let mut connection = Connection::connect_for_sql(&source.connection).await?;
    connection.query(SETTINGS).await?;
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", quote_literal(source.snapshot));
    connection.query(&begin).await.map_err(snapshot_gone)?;
    Ok(connection)
}

/// A snapshot is gone when the connection that exported it is: trying again makes another.
pub(super) fn snapshot_gone(error: Error) -> Error {
    match error {
        Error::Primary { code, message, .. } if matches!(code.as_str(), "22023" | "42704" | "55000") => Error::Connection {
            action: "copy from the primary",
            source: std::io::Error::other(format!("its snapshot is gone ({message})")),
        },
        other => other,
    }
}

/// Why a row is not in.
enum Failure {
    Row(String),
    Store(StoreError),
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Failure::Row(what)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}
