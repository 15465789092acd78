//! The name of an output column that has no alias.

use pg_query::NodeEnum;
use pg_query::protobuf::{MinMaxOp, Node, SqlValueFunctionOp, SubLinkType, XmlExprOp};

/// As PostgreSQL names it: the column, the function, the type of a cast, `case`, `array`, ... or `?column?`.
pub(super) fn target_name(node: &Node) -> String {
    figure(node).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// The name and whether it is a good one (a cast's and CASE's are only used for want of a better).
fn figure(node: &Node) -> Option<(String, bool)> {
    let strong = |name: &str| Some((name.to_owned(), true));
    match node.node.as_ref()? {
        NodeEnum::ColumnRef(column) => last_string(&column.fields).map(|name| (name, true)),
        NodeEnum::AIndirection(indirection) => match last_string(&indirection.indirection) {
            Some(name) => Some((name, true)),
            None => figure(indirection.arg.as_deref()?),
        },
        NodeEnum::FuncCall(call) => last_string(&call.funcname).map(|name| (name, true)),
        NodeEnum::AExpr(expr) if expr.kind() == pg_query::protobuf::AExprKind::AexprNullif => strong("nullif"),
        NodeEnum::TypeCast(cast) => {
            let inner = cast.arg.as_deref().and_then(figure);
            match inner {
                Some((name, true)) => Some((name, true)),
                weak => match cast.type_name.as_ref().and_then(|t| last_string(&t.names)) {
                    Some(name) => Some((name, false)),
                    None => weak,
                },
            }
        }
        NodeEnum::CollateClause(collate) => figure(collate.arg.as_deref()?),
        NodeEnum::GroupingFunc(_) => strong("grouping"),
        NodeEnum::MergeSupportFunc(_) => strong("merge_action"),
        NodeEnum::SubLink(link) => match link.sub_link_type() {
            SubLinkType::ExistsSublink => strong("exists"),
            SubLinkType::ArraySublink => strong("array"),
            SubLinkType::ExprSublink => match link.subselect.as_deref()?.node.as_ref()? {
                NodeEnum::SelectStmt(select) => first_target_name(select).map(|name| (name, true)),
                _ => None,
            },
            _ => None,
        },
        NodeEnum::CaseExpr(case) => match case.defresult.as_deref().and_then(figure) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".into(), false)),
        },
        NodeEnum::AArrayExpr(_) => strong("array"),
        NodeEnum::RowExpr(_) => strong("row"),
        NodeEnum::CoalesceExpr(_) => strong("coalesce"),
        NodeEnum::MinMaxExpr(minmax) => strong(if minmax.op() == MinMaxOp::IsGreatest { "greatest" } else { "least" }),
        NodeEnum::SqlvalueFunction(function) => strong(match function.op() {
            SqlValueFunctionOp::SvfopCurrentDate => "current_date",
            SqlValueFunctionOp::SvfopCurrentTime | SqlValueFunctionOp::SvfopCurrentTimeN => "current_time",
            SqlValueFunctionOp::SvfopCurrentTimestamp | SqlValueFunctionOp::SvfopCurrentTimestampN => "current_timestamp",
            SqlValueFunctionOp::SvfopLocaltime | SqlValueFunctionOp::SvfopLocaltimeN => "localtime",
            SqlValueFunctionOp::SvfopLocaltimestamp | SqlValueFunctionOp::SvfopLocaltimestampN => "localtimestamp",
            SqlValueFunctionOp::SvfopCurrentRole => "current_role",
            SqlValueFunctionOp::SvfopCurrentUser => "current_user",
            SqlValueFunctionOp::SvfopUser => "user",
            SqlValueFunctionOp::SvfopSessionUser => "session_user",
            SqlValueFunctionOp::SvfopCurrentCatalog => "current_catalog",
            SqlValueFunctionOp::SvfopCurrentSchema => "current_schema",
            SqlValueFunctionOp::SqlvalueFunctionOpUndefined => return None,
        }),
        NodeEnum::XmlExpr(xml) => match xml.op() {
            XmlExprOp::IsXmlconcat => strong("xmlconcat"),
            XmlExprOp::IsXmlelement => strong("xmlelement"),
            XmlExprOp::IsXmlforest => strong("xmlforest"),
            XmlExprOp::IsXmlparse => strong("xmlparse"),
            XmlExprOp::IsXmlpi => strong("xmlpi"),
            XmlExprOp::IsXmlroot => strong("xmlroot"),
            _ => None,
        },
        _ => None,
    }
}

/// The name of a scalar subquery's only column.
fn first_target_name(select: &pg_query::protobuf::SelectStmt) -> Option<String> {
    let mut select = select;
    while let Some(left) = select.larg.as_deref() {
        select = left;
    }
    match select.target_list.first()?.node.as_ref()? {
        NodeEnum::ResTarget(target) if !target.name.is_empty() => Some(target.name.clone()),
        NodeEnum::ResTarget(target) => target.val.as_deref().map(target_name),
        _ => None,
    }
    .or_else(|| (!select.values_lists.is_empty()).then(|| "column1".to_owned()))
}

fn last_string(nodes: &[Node]) -> Option<String> {
    nodes.iter().rev().find_map(|node| match node.node.as_ref()? {
        NodeEnum::String(s) => Some(s.sval.clone()),
        _ => None,
    })
}
