//! Running a compiled expression over a row.

use std::cmp::Ordering;
use std::sync::Arc;

use strandline_storage::{DataType, Value};

use super::Execution;
use super::datum::Datum;
use super::evaluator::{Binary, CallNode, Node, NodeSubscript, RowAccess, SubplanTest, run};
use super::subplan::Subplan;
use crate::bound::ColumnId;
use crate::error::Result;
use crate::functions::{self, arrays, casts, compare};
use crate::statement::DomainConditions;

/// What an expression is evaluated in.
pub(super) struct Env<'a, R: ?Sized> {
    pub(super) execution: &'a Arc<Execution>,
    pub(super) row: &'a R,
}

/// Three-valued: `None` is NULL.
fn truth(datum: &Datum<'_>) -> Option<bool> {
    match datum {
        Datum::Bool(v) => Some(*v),
        _ => None,
    }
}

fn logical(value: Option<bool>) -> Datum<'static> {
    value.map_or(Datum::Null, Datum::Bool)
}

/// Folds `x op each` into ANY or ALL.
pub struct Quantifier {
    all: bool,
    unknown: bool,
}

impl Quantifier {
    pub fn new(all: bool) -> Self {
        Quantifier { all, unknown: false }
    }

    /// Gives the answer as soon as it is certain.
    pub fn add(&mut self, result: &Datum<'_>) -> Option<bool> {
        match truth(result) {
            None => self.unknown = true,
            Some(v) if v != self.all => return Some(v),
            Some(_) => {}
        }
        None
    }

    pub fn end(&self) -> Option<bool> {
        if self.unknown { None } else { Some(self.all) }
    }
}

impl Node {
    /// Each kind has a function of its own: a statement may nest hundreds of levels, and one function for all kinds would need the
    /// stack of all of them at each level.
    pub(super) fn eval<'a, R: RowAccess + ?Sized>(&'a self, env: &Env<'a, R>) -> Result<Datum<'a>> {
        match self {
            Node::Const(value) => Ok(Datum::from(value)),
            Node::Column(position) => Ok(env.row.get(*position)),
            Node::Slot(id) => Ok(Datum::from(env.execution.slot(*id))),
            Node::Call(node) => env.call(node),
            Node::And(list) => env.and(list),
            Node::Or(list) => env.or(list),
            Node::Not(input) => Ok(logical(truth(&input.eval(env)?).map(|v| !v))),
            Node::IsNull(input, is) => Ok(Datum::Bool(input.eval(env)?.is_null() == *is)),
            Node::RowIsNull(input, is) => match input.eval(env)? {
                Datum::Null => Ok(Datum::Bool(*is)),
                row => Ok(Datum::Bool(casts::record_fields(row.str())?.iter().all(|field| field.is_none() == *is))),
            },
            Node::IsBool { input, value, negated } => Ok(Datum::Bool((truth(&input.eval(env)?) == *value) != *negated)),
            Node::Distinct { left, right, equal, negated } => env.distinct(left, right, equal, *negated),
            Node::Case { whens, default } => env.case(whens, default.as_deref()),
            Node::Coalesce(args) => env.coalesce(args),
            Node::NullIf { left, right, equal } => env.null_if(left, right, equal),
            Node::MinMax { greatest, args, data_type } => env.min_max(*greatest, args, data_type),
            Node::InList { input, list, operator, all } => env.in_list(input, list, operator, *all),
            Node::AnyArray { input, array, array_type, operator, all } => env.any_array(input, array, array_type, operator, *all),
            Node::Array { elements, element, nested } => env.array(elements, element, *nested),
            Node::Row { fields } => env.row(fields),
            Node::Field { input, index, data_type } => env.field(input, *index, data_type),
            Node::Subscript { input, input_type, subscripts, result } => env.subscript(input, input_type, subscripts, result),
            Node::InOut { input, from, to } => env.in_out(input, from, to),
            Node::Modifier { input, data_type, explicit } => env.modifier(input, data_type, *explicit),
            Node::Domain { input, conditions } => env.domain(input, conditions),
            Node::ArrayCast { input, from, to, element } => env.array_cast(input, from, to, element),
            Node::Subplan { plan, params, test } => env.subplan(plan, params, test),
            Node::SortKey { input, data_type } => env.sort_key(input, data_type),
        }
    }
}

