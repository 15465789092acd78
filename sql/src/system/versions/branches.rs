//! dolt_branches, dolt_tags, dolt_branch_status: the names of commits.

use std::sync::Arc;

use strandline_storage::Value;

use super::{Arguments, BOOL, NUMERIC, TEXT, TIMESTAMP, VersionTable, hash, numeric, timestamp};
use crate::context::StatementContext;
use crate::error::Result;
use crate::system::builder::{RowIterator, Shape, text};
use crate::system::refs::{Resolver, plain_database};
use crate::types::Oid;
use crate::virtual_table::{BatchIterator, ScanRequest};

pub const BRANCHES_COLUMNS: &[(&str, Oid)] = &[
    ("name", TEXT),
    ("hash", TEXT),
    ("latest_committer", TEXT),
    ("latest_committer_email", TEXT),
    ("latest_commit_date", TIMESTAMP),
    ("latest_commit_message", TEXT),
    ("remote", TEXT),
    ("branch", TEXT),
    ("dirty", BOOL),
    ("latest_author", TEXT),
    ("latest_author_email", TEXT),
    ("latest_author_date", TIMESTAMP),
];

pub const REMOTE_BRANCHES_COLUMNS: &[(&str, Oid)] = &[
    ("name", TEXT),
    ("hash", TEXT),
    ("latest_committer", TEXT),
    ("latest_committer_email", TEXT),
    ("latest_commit_date", TIMESTAMP),
    ("latest_commit_message", TEXT),
    ("latest_author", TEXT),
    ("latest_author_email", TEXT),
    ("latest_author_date", TIMESTAMP),
];

pub const TAGS_COLUMNS: &[(&str, Oid)] =
    &[("tag_name", TEXT), ("tag_hash", TEXT), ("tagger", TEXT), ("email", TEXT), ("date", TIMESTAMP), ("message", TEXT)];

pub fn scan_branches(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let mut branches = context.store.branches(plain_database(context))?;
    branches.sort();
    let dirty_wanted = request.projection.iter().any(|&i| shape.columns[i].name == "dirty");
    let context = Arc::clone(context);
    let rows = branches.into_iter().map(move |(name, head)| {
        let commit = context.store.commit(head)?;
        let dirty = dirty_wanted && context.store.branch(plain_database(&context), &name)?.state().is_dirty();
        let meta = &commit.meta;
        Ok(vec![
            text(&name),
            hash(head),
            text(&meta.committer.name),
            text(&meta.committer.email),
            timestamp(meta.commit_time),
            text(&meta.message),
            text(""),
            text(""),
            Value::Bool(dirty),
            text(&meta.author.name),
            text(&meta.author.email),
            timestamp(meta.author_time),
        ])
    });
    Ok(shape.batches(request, Box::new(rows)))
}

pub fn scan_tags(shape: &Shape, context: &Arc<StatementContext>, request: &ScanRequest) -> Result<BatchIterator> {
    let mut tags = context.store.tags(plain_database(context))?;
    tags.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = tags.into_iter().map(|tag| {
        Ok(vec![
            text(&tag.name),
            hash(tag.commit),
            text(&tag.tagger.name),
            text(&tag.tagger.email),
            timestamp(tag.time),
            text(&tag.message),
        ])
    });
    Ok(shape.batches(request, Box::new(rows)))
}

/// `dolt_branch_status(base, branch...)`: how many commits each is ahead of and behind the base.
pub fn branch_status_function(arguments: Arguments) -> Result<VersionTable> {
    if arguments.len() < 1 {
        return Err(arguments.wrong_count());
    }
    let shape = Shape::of(&[("branch", TEXT), ("commits_ahead", NUMERIC), ("commits_behind", NUMERIC)]);
    Ok(VersionTable::new("dolt_branch_status", shape, move |shape, context, request| {
        let names = arguments.texts()?;
        let resolver = Resolver::new(context);
        let base = resolver.commit(names[0])?;
        let mut rows = Vec::new();
        for name in &names[1..] {
            let commit = resolver.commit(name)?;
            let count = |from, hidden| -> Result<u64> {
                let mut count = 0;
                for commit in context.store.log(&[from], &[hidden])? {
                    commit?;
                    count += 1;
                    if count % 1024 == 0 {
                        context.check_cancel()?;
                    }
                }
                Ok(count)
            };
            rows.push(vec![text(name), numeric(count(commit, base)?), numeric(count(base, commit)?)]);
        }
        let rows: RowIterator = Box::new(rows.into_iter().map(Ok));
        Ok(shape.batches(request, rows))
    }))
}
