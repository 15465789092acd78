//! dolt_log (table and function), dolt_commits, dolt_commit_ancestors: the commit graph.

use std::collections::HashMap;
use std::sync::Arc;

use strandline_storage::{Commit, CommitId, Lsn, Value};

use super::{Arguments, SOURCE_COLUMNS, TEXT, TIMESTAMP, VersionTable, hash, numeric, source_values, timestamp};
use crate::context::StatementContext;
use crate::error::{ErrorCode, Result, SqlError};
use crate::system::builder::{RowIterator, Shape, text};
use crate::system::refs::{Resolver, parse_range, plain_database};
use crate::system::value_text;
use crate::types::{Oid, oid};
use crate::virtual_table::{BatchIterator, ScanRequest};

pub const LOG_COLUMNS: &[(&str, Oid)] = &[
    ("commit_hash", TEXT),
    ("committer", TEXT),
    ("email", TEXT),
    ("date", TIMESTAMP),
    ("message", TEXT),
    ("commit_order", oid::NUMERIC),
    ("parents", TEXT),
    ("refs", TEXT),
    ("signature", TEXT),
    ("author", TEXT),
    ("author_email", TEXT),
    ("author_date", TIMESTAMP),
];

pub const COMMITS_COLUMNS: &[(&str, Oid)] = &[
    ("commit_hash", TEXT),
    ("committer", TEXT),
    ("email", TEXT),
    ("date", TIMESTAMP),
    ("message", TEXT),
    ("author", TEXT),
    ("author_email", TEXT),
    ("author_date", TIMESTAMP),
];

pub const ANCESTORS_COLUMNS: &[(&str, Oid)] = &[("commit_hash", TEXT), ("parent_hash", TEXT), ("parent_index", oid::INT4)];

/// How refs are shown beside a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decorate {
    No,
    Short,
    Full,
}

/// The names of branches and tags by commit.
type Decorations = HashMap<CommitId, String>;

fn decorations(context: &StatementContext, decorate: Decorate) -> Result<Decorations> {
    let mut names: HashMap<CommitId, Vec<String>> = HashMap::new();
    if decorate == Decorate::No {
        return Ok(Decorations::new());
    }
    let database = plain_database(context);
    let (heads, tags) = if decorate == Decorate::Full { ("refs/heads/", "tag: refs/tags/") } else { ("", "tag: ") };
    for (branch, commit) in context.store.branches(database)? {
        let is_current = context.revision == crate::context::Revision::Branch(branch.clone());
        let names = names.entry(commit).or_default();
        let name = format!("{heads}{branch}");
        if is_current { names.insert(0, format!("HEAD -> {name}")) } else { names.push(name) }
    }
    for tag in context.store.tags(database)? {
        names.entry(tag.commit).or_default().push(format!("{tags}{}", tag.name));
    }
    Ok(names.into_iter().map(|(commit, names)| (commit, names.join(", "))).collect())
}