impl<'a, R: RowAccess + ?Sized> Env<'a, R> {
    #[inline(never)]
    fn call(&self, node: &'a CallNode) -> Result<Datum<'a>> {
        // Most functions have at most three arguments: keep them off the heap.
        Ok(match node.args.as_slice() {
            [a] => run(&node.call, node.run, &[a.eval(self)?])?,
            [a, b] => run(&node.call, node.run, &[a.eval(self)?, b.eval(self)?])?,
            args => {
                let args = args.iter().map(|a| a.eval(self)).collect::<Result<Vec<_>>>()?;
                run(&node.call, node.run, &args)?
            }
        })
    }

    #[inline(never)]
    fn and(&self, list: &'a [Node]) -> Result<Datum<'a>> {
        let mut result = Some(true);
        for node in list {
            match truth(&node.eval(self)?) {
                Some(false) => return Ok(Datum::Bool(false)),
                None => result = None,
                Some(true) => {}
            }
        }
        Ok(logical(result))
    }

    #[inline(never)]
    fn or(&self, list: &'a [Node]) -> Result<Datum<'a>> {
        let mut result = Some(false);
        for node in list {
            match truth(&node.eval(self)?) {
                Some(true) => return Ok(Datum::Bool(true)),
                None => result = None,
                Some(false) => {}
            }
        }
        Ok(logical(result))
    }

    #[inline(never)]
    fn distinct(&self, left: &'a Node, right: &'a Node, equal: &'a Binary, negated: bool) -> Result<Datum<'a>> {
        let (left, right) = (left.eval(self)?, right.eval(self)?);
        let distinct = match (left.is_null(), right.is_null()) {
            (true, true) => false,
            (true, false) | (false, true) => true,
            (false, false) => !equal.run(&left, &right)?.bool(),
        };
        Ok(Datum::Bool(distinct != negated))
    }

    #[inline(never)]
    fn case(&self, whens: &'a [(Node, Node)], default: Option<&'a Node>) -> Result<Datum<'a>> {
        for (when, then) in whens {
            if when.eval(self)?.bool() {
                return then.eval(self);
            }
        }
        Ok(match default {
            Some(default) => default.eval(self)?,
            None => Datum::Null,
        })
    }

    #[inline(never)]
    fn coalesce(&self, args: &'a [Node]) -> Result<Datum<'a>> {
        for arg in args {
            let value = arg.eval(self)?;
            if !value.is_null() {
                return Ok(value);
            }
        }
        Ok(Datum::Null)
    }

    #[inline(never)]
    fn null_if(&self, left: &'a Node, right: &'a Node, equal: &'a Binary) -> Result<Datum<'a>> {
        let (left, right) = (left.eval(self)?, right.eval(self)?);
        Ok(if !left.is_null() && !right.is_null() && equal.run(&left, &right)?.bool() { Datum::Null } else { left })
    }

    #[inline(never)]
    fn min_max(&self, greatest: bool, args: &'a [Node], data_type: &'a DataType) -> Result<Datum<'a>> {
        let mut best = Datum::Null;
        let wanted = if greatest { Ordering::Greater } else { Ordering::Less };
        for arg in args {
            let value = arg.eval(self)?;
            if !value.is_null()
                && (best.is_null() || compare::compare(&self.execution.context, data_type, &value, data_type, &best)? == wanted)
            {
                best = value;
            }
        }
        Ok(best)
    }

    #[inline(never)]
    fn in_list(&self, input: &'a Node, list: &'a [Node], operator: &'a Binary, all: bool) -> Result<Datum<'a>> {
        let input = input.eval(self)?;
        let mut quantifier = Quantifier::new(all);
        for item in list {
            if let Some(answer) = quantifier.add(&operator.run(&input, &item.eval(self)?)?) {
                return Ok(Datum::Bool(answer));
            }
        }
        Ok(logical(quantifier.end()))
    }

    #[inline(never)]
    fn any_array(&self, input: &'a Node, array: &'a Node, array_type: &'a DataType, operator: &'a Binary, all: bool) -> Result<Datum<'a>> {
        let (input, array) = (input.eval(self)?, array.eval(self)?);
        if array.is_null() {
            return Ok(Datum::Null);
        }
        let mut quantifier = Quantifier::new(all);
        for item in &arrays::parse_typed(&self.execution.context, array_type, array.str())?.elements {
            if let Some(answer) = quantifier.add(&operator.run(&input, &Datum::from(item))?) {
                return Ok(Datum::Bool(answer));
            }
        }
        Ok(logical(quantifier.end()))
    }

    #[inline(never)]
    fn array(&self, elements: &'a [Node], element: &'a DataType, nested: bool) -> Result<Datum<'a>> {
        let values = elements.iter().map(|e| e.eval(self)).collect::<Result<Vec<_>>>()?;
        Ok(Datum::from(if nested { arrays::nest(&values)? } else { arrays::build(&self.execution.context, element, &values)? }))
    }

    #[inline(never)]
    fn row(&self, fields: &'a [(Node, DataType)]) -> Result<Datum<'a>> {
        let mut out = String::from("(");
        for (i, (node, data_type)) in fields.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            let value = node.eval(self)?;
            if !value.is_null() {
                casts::push_record_field(&casts::output(&self.execution.context, data_type, &value)?, &mut out);
            }
        }
        out.push(')');
        Ok(Datum::from(functions::text_value(out)))
    }

    #[inline(never)]
    fn field(&self, input: &'a Node, index: usize, data_type: &'a DataType) -> Result<Datum<'a>> {
        let input = input.eval(self)?;
        if input.is_null() {
            return Ok(Datum::Null);
        }
        Ok(match casts::record_fields(input.str())?.into_iter().nth(index).flatten() {
            Some(text) => Datum::from(casts::input(&self.execution.context, data_type, &text)?),
            None => Datum::Null,
        })
    }

    #[inline(never)]
    fn subscript(
        &self,
        input: &'a Node,
        input_type: &'a DataType,
        subscripts: &'a [NodeSubscript],
        result: &'a DataType,
    ) -> Result<Datum<'a>> {
        let input = input.eval(self)?;
        if input.is_null() {
            return Ok(Datum::Null);
        }
        let mut bounds = Vec::with_capacity(subscripts.len());
        for subscript in subscripts {
            let one = |node: &'a Node| -> Result<Option<Datum<'a>>> {
                let value = node.eval(self)?;
                Ok(if value.is_null() { None } else { Some(value) })
            };
            bounds.push(match subscript {
                NodeSubscript::Index(node) => match one(node)? {
                    Some(v) => arrays::Bounds::Index(v),
                    None => return Ok(Datum::Null),
                },
                NodeSubscript::Slice(a, b) => {
                    let end = |n: &'a Option<Node>| -> Result<Result<Option<i32>, ()>> {
                        Ok(match n {
                            None => Ok(None),
                            Some(n) => one(n)?.map(|v| Some(v.int4())).ok_or(()),
                        })
                    };
                    match (end(a)?, end(b)?) {
                        (Ok(a), Ok(b)) => arrays::Bounds::Slice(a, b),
                        _ => return Ok(Datum::Null),
                    }
                }
            });
        }
        Ok(Datum::from(arrays::subscript(&self.execution.context, input_type, input.str(), &bounds, result)?))
    }

