//! Our own operators in DataFusion's plans: one logical and one physical node that carry any [`Operator`].
//!
//! An operator finds its inputs' columns by name when it is executed; expressions it needs are evaluated by a projection
//! below it or by its own evaluators.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchemaRef, DataFusionError, Result as PlanResult, Statistics};
use datafusion::execution::TaskContext;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::{EquivalenceProperties, OrderingRequirements, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, PlanProperties, SendableRecordBatchStream,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt as _;

use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};

/// An error of ours on its way through DataFusion.
pub(crate) fn internal(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What one of our nodes does.
pub trait Operator: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// Says more for EXPLAIN.
    fn describe(&self) -> String {
        String::new()
    }

    /// Starts the operator; the output's columns are those of `schema`.
    fn execute(
        &self,
        inputs: Vec<SendableRecordBatchStream>,
        schema: SchemaRef,
        task: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream>;

    /// Rows pass unchanged, so a filter above may as well be below.
    fn is_transparent(&self) -> bool {
        false
    }

    /// The order in which rows come in matters: it is kept, or the result depends on it.
    fn keeps_order(&self) -> bool {
        false
    }
}

static NEXT_NODE: AtomicU64 = AtomicU64::new(0);

/// The logical node. Two are equal when they are the same.
#[derive(Clone, Debug)]
pub struct OwnNode {
    id: u64,
    operator: Arc<dyn Operator>,
    inputs: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

impl OwnNode {
    pub fn plan(operator: Arc<dyn Operator>, inputs: Vec<LogicalPlan>, schema: DFSchemaRef) -> LogicalPlan {
        let id = NEXT_NODE.fetch_add(1, Atomic::Relaxed);
        LogicalPlan::Extension(Extension { node: Arc::new(OwnNode { id, operator, inputs, schema }) })
    }
}

impl PartialEq for OwnNode {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.inputs == other.inputs
    }
}
impl Eq for OwnNode {}
impl Hash for OwnNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}
impl PartialOrd for OwnNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.id.partial_cmp(&other.id)
    }
}

impl UserDefinedLogicalNodeCore for OwnNode {
    fn name(&self) -> &str {
        self.operator.name()
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        // A filter may pass what changes no row.
        if self.operator.is_transparent() { HashSet::new() } else { self.schema.fields().iter().map(|f| f.name().clone()).collect() }
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator.name(), self.operator.describe())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> PlanResult<Self> {
        Ok(OwnNode { inputs, ..self.clone() })
    }
}

/// The physical node.
#[derive(Debug)]
pub struct OwnExec {
    operator: Arc<dyn Operator>,
    children: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
    rows: Precision<usize>,
    /// The order in which the inputs come; an operator that keeps order relies on it.
    order: Vec<Option<OrderingRequirements>>,
}

pub(super) fn properties(schema: SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl OwnExec {
    pub fn new(operator: Arc<dyn Operator>, children: Vec<Arc<dyn ExecutionPlan>>, schema: SchemaRef) -> Self {
        let keeps = operator.keeps_order();
        let order = children.iter().map(|c| c.output_ordering().filter(|_| keeps).map(|o| OrderingRequirements::from(o.clone()))).collect();
        OwnExec { operator, children, properties: properties(schema), rows: Precision::Absent, order }
    }

    /// Tells the planner how many rows come out.
    pub fn with_rows(self, rows: Precision<usize>) -> Self {
        OwnExec { rows, ..self }
    }

    fn with_children(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Arc<dyn ExecutionPlan> {
        Arc::new(OwnExec {
            operator: Arc::clone(&self.operator),
            children,
            properties: Arc::clone(&self.properties),
            rows: self.rows,
            order: self.order.clone(),
        })
    }
}

impl DisplayAs for OwnExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator.name(), self.operator.describe())
    }
}

impl ExecutionPlan for OwnExec {
    fn name(&self) -> &str {
        self.operator.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.children.iter().collect()
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.order.clone()
    }

    // `maintains_input_order` stays false: our output declares no order, so a sort above must not be moved below us.

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        Ok(self.with_children(children))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> PlanResult<Arc<dyn ExecutionPlan>> {
        Ok(self.with_children(children))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> PlanResult<Arc<Statistics>> {
        Ok(Arc::new(Statistics { num_rows: self.rows, ..Statistics::new_unknown(&self.schema()) }))
    }

    fn execute(&self, _: usize, task: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let inputs = self.children.iter().map(|c| one_stream(c, &task)).collect::<PlanResult<Vec<_>>>()?;
        self.operator.execute(inputs, self.schema(), &task).map_err(internal)
    }
}

/// Looks at the cancel flag for every batch that comes out of a join: DataFusion's joins go on for long between two
/// batches of what reads them.
#[derive(Debug)]
struct CancelPoint(Arc<StatementContext>);

impl Operator for CancelPoint {
    fn name(&self) -> &'static str {
        "CancelPoint"
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn execute(
        &self,
        mut inputs: Vec<SendableRecordBatchStream>,
        schema: SchemaRef,
        _: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = inputs.pop().ok_or_else(missing_input)?;
        let context = Arc::clone(&self.0);
        let checked = input.map(move |batch| {
            context.check_cancel().map_err(internal)?;
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, checked)))
    }
}