fn parents_text(commit: &Commit) -> Value {
    text(commit.parents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn log_row(commit: &Commit, parents: bool, decorations: &Decorations) -> Vec<Value> {
    let meta = &commit.meta;
    let mut row = Vec::with_capacity(LOG_COLUMNS.len() + SOURCE_COLUMNS.len());
    row.extend([
        hash(commit.id),
        text(&meta.committer.name),
        text(&meta.committer.email),
        timestamp(meta.commit_time),
        text(&meta.message),
        numeric(commit.height),
        if parents { parents_text(commit) } else { Value::Null },
        text(decorations.get(&commit.id).map_or("", String::as_str)),
        // Commits carry no signatures.
        text(""),
        text(&meta.author.name),
        text(&meta.author.email),
        timestamp(meta.author_time),
    ]);
    row.extend(source_values(Some(commit)));
    row
}

/// The one commit that `WHERE commit_hash = '...'` asks for, if it is known and among the ancestors of a head.
fn commit_by_hash(context: &StatementContext, wanted: &Value, heads: &[CommitId]) -> Result<Option<Arc<Commit>>> {
    let Some(id) = value_text(wanted).and_then(|t| t.parse::<CommitId>().ok()) else { return Ok(None) };
    let commit = match context.store.commit(id) {
        Ok(commit) => commit,
        Err(strandline_storage::Error::NotFound { .. }) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    for head in heads {
        if *head == id || context.store.is_ancestor(id, *head)? {
            return Ok(Some(commit));
        }
    }
    Ok(None)
}

/// A walk over commits that stops when the client cancels.
fn walk(
    context: &Arc<StatementContext>,
    heads: &[CommitId],
    hidden: &[CommitId],
) -> Result<Box<dyn Iterator<Item = Result<Arc<Commit>>> + Send>> {
    let context = Arc::clone(context);
    let log = context.store.log(heads, hidden)?;
    Ok(Box::new(log.enumerate().map(move |(i, commit)| {
        if i % 1024 == 0 {
            context.check_cancel()?;
        }
        Ok(commit?)
    })))
}

/// The transaction of the primary that `WHERE source_xid = ... AND source_lsn = '...'` asks for.
fn of_source(shape: &Shape, request: &ScanRequest) -> Option<(Option<u32>, Option<Lsn>)> {
    let number = |name| match shape.equal(request, name) {
        Some(Value::Int8(number)) => Some(*number),
        _ => None,
    };
    let (xid, lsn) = (number("source_xid"), number("source_lsn").map(|lsn| Lsn(lsn as u64)));
    // What is no transaction's number, and the position of no commit, is left to the filter.
    let xid = xid.and_then(|xid| u32::try_from(xid).ok()).filter(|xid| *xid != 0);
    (xid.is_some() || lsn.is_some()).then_some((xid, lsn))
}

/// The commits that a table over these heads shows: all, or those that the query asks for.
fn commits(
    shape: &Shape,
    context: &Arc<StatementContext>,
    request: &ScanRequest,
    heads: &[CommitId],
) -> Result<Box<dyn Iterator<Item = Result<Arc<Commit>>> + Send>> {
    match shape.equal(request, "commit_hash") {
        Some(wanted) => Ok(Box::new(commit_by_hash(context, wanted, heads)?.into_iter().map(Ok))),
        None => match of_source(shape, request) {
            Some((xid, lsn)) => {
                let found = context.store.commits_of_source(heads, xid, lsn)?;
                let store = Arc::clone(&context.store);
                Ok(Box::new(found.into_iter().map(move |id| Ok(store.commit(id)?))))
            }
            None => walk(context, heads, &[]),
        },
    }
}

/// One row per commit for a query that wants no columns: `count(*)`.
fn bare_rows(context: &Arc<StatementContext>, heads: &[CommitId]) -> Result<RowIterator> {
    let context = Arc::clone(context);
    let ids = context.store.log_ids(heads, &[])?;
    Ok(Box::new(ids.enumerate().map(move |(i, id)| {
        id?;
        if i % 1024 == 0 {
            context.check_cancel()?;
        }
        Ok(Vec::new())
    })))
}

fn is_bare(request: &ScanRequest) -> bool {
    request.projection.is_empty() && request.equal.is_empty()
}

pub fn scan_log(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let head = Resolver::new(context).head_commit()?;
    if is_bare(request) {
        return Ok(shape.batches(request, bare_rows(context, &[head])?));
    }
    let decorations = decorations(context, Decorate::Short)?;
    let rows = commits(shape, context, request, &[head])?.map(move |commit| Ok(log_row(&*commit?, true, &decorations)));
    Ok(shape.batches(request, Box::new(rows)))
}

/// The heads of all branches and what tags name: every commit that is not lost.
fn all_heads(context: &StatementContext) -> Result<Vec<CommitId>> {
    let database = plain_database(context);
    let mut heads: Vec<CommitId> = context.store.branches(database)?.into_iter().map(|(_, id)| id).collect();
    heads.extend(context.store.tags(database)?.into_iter().map(|t| t.commit));
    heads.sort();
    heads.dedup();
    Ok(heads)
}

pub fn scan_commits(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let heads = all_heads(context)?;
    if is_bare(request) {
        return Ok(shape.batches(request, bare_rows(context, &heads)?));
    }
    let rows = commits(shape, context, request, &heads)?.map(|commit| {
        let commit = commit?;
        let meta = &commit.meta;
        let mut row = vec![
            hash(commit.id),
            text(&meta.committer.name),
            text(&meta.committer.email),
            timestamp(meta.commit_time),
            text(&meta.message),
            text(&meta.author.name),
            text(&meta.author.email),
            timestamp(meta.author_time),
        ];
        row.extend(source_values(Some(&commit)));
        Ok(row)
    });
    Ok(shape.batches(request, Box::new(rows)))
}

pub fn scan_ancestors(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let heads = all_heads(context)?;
    let rows = commits(shape, context, request, &heads)?.flat_map(|commit| match commit {
        Err(error) => vec![Err(error)],
        // The first commit has a row without a parent.
        Ok(commit) if commit.parents.is_empty() => vec![Ok(vec![hash(commit.id), Value::Null, Value::Null])],
        Ok(commit) => {
            let row = |(i, parent): (usize, &CommitId)| Ok(vec![hash(commit.id), hash(*parent), Value::Int4(i as i32)]);
            commit.parents.iter().enumerate().map(row).collect()
        }
    });
    Ok(shape.batches(request, Box::new(rows)))
}

/// What `dolt_log(...)` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LogRequest {
    revisions: Vec<String>,
    hidden: Vec<String>,
    /// Two revisions with three dots: commits of exactly one side.
    symmetric: Option<(String, String)>,
    parents: bool,
    decorate: Decorate,
    min_parents: usize,
    tables: Vec<String>,
}

fn bad_option(message: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::InvalidParameterValue, message)
}

impl LogRequest {
    /// Reads revisions and flags: `main`, `a..b`, `^a`, `--not a`, `--parents`, `--merges`, `--min-parents 2`,
    /// `--decorate=short`, `--tables a,b`.
    fn parse(arguments: &[&str]) -> Result<LogRequest> {
        let mut request = LogRequest {
            revisions: Vec::new(),
            hidden: Vec::new(),
            symmetric: None,
            parents: false,
            decorate: Decorate::No,
            min_parents: 0,
            tables: Vec::new(),
        };
        let mut rest = arguments.iter().copied();
        while let Some(argument) = rest.next() {
            let (flag, inline) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
                _ => (argument, None),
            };
            let mut value = || inline.or_else(|| rest.next()).ok_or_else(|| bad_option(format!("option {flag} needs a value")));
            match flag {
                "--parents" => request.parents = true,
                "--merges" => request.min_parents = request.min_parents.max(2),
                "--min-parents" => {
                    let number = value()?;
                    request.min_parents =
                        number.parse().map_err(|_| bad_option(format!("invalid value for --min-parents: \"{number}\"")))?;
                }
                "--decorate" => {
                    request.decorate = match inline.unwrap_or("short") {
                        "short" => Decorate::Short,
                        "full" => Decorate::Full,
                        // There is no terminal to ask, so `auto` means none, as in Dolt's SQL.
                        "no" | "auto" => Decorate::No,
                        other => return Err(bad_option(format!("invalid value for --decorate: \"{other}\""))),
                    };
                }
                "--not" => request.hidden.push(value()?.to_string()),
                "--tables" => request.tables.extend(value()?.split(',').map(|t| t.trim().to_string())),
                flag if flag.starts_with("--") => return Err(bad_option(format!("unknown option {flag} for dolt_log()"))),
                revision => match (parse_range(revision), revision.strip_prefix('^')) {
                    (Some(range), _) if range.symmetric => request.symmetric = Some((range.from.into(), range.to.into())),
                    (Some(range), _) => {
                        request.hidden.push(range.from.into());
                        request.revisions.push(range.to.into());
                    }
                    (None, Some(hidden)) => request.hidden.push(hidden.into()),
                    (None, None) => request.revisions.push(revision.into()),
                },
            }
        }
        if request.symmetric.is_some() && !(request.revisions.is_empty() && request.hidden.is_empty()) {
            return Err(bad_option("a three-dot range cannot be combined with other revisions"));
        }
        Ok(request)
    }
}