    #[inline(never)]
    fn in_out(&self, input: &'a Node, from: &'a DataType, to: &'a DataType) -> Result<Datum<'a>> {
        let value = input.eval(self)?;
        if value.is_null() {
            return Ok(Datum::Null);
        }
        let text = casts::output(&self.execution.context, from, &value)?;
        Ok(Datum::from(casts::input(&self.execution.context, to, &text)?))
    }

    #[inline(never)]
    fn modifier(&self, input: &'a Node, data_type: &'a DataType, explicit: bool) -> Result<Datum<'a>> {
        let value = input.eval(self)?;
        Ok(if value.is_null() { Datum::Null } else { casts::apply_modifier(data_type, value, explicit)? })
    }

    #[inline(never)]
    fn domain(&self, input: &'a Node, conditions: &'a DomainConditions) -> Result<Datum<'a>> {
        let value = input.eval(self)?.into_value();
        conditions.check(&value)?;
        Ok(Datum::from(value))
    }

    #[inline(never)]
    fn array_cast(&self, input: &'a Node, from: &'a DataType, to: &'a DataType, element: &'a Node) -> Result<Datum<'a>> {
        let value = input.eval(self)?;
        if value.is_null() {
            return Ok(Datum::Null);
        }
        let mut array = arrays::parse_typed(&self.execution.context, from, value.str())?;
        for item in &mut array.elements {
            let row = [std::mem::take(item)];
            *item = element.eval(&Env { execution: self.execution, row: &row[..] })?.into_value();
        }
        Ok(Datum::from(arrays::format_typed(&self.execution.context, to, &array)?))
    }

    #[inline(never)]
    fn subplan(&self, plan: &'a Subplan, params: &'a [(ColumnId, usize)], test: &'a SubplanTest) -> Result<Datum<'a>> {
        let params: Vec<(ColumnId, Value)> = params.iter().map(|(id, at)| (*id, self.row.get(*at).into_value())).collect();
        Ok(match test {
            SubplanTest::Exists => Datum::Bool(plan.exists(params)?),
            SubplanTest::Scalar => Datum::from(plan.scalar(params)?),
            SubplanTest::Array(element) => Datum::from(plan.array(params, element)?),
            SubplanTest::Compare { left, test } => {
                let left = left.iter().map(|l| l.eval(self)).collect::<Result<Vec<_>>>()?;
                logical(plan.compare(params, &left, test)?)
            }
        })
    }

    #[inline(never)]
    fn sort_key(&self, input: &'a Node, data_type: &'a DataType) -> Result<Datum<'a>> {
        let value = input.eval(self)?;
        if value.is_null() {
            return Ok(Datum::Null);
        }
        let mut key = Vec::new();
        compare::sort_key(&self.execution.context, data_type, &value, &mut key)?;
        Ok(Datum::Bytes(key.into()))
    }
}
