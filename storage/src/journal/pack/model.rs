//! The grammar of the records that are packed: commits and changes of the working set. It is walked in the order of the bytes; a
//! [`Coder`] takes each part from the record and puts it into the streams, or the other way round.

use super::memory::{Memory, Slot};
use crate::commit;
use crate::encoding::{BYTES, BYTES_SHORT, Decoded, FALSE, FLOAT4, FLOAT8, INT2, INT8, Malformed, NULL, TRUE, UUID};
use crate::record::{COMMIT, WORKING};
use crate::schema::Oid;

/// How a number lies in a record.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Varint,
    Zigzag,
    /// 8 bytes, little-endian.
    Time,
}

/// One of the two directions.
pub(super) trait Coder {
    fn memory(&mut self) -> &mut Memory;

    /// A byte of structure.
    fn byte(&mut self) -> Decoded<u8>;

    /// The tag of a value. That of a short string counts as structure, its length does not.
    fn tag(&mut self) -> Decoded<u8>;

    /// A varint of structure.
    fn count(&mut self) -> Decoded<u64>;

    /// A string that is likely to come again in the next record.
    fn name(&mut self) -> Decoded<()>;

    /// A string of which nothing is expected.
    fn string(&mut self) -> Decoded<()>;

    /// So many bytes of which nothing is expected.
    fn plain(&mut self, size: usize) -> Decoded<()>;

    /// A number that may be as guessed.
    fn number(&mut self, form: Form, guess: i64) -> Decoded<i64>;

    /// A number that may be one of the record's recent ones, or as guessed.
    fn related(&mut self, form: Form, guess: i64) -> Decoded<i64>;

    /// The id of a parent, which may be the commit before.
    fn parent(&mut self) -> Decoded<()>;

    /// Where the commit's bytes begin.
    fn begin_commit(&mut self);

    /// Passes over the message, to be told by [`Coder::message`].
    fn begin_message(&mut self) -> Decoded<()>;

    /// The message, which may have the source's coordinates in it.
    fn message(&mut self, source: Option<(i64, i64)>) -> Decoded<()>;

    /// The key of a row; returns a hash of it.
    fn key(&mut self, table: Oid) -> Decoded<u32>;
}

/// Whether records of this kind are packed.
pub(super) fn is_packed(kind: u8) -> bool {
    matches!(kind, COMMIT | WORKING)
}

/// A record but for its kind.
pub(super) fn record(c: &mut impl Coder, kind: u8) -> Decoded<()> {
    c.memory().begin_record();
    c.count()?;
    match kind {
        COMMIT => {
            c.byte()?;
            c.begin_commit();
            commit(c)
        }
        WORKING => {
            noted(c, Form::Varint, Slot::Applied)?;
            match c.byte()? {
                0 => change_set(c),
                _ => Err(Malformed("a change set in pieces is not packed")),
            }
        }
        _ => Err(Malformed("a record of this kind is not packed")),
    }
}

fn noted(c: &mut impl Coder, form: Form, slot: Slot) -> Decoded<i64> {
    let guess = c.memory().guess(slot);
    let number = c.number(form, guess)?;
    c.memory().note(slot, number);
    Ok(number)
}

fn related(c: &mut impl Coder, form: Form, slot: Slot) -> Decoded<i64> {
    let guess = c.memory().guess(slot);
    let number = c.related(form, guess)?;
    c.memory().note(slot, number);
    c.memory().note_recent(number);
    Ok(number)
}