/// `dolt_log([revisions], flags)`.
pub fn log_function(arguments: Arguments) -> Result<VersionTable> {
    let mut columns = LOG_COLUMNS.to_vec();
    columns.extend(SOURCE_COLUMNS);
    let request = if arguments.known() { Some(LogRequest::parse(&arguments.texts()?)?) } else { None };
    Ok(VersionTable::new("dolt_log", Shape::of(&columns), move |shape, context, scan| {
        let log = request.as_ref().ok_or_else(|| arguments.unknown())?;
        let resolver = Resolver::new(context);
        let mut hidden = log.hidden.iter().map(|r| resolver.commit(r)).collect::<Result<Vec<_>>>()?;
        let heads = match &log.symmetric {
            Some((a, b)) => {
                let (a, b) = (resolver.commit(a)?, resolver.commit(b)?);
                hidden.extend(context.store.merge_base(a, b)?);
                vec![a, b]
            }
            None if log.revisions.is_empty() => vec![resolver.head_commit()?],
            None => log.revisions.iter().map(|r| resolver.commit(r)).collect::<Result<Vec<_>>>()?,
        };
        let decorations = decorations(context, log.decorate)?;
        let tables = table_oids(context, &log.tables)?;
        let (parents, min_parents) = (log.parents, log.min_parents);
        let rows: RowIterator = Box::new(walk(context, &heads, &hidden)?.filter_map(move |commit| match commit {
            Err(error) => Some(Err(error)),
            Ok(commit) => {
                let touches = match tables.as_ref().map_or(Ok(true), |tables| changes_any(&commit, tables)) {
                    Ok(touches) => touches,
                    Err(error) => return Some(Err(error)),
                };
                (commit.parents.len() >= min_parents && touches).then(|| Ok(log_row(&commit, parents, &decorations)))
            }
        }));
        Ok(shape.batches(scan, rows))
    }))
}

