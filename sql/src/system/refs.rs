//! Names of moments: branches, tags, commit hashes, `HEAD~2`, `lsn:0/16B3748`, timestamps; and ranges of them.
//!
//! ```text
//! ref     = base { "~" [n] | "^" [n] }
//! base    = "HEAD" | "WORKING" | "STAGED" | "EMPTY" | branch | tag | hash or unique prefix
//!         | "lsn:" LSN | "xid:" number | timestamp
//! range   = [ref] ".." [ref] | [ref] "..." [ref]
//! ```
//! A name is looked for in that order, so a branch called like a hash prefix hides the prefix. `HEAD` is the head of the
//! session's branch, or the commit that the session is on.

use std::sync::Arc;

use strandline_storage::value::TextSettings;
use strandline_storage::{BranchState, Catalog, CommitId, DataType, Lsn, Root, Store, Timestamp, Value};

use crate::context::{Revision, StatementContext};
use crate::error::{ErrorCode, Result, SqlError};
use crate::types::oid;

/// The most ancestors that `~n` may ask for.
const ANCESTOR_STEPS_MAX: u64 = 1_000_000_000;
/// Fewer hexadecimal digits are no commit's prefix.
const PREFIX_DIGITS_MIN: usize = 4;

/// What a ref stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Commit(CommitId),
    /// The working set with uncommitted changes.
    Working,
    /// What `dolt_add` has staged.
    Staged,
    /// Nothing at all: no tables.
    Empty,
}

/// A step from a commit to one of its ancestors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// `~n`: the first parent, n times.
    Generations(u64),
    /// `^n`: the n-th parent.
    Parent(usize),
}

/// Two refs with dots between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    pub from: &'a str,
    pub to: &'a str,
    /// Three dots: from the merge base (in a log: commits of one side only).
    pub symmetric: bool,
}

/// Splits `a..b` and `a...b`; an absent side is `HEAD`.
pub fn parse_range<'a>(text: &'a str) -> Option<Range<'a>> {
    let at = text.find("..")?;
    let symmetric = text[at..].starts_with("...");
    let or_head = |side: &'a str| if side.is_empty() { "HEAD" } else { side };
    let dots = if symmetric { 3 } else { 2 };
    Some(Range { from: or_head(&text[..at]), to: or_head(&text[at + dots..]), symmetric })
}

