//! The runtime on which queries run, its memory pool, and DataFusion's planning state.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::StreamExt as _;

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};

/// Memory for sorts, joins and groups of all queries together, unless the server says otherwise.
const DEFAULT_MEMORY_BYTES: usize = 1 << 30;
/// What a sort keeps back for merging its spilled runs; DataFusion's 10 MB is much under a small limit.
const SORT_RESERVATION_BYTES: usize = 1 << 20;
const BATCH_ROWS: usize = 8192;
/// What recurses over an expression finds room for the deepest that the binder lets pass; only what is used costs memory.
const STACK_BYTES: usize = 32 << 20;

static MEMORY_BYTES: OnceLock<usize> = OnceLock::new();

/// Sets the memory limit of all queries together; once, before the first query.
pub fn configure_memory(bytes: usize) {
    let _ = MEMORY_BYTES.set(bytes);
}

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(512)
        .thread_name("query")
        .thread_stack_size(STACK_BYTES)
        .build()
        .expect("BUG: the query runtime starts")
});

pub(super) fn handle() -> &'static tokio::runtime::Handle {
    RUNTIME.handle()
}

static STATE: LazyLock<SessionState> = LazyLock::new(|| {
    let limit = *MEMORY_BYTES.get_or_init(|| DEFAULT_MEMORY_BYTES);
    let pool = TrackConsumersPool::new(FairSpillPool::new(limit), std::num::NonZeroUsize::new(5).expect("BUG: 5 is not 0"));
    let runtime =
        RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc().expect("BUG: the query runtime environment is valid");
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    let options = config.options_mut();
    options.execution.sort_spill_reservation_bytes = SORT_RESERVATION_BYTES;
    // An expression that folds to a constant may be declared nullable by one of the two schemas only, which no aggregate minds.
    options.execution.skip_physical_aggregate_schema_check = true;
    options.optimizer.skip_failed_rules = false;
    options.optimizer.repartition_joins = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_analyzer_rules(Vec::new())
        .with_optimizer_rules(vec![
            Arc::new(ExtractEquijoinPredicate::new()),
            Arc::new(PushDownFilter::new()),
            Arc::new(PushDownLimit::new()),
            Arc::new(OptimizeProjections::new()),
        ])
        .with_query_planner(Arc::new(super::node::OwnQueryPlanner))
        .build()
});

pub(crate) fn session_state() -> &'static SessionState {
    &STATE
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread. Unlike tokio's and futures' it may be nested: a subplan runs inside the evaluation of another plan.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Runs a plan and sends its batches until it ends, fails, or nobody listens.
pub(super) fn drive(plan: &Arc<dyn ExecutionPlan>, context: &StatementContext, sender: &tokio::sync::mpsc::Sender<Result<RecordBatch>>) {
    // A panic in an operator is this query's failure only.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut stream = execute_stream(Arc::clone(plan), STATE.task_ctx()).map_err(error_of)?;
        block_on(async {
            loop {
                let batch = tokio::select! {
                    biased;
                    () = sender.closed() => return Ok(()),
                    batch = stream.next() => batch,
                };
                let Some(batch) = batch else { return Ok(()) };
                context.check_cancel()?;
                let batch = batch.map_err(error_of)?;
                if batch.num_rows() > 0 && sender.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        })
    }));
    let failure = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(panic) => {
            let what = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!("query failed: {what}");
            SqlError::new(ErrorCode::InternalError, format!("query failed: {what}"))
        }
    };
    block_on(async {
        let _ = sender.send(Err(failure)).await;
    });
}

/// Finds our own error in one of DataFusion's, or words a new one.
pub fn error_of(error: DataFusionError) -> SqlError {
    {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(current) = source {
            if let Some(own) = current.downcast_ref::<SqlError>() {
                return own.clone();
            }
            if let Some(DataFusionError::External(inner)) = current.downcast_ref::<DataFusionError>()
                && let Some(own) = inner.downcast_ref::<SqlError>()
            {
                return own.clone();
            }
            source = current.source();
        }
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => SqlError::new(ErrorCode::OutOfMemory, "out of memory").detail(message.clone()),
        other => SqlError::new(ErrorCode::InternalError, other.to_string()),
    }
}