fn commit(c: &mut impl Coder) -> Decoded<()> {
    if c.byte()? != commit::VERSION {
        return Err(Malformed("unknown version of commit"));
    }
    let flags = c.byte()?;
    let has = |flag| flags & flag != 0;
    for _ in 0..c.count()? {
        c.parent()?;
    }
    noted(c, Form::Varint, Slot::Height)?;
    c.name()?;
    c.name()?;
    if !has(commit::SAME_IDENTITY) {
        c.name()?;
        c.name()?;
    }
    related(c, Form::Time, Slot::CommitTime)?;
    if !has(commit::SAME_TIME) {
        related(c, Form::Time, Slot::AuthorTime)?;
    }
    c.begin_message()?;
    let mut source = None;
    if has(commit::HAS_SOURCE) {
        let lsn = noted(c, Form::Varint, Slot::Lsn)?;
        noted(c, Form::Zigzag, Slot::LsnDistance)?;
        let xid = noted(c, Form::Varint, Slot::Xid)?;
        if !has(commit::SOURCE_SAME_TIME) {
            related(c, Form::Time, Slot::SourceTime)?;
        }
        if has(commit::HAS_ORIGIN) {
            c.name()?;
        }
        if has(commit::HAS_CONTEXT) {
            c.string()?;
        }
        if has(commit::HAS_SUBSCRIPTION) {
            c.count()?;
        }
        source = Some((lsn, xid));
    }
    c.message(source)?;
    if has(commit::CHANGES_IN_CHUNKS) {
        c.count()?;
        for _ in 0..c.count()? {
            c.plain(32)?;
        }
        return Ok(());
    }
    change_set(c)
}

fn change_set(c: &mut impl Coder) -> Decoded<()> {
    use crate::change_set::{TABLE_DROPPED, TABLE_EMPTIED, TABLE_REPLACED, TABLE_ROWS};
    for _ in 0..c.count()? {
        c.count()?;
        if c.byte()? != 0 {
            c.string()?;
        }
    }
    for _ in 0..c.count()? {
        let table = Oid::try_from(c.count()?).map_err(|_| Malformed("number too large"))?;
        match c.byte()? {
            TABLE_ROWS => {
                for _ in 0..c.count()? {
                    row_change(c, table)?;
                }
            }
            TABLE_REPLACED => c.plain(32)?,
            TABLE_EMPTIED | TABLE_DROPPED => {}
            _ => return Err(Malformed("unknown kind of table change")),
        }
    }
    Ok(())
}

fn row_change(c: &mut impl Coder, table: Oid) -> Decoded<()> {
    use crate::change_set::{ROW_DELETED, ROW_INSERTED, ROW_UPDATED};
    let row = c.key(table)?;
    match c.byte()? {
        ROW_INSERTED | ROW_DELETED => {
            for column in 0..c.count()? {
                let tag = c.tag()?;
                match tag {
                    INT2..=INT8 => {
                        related(c, Form::Zigzag, Slot::Column(table, column))?;
                    }
                    _ => other_value(c, tag)?,
                }
            }
        }
        ROW_UPDATED => {
            for _ in 0..c.count()? {
                let column = c.count()?;
                updated(c, table, row, column)?;
            }
        }
        _ => return Err(Malformed("unknown kind of row change")),
    }
    Ok(())
}

/// An old and a new value.
fn updated(c: &mut impl Coder, table: Oid, row: u32, column: u64) -> Decoded<()> {
    let tag = c.tag()?;
    let old = match tag {
        INT2..=INT8 => {
            let guess = c.memory().row_guess(row, column).unwrap_or_default();
            Some(c.number(Form::Zigzag, guess)?)
        }
        _ => {
            other_value(c, tag)?;
            None
        }
    };
    let tag = c.tag()?;
    if !matches!(tag, INT2..=INT8) {
        return other_value(c, tag);
    }
    let guess = match old {
        Some(old) => old.wrapping_add(c.memory().change),
        None => c.memory().guess(Slot::Column(table, column)),
    };
    let new = c.number(Form::Zigzag, guess)?;
    let memory = c.memory();
    memory.note_row(row, column, new);
    match old {
        Some(old) => {
            memory.change = new.wrapping_sub(old);
            memory.note_recent(memory.change);
        }
        None => memory.note(Slot::Column(table, column), new),
    }
    Ok(())
}

/// What follows a tag that is no integer's.
fn other_value(c: &mut impl Coder, tag: u8) -> Decoded<()> {
    match tag {
        NULL | FALSE | TRUE => Ok(()),
        FLOAT4 => c.plain(4),
        FLOAT8 => c.plain(8),
        UUID => c.plain(16),
        BYTES => c.string(),
        BYTES_SHORT.. => c.plain(usize::from(tag - BYTES_SHORT)),
        _ => Err(Malformed("unknown kind of value")),
    }
}