/// Splits a ref into its base and the steps behind it.
fn parse_steps(text: &str) -> Result<(&str, Vec<Step>)> {
    let Some(start) = text.find(['~', '^']) else { return Ok((text, Vec::new())) };
    let base = &text[..start];
    let mut steps = Vec::new();
    let mut rest = &text[start..];
    while let Some(operator) = rest.chars().next() {
        if operator != '~' && operator != '^' {
            return Err(invalid_ref(text));
        }
        rest = &rest[1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = if digits == 0 { 1 } else { rest[..digits].parse().map_err(|_| invalid_ref(text))? };
        if number > ANCESTOR_STEPS_MAX {
            return Err(invalid_ref(text));
        }
        rest = &rest[digits..];
        steps.push(match (operator, number) {
            ('~', n) => Step::Generations(n),
            // ^0 is the commit itself, as in git.
            (_, 0) => Step::Generations(0),
            (_, n) => Step::Parent(usize::try_from(n).map_err(|_| invalid_ref(text))?),
        });
    }
    if base.is_empty() {
        return Err(invalid_ref(text));
    }
    Ok((base, steps))
}

fn invalid_ref(text: &str) -> SqlError {
    SqlError::new(ErrorCode::InvalidParameterValue, format!("invalid ref \"{text}\""))
}

/// No branch, tag or commit of this name.
pub fn unknown_ref(text: &str) -> SqlError {
    SqlError::new(ErrorCode::UndefinedObject, format!("branch, tag or commit \"{text}\" does not exist"))
}

/// Says whether a name can be a branch's or a tag's.
pub fn is_valid_ref_name(name: &str) -> bool {
    let reserved = ["HEAD", "WORKING", "STAGED", "EMPTY"].iter().any(|r| r.eq_ignore_ascii_case(name));
    let hash = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    !name.is_empty()
        && name.len() <= 255
        && !reserved
        && !hash
        && !name.starts_with(['/', '-', '.'])
        && !name.ends_with(['/', '.'])
        && !name.ends_with(".lock")
        && !["..", "//", "@{", "/."].iter().any(|s| name.contains(s))
        && !name.chars().any(|c| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\'))
        && name != "@"
}

/// Resolves refs of one database, as one session sees it.
pub struct Resolver<'a> {
    pub store: &'a Store,
    pub database: &'a str,
    /// What `HEAD` is; `None` outside a branch or commit.
    pub head: Option<CommitId>,
    /// The branch that `WORKING` and `STAGED` belong to.
    pub branch: Option<&'a BranchState>,
    pub text: &'a TextSettings,
}

/// The database's own name in `db/branch`.
pub fn split_revision(database: &str) -> (&str, Option<&str>) {
    match database.split_once('/') {
        Some((name, revision)) => (name, Some(revision)),
        None => (database, None),
    }
}

impl<'a> Resolver<'a> {
    pub fn new(context: &'a StatementContext) -> Resolver<'a> {
        let head = match (&context.branch, &context.revision) {
            (Some(branch), _) => Some(branch.head),
            (None, Revision::Commit(id)) => Some(*id),
            (None, Revision::Branch(_)) => None,
        };
        Resolver {
            store: &context.store,
            database: split_revision(&context.database).0,
            head,
            branch: context.branch.as_ref(),
            text: &context.text,
        }
    }

    /// What a ref stands for.
    /// # Errors
    /// `UndefinedObject` for a name that nothing has, `InvalidParameterValue` for one that nothing can have.
    pub fn resolve(&self, text: &str) -> Result<Target> {
        let (base, steps) = parse_steps(text)?;
        let mut target = self.base(base).map_err(|e| if steps.is_empty() { e } else { self.reword(e, base, text) })?;
        for step in steps {
            let Target::Commit(commit) = target else { return Err(invalid_ref(text)) };
            target = Target::Commit(self.step(commit, step, text)?);
        }
        Ok(target)
    }

    fn reword(&self, error: SqlError, base: &str, text: &str) -> SqlError {
        if error.code == ErrorCode::UndefinedObject && error.message.contains(base) { unknown_ref(text) } else { error }
    }

    /// As [`resolve`](Self::resolve), where only a commit will do; the working set and the stage stand for their HEAD.
    pub fn commit(&self, text: &str) -> Result<CommitId> {
        match self.resolve(text)? {
            Target::Commit(id) => Ok(id),
            Target::Working | Target::Staged => self.head_commit(),
            Target::Empty => Err(SqlError::new(ErrorCode::InvalidParameterValue, "EMPTY is not a commit")),
        }
    }

    pub fn head_commit(&self) -> Result<CommitId> {
        self.head.ok_or_else(|| unknown_ref("HEAD"))
    }

    fn base(&self, base: &str) -> Result<Target> {
        match base.to_ascii_uppercase().as_str() {
            "HEAD" | "@" => return Ok(Target::Commit(self.head_commit()?)),
            "WORKING" => return Ok(if self.branch.is_some() { Target::Working } else { Target::Commit(self.head_commit()?) }),
            "STAGED" => return Ok(if self.branch.is_some() { Target::Staged } else { Target::Commit(self.head_commit()?) }),
            "EMPTY" => return Ok(Target::Empty),
            _ => {}
        }
        if let Some(lsn) = strip_prefix_ignore_case(base, "lsn:") {
            let lsn: Lsn = lsn.trim().parse()?;
            return Ok(Target::Commit(self.at_lsn(lsn)?));
        }
        if let Some(xid) = strip_prefix_ignore_case(base, "xid:") {
            let invalid = || SqlError::from(strandline_storage::Error::InvalidText { type_name: "xid".into(), input: xid.into() });
            return Ok(Target::Commit(self.at_xid(xid.trim().parse().map_err(|_| invalid())?)?));
        }
        if let Some(commit) = self.branch_head(base.strip_prefix("refs/heads/").unwrap_or(base))? {
            return Ok(Target::Commit(commit));
        }
        let tag = base.strip_prefix("refs/tags/").unwrap_or(base);
        if let Some(tag) = self.store.tags(self.database)?.into_iter().find(|t| t.name == tag) {
            return Ok(Target::Commit(tag.commit));
        }
        if let Some(commit) = self.hash(base)? {
            return Ok(Target::Commit(commit));
        }
        if let Some(time) = self.timestamp(base) {
            return Ok(Target::Commit(self.at_time(time)?));
        }
        Err(unknown_ref(base))
    }

    fn branch_head(&self, name: &str) -> Result<Option<CommitId>> {
        match self.store.branch(self.database, name) {
            Ok(branch) => Ok(Some(branch.state().head)),
            Err(strandline_storage::Error::NotFound { what: "branch", .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    fn hash(&self, base: &str) -> Result<Option<CommitId>> {
        let digits = base.len();
        if !(PREFIX_DIGITS_MIN..=64).contains(&digits) || !base.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let lower = base.to_ascii_lowercase();
        if digits == 64 {
            let id: CommitId = lower.parse()?;
            return match self.store.commit(id) {
                Ok(_) => Ok(Some(id)),
                Err(strandline_storage::Error::NotFound { .. }) => Ok(None),
                Err(other) => Err(other.into()),
            };
        }
        let found = self.store.commits_by_prefix(&lower)?;
        match found.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            _ => Err(strandline_storage::Error::AmbiguousRef(base.into()).into()),
        }
    }

    fn timestamp(&self, base: &str) -> Option<Timestamp> {
        // A plain number is no moment: `20240101` reads as a date, `735` does not.
        match DataType::builtin(oid::TIMESTAMPTZ, -1)?.parse(base, self.text).ok()? {
            Value::Int8(micros) => Some(Timestamp(micros)),
            _ => None,
        }
    }

    fn step(&self, commit: CommitId, step: Step, text: &str) -> Result<CommitId> {
        let missing = || SqlError::new(ErrorCode::UndefinedObject, format!("ref \"{text}\" goes beyond the first commit"));
        match step {
            Step::Generations(count) => self.store.ancestor(commit, count)?.ok_or_else(missing),
            Step::Parent(number) => self.store.commit(commit)?.parents.get(number - 1).copied().ok_or_else(missing),
        }
    }

    /// The commit that a place in the primary's log stands for: everything committed up to there.
    pub fn at_lsn(&self, lsn: Lsn) -> Result<CommitId> {
        self.store
            .commit_at_lsn(self.head_commit()?, lsn)?
            .ok_or_else(|| SqlError::new(ErrorCode::UndefinedObject, format!("no commit at or before LSN {lsn}")))
    }

    /// The commit of a transaction of the primary.
    pub fn at_xid(&self, xid: i64) -> Result<CommitId> {
        let missing = || SqlError::new(ErrorCode::UndefinedObject, format!("no commit of transaction {xid}"));
        let xid = u32::try_from(xid).map_err(|_| missing())?;
        self.store.commit_of_xid(self.head_commit()?, xid)?.ok_or_else(missing)
    }

    /// The last commit at a moment.
    pub fn at_time(&self, time: Timestamp) -> Result<CommitId> {
        self.store.commit_at_time(self.head_commit()?, time)?.ok_or_else(|| {
            let mut shown = Vec::new();
            if let Some(ty) = DataType::builtin(oid::TIMESTAMPTZ, -1) {
                ty.format(&Value::Int8(time.0), self.text, &mut shown);
            }
            SqlError::new(ErrorCode::UndefinedObject, format!("no commit at or before {}", String::from_utf8_lossy(&shown)))
        })
    }

    /// All tables as the target has them.
    pub fn root(&self, target: Target) -> Result<Root> {
        match (target, self.branch) {
            (Target::Commit(id), Some(branch)) if branch.head == id => Ok(branch.head_root.clone()),
            (Target::Commit(id), _) => Ok(self.store.root(id)?),
            (Target::Working, Some(branch)) => Ok(branch.working.clone()),
            (Target::Staged, Some(branch)) => Ok(branch.staged.clone()),
            (Target::Working | Target::Staged, None) => Ok(self.store.root(self.head_commit()?)?),
            (Target::Empty, _) => Ok(Root::new(Catalog::default())),
        }
    }

    /// What the text after `db/` stands for: a branch is writable, anything else a commit.
    pub fn revision(&self, text: &str) -> Result<Revision> {
        if self.branch_head(text)?.is_some() {
            return Ok(Revision::Branch(text.to_string()));
        }
        Ok(Revision::Commit(self.commit(text)?))
    }
}

/// What the database name of a connection stands for: `db`, `db/branch`, `db/<hash>`, `db/main~2`. A plain name is on
/// `default_branch`.
/// # Errors
/// `InvalidCatalogName` for an unknown database or revision.
pub fn resolve_database(store: &Store, name: &str, default_branch: &str) -> Result<Revision> {
    let (database, revision) = split_revision(name);
    let absent = || SqlError::new(ErrorCode::InvalidCatalogName, format!("database \"{name}\" does not exist"));
    if !store.databases().iter().any(|d| d == database) {
        return Err(absent());
    }
    let Some(revision) = revision else { return Ok(Revision::Branch(default_branch.to_string())) };
    let head = store.branch(database, default_branch).ok().map(|b| b.state().head);
    let text = TextSettings::default();
    let resolver = Resolver { store, database, head, branch: None, text: &text };
    resolver.revision(revision).map_err(|e| match e.code {
        ErrorCode::UndefinedObject | ErrorCode::InvalidParameterValue => absent(),
        _ => e,
    })
}

/// A session's database name without its revision.
pub fn plain_database(context: &StatementContext) -> &str {
    split_revision(&context.database).0
}

/// The branch of the session.
/// # Errors
/// `ReadOnlyTransaction` on a commit.
pub fn session_branch(context: &StatementContext) -> Result<Arc<strandline_storage::Branch>> {
    match &context.revision {
        Revision::Branch(name) => Ok(context.store.branch(plain_database(context), name)?),
        Revision::Commit(id) => {
            Err(SqlError::new(ErrorCode::ReadOnlyTransaction, format!("database \"{}\" is read-only at commit {id:.12}", context.database)))
        }
    }
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_in_order() {
        let cases = [
            ("HEAD", "HEAD", vec![]),
            ("HEAD~", "HEAD", vec![Step::Generations(1)]),
            ("main~2^", "main", vec![Step::Generations(2), Step::Parent(1)]),
            ("a/b^2~3", "a/b", vec![Step::Parent(2), Step::Generations(3)]),
            ("HEAD^^", "HEAD", vec![Step::Parent(1), Step::Parent(1)]),
            ("HEAD^0", "HEAD", vec![Step::Generations(0)]),
        ];
        for (text, base, steps) in cases {
            assert_eq!(parse_steps(text).expect(text), (base, steps), "{text}");
        }
        for text in ["~1", "HEAD~x", "HEAD~1x", "HEAD^99999999999999999999", "^"] {
            assert!(parse_steps(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_have_two_or_three_dots() {
        assert_eq!(parse_range("a..b"), Some(Range { from: "a", to: "b", symmetric: false }));
        assert_eq!(parse_range("a...b"), Some(Range { from: "a", to: "b", symmetric: true }));
        assert_eq!(parse_range("main.."), Some(Range { from: "main", to: "HEAD", symmetric: false }));
        assert_eq!(parse_range("...b"), Some(Range { from: "HEAD", to: "b", symmetric: true }));
        assert_eq!(parse_range("HEAD~1"), None);
    }

    #[test]
    fn ref_names_are_checked() {
        for name in ["main", "feature/x", "v1.0", "wip-2", "Ünïcode"] {
            assert!(is_valid_ref_name(name), "{name}");
        }
        for name in ["", "HEAD", "working", "a b", "a~1", "a^", "a..b", "-x", "x/", ".x", "x.lock", "a:b", "@"] {
            assert!(!is_valid_ref_name(name), "{name}");
        }
        assert!(!is_valid_ref_name(&"ab".repeat(32)));
    }
}
