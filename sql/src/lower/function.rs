//! An expression of ours as a DataFusion function: its arguments are the columns that it reads.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility};

use crate::exec::{Evaluator, internal};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A compiled expression under a name of its own.
#[derive(Debug)]
pub struct PgFunction {
    id: u64,
    name: String,
    evaluator: Arc<Evaluator>,
    /// For a sort key: the expression whose key it is, and whether that is a bare column.
    raw: Option<(Arc<Evaluator>, bool)>,
    signature: Signature,
}

impl PartialEq for PgFunction {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
impl Eq for PgFunction {}
impl Hash for PgFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl PgFunction {
    pub fn udf(evaluator: Evaluator, raw: Option<(Arc<Evaluator>, bool)>, volatility: Volatility) -> Arc<ScalarUDF> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(ScalarUDF::new_from_impl(PgFunction {
            id,
            name: format!("e{id}"),
            evaluator: Arc::new(evaluator),
            raw,
            // VariadicAny alone refuses a call without arguments, which an expression over constants is.
            signature: Signature::one_of(vec![TypeSignature::VariadicAny, TypeSignature::Nullary], volatility),
        }))
    }

    /// This is the sort key of a bare column.
    pub fn raw_is_column(&self) -> bool {
        matches!(self.raw, Some((_, true)))
    }

    /// The evaluator of the value behind it, when it does not change while a plan runs.
    pub fn stable_evaluator(&self) -> Option<Arc<Evaluator>> {
        if self.signature.volatility == Volatility::Volatile {
            return None;
        }
        Some(self.raw.as_ref().map_or_else(|| Arc::clone(&self.evaluator), |(raw, _)| Arc::clone(raw)))
    }
}

impl ScalarUDFImpl for PgFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> PlanResult<ArrowType> {
        Ok(self.evaluator.arrow_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.iter().map(|a| a.to_array(rows)).collect::<PlanResult<Vec<_>>>()?;
        Ok(ColumnarValue::Array(self.evaluator.batch(&columns, rows).map_err(internal)?))
    }
}