pub(super) fn missing_input() -> SqlError {
    SqlError::new(ErrorCode::InternalError, "an operator lacks its input")
}

/// A plan's partitions (of a union) one after the other, each started when the one before has ended.
fn one_stream(plan: &Arc<dyn ExecutionPlan>, task: &Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
    use futures::TryStreamExt as _;
    let partitions = plan.output_partitioning().partition_count();
    if partitions == 1 {
        return plan.execute(0, Arc::clone(task));
    }
    let (schema, plan, task) = (plan.schema(), Arc::clone(plan), Arc::clone(task));
    let streams = futures::stream::iter(0..partitions).map(move |partition| plan.execute(partition, Arc::clone(&task)));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, streams.try_flatten())))
}

/// Keeps the order of a subquery's ORDER BY: DataFusion drops a sort whose order nothing asks for, PostgreSQL's users rely on it.
#[derive(Debug)]
pub struct KeepOrder;

impl Operator for KeepOrder {
    fn name(&self) -> &'static str {
        "KeepOrder"
    }

    fn is_transparent(&self) -> bool {
        true
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn execute(&self, mut inputs: Vec<SendableRecordBatchStream>, _: SchemaRef, _: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        inputs.pop().ok_or_else(missing_input)
    }
}

/// Puts the partitions of a union together. DataFusion would aggregate each partition for itself and merge the states, which
/// our aggregates do not have in a form to be merged.
#[derive(Debug)]
pub struct Append;

impl Operator for Append {
    fn name(&self) -> &'static str {
        "Append"
    }

    fn is_transparent(&self) -> bool {
        true
    }

    fn execute(&self, mut inputs: Vec<SendableRecordBatchStream>, _: SchemaRef, _: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        inputs.pop().ok_or_else(missing_input)
    }
}

/// Puts a [`CancelPoint`] above every join, and bounds the batches of projections.
pub(crate) fn add_guards(plan: Arc<dyn ExecutionPlan>, context: &Arc<StatementContext>) -> PlanResult<Arc<dyn ExecutionPlan>> {
    use datafusion::common::tree_node::{Transformed, TreeNode as _};
    Ok(plan
        .transform_up(|plan| {
            let any: &dyn std::any::Any = plan.as_ref();
            if any.is::<HashJoinExec>() || any.is::<NestedLoopJoinExec>() || any.is::<CrossJoinExec>() {
                let schema = plan.schema();
                return Ok(Transformed::yes(Arc::new(OwnExec::new(Arc::new(CancelPoint(Arc::clone(context))), vec![plan], schema)) as _));
            }
            Ok(match super::small_batches::bound(Arc::clone(&plan), context)? {
                Some(bounded) => Transformed::yes(bounded),
                None => Transformed::no(plan),
            })
        })?
        .data)
}

/// Turns [`OwnNode`]s into [`OwnExec`]s.
pub struct OwnPlanner;

#[async_trait]
impl ExtensionPlanner for OwnPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn datafusion::catalog::Session,
        _: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> PlanResult<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<OwnNode>() else { return Ok(None) };
        let schema = Arc::new(node.schema.as_arrow().clone());
        Ok(Some(Arc::new(OwnExec::new(Arc::clone(&node.operator), inputs.to_vec(), schema))))
    }
}

#[derive(Debug)]
pub(super) struct OwnQueryPlanner;

#[async_trait]
impl QueryPlanner for OwnQueryPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        state: &dyn datafusion::catalog::Session,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(OwnPlanner)]).create_physical_plan(plan, state).await
    }
}

/// A stream of batches that were made at once.
pub(super) fn stream_of(schema: SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.into_iter().map(Ok))))
}

/// A stream of what an iterator gives.
pub(super) fn stream_of_iter(
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static,
) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.map(|b| b.map_err(internal)))))
}

/// A stream made of all input at once: `work` gets the collected batches, accounted for in the memory pool.
pub(super) fn collected(
    name: &'static str,
    context: Arc<StatementContext>,
    schema: SchemaRef,
    inputs: Vec<SendableRecordBatchStream>,
    task: &Arc<TaskContext>,
    work: impl FnOnce(Vec<Vec<RecordBatch>>) -> Result<Vec<RecordBatch>> + Send + 'static,
) -> SendableRecordBatchStream {
    let reservation = datafusion::execution::memory_pool::MemoryConsumer::new(name).register(task.memory_pool());
    let out = async move {
        let mut all = Vec::with_capacity(inputs.len());
        for mut input in inputs {
            let mut batches = Vec::new();
            while let Some(batch) = input.next().await {
                context.check_cancel().map_err(internal)?;
                let batch = batch?;
                reservation.try_grow(batch.get_array_memory_size())?;
                batches.push(batch);
            }
            all.push(batches);
        }
        let batches = work(all).map_err(internal)?;
        drop(reservation);
        Ok::<_, DataFusionError>(futures::stream::iter(batches.into_iter().map(Ok)))
    };
    use futures::TryStreamExt as _;
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(out).try_flatten()))
}

/// Where a column of a schema is.
pub(super) fn position(schema: &SchemaRef, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| SqlError::new(ErrorCode::InternalError, format!("column {name} is not among the operator's input")))
}