/// The oids of named tables; `None` when none is named.
fn table_oids(context: &StatementContext, names: &[String]) -> Result<Option<Vec<Oid>>> {
    if names.is_empty() {
        return Ok(None);
    }
    names
        .iter()
        .map(|name| super::mapping::table_named(context, context.root.catalog(), name).map(|t| t.oid))
        .collect::<Result<_>>()
        .map(Some)
}

fn changes_any(commit: &Commit, tables: &[Oid]) -> Result<bool> {
    let changes = commit.changes()?;
    Ok(changes.tables.iter().any(|t| tables.contains(&t.table)) || changes.catalog.iter().any(|c| tables.contains(&c.oid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_arguments_are_revisions_and_flags() {
        let request = LogRequest::parse(&["main..b", "--parents", "--decorate=full", "--not", "x", "--min-parents", "1"]).expect("parses");
        assert_eq!(request.revisions, ["b"]);
        assert_eq!(request.hidden, ["main", "x"]);
        assert!(request.parents);
        assert_eq!(request.decorate, Decorate::Full);
        assert_eq!(request.min_parents, 1);
        assert_eq!(LogRequest::parse(&["a...b"]).expect("parses").symmetric, Some(("a".into(), "b".into())));
        assert_eq!(LogRequest::parse(&["^a", "b"]).expect("parses").hidden, ["a"]);
        assert!(LogRequest::parse(&["--nonsense"]).is_err());
        assert!(LogRequest::parse(&["--min-parents", "x"]).is_err());
        assert!(LogRequest::parse(&["--not"]).is_err());
    }
}
