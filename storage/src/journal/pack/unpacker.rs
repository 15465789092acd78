//! From streams to records.

use super::PLAIN;
use super::memory::{Memory, Slot};
use super::model::{self, Coder, Form};
use super::packer::{KEY_BYTES, KEY_INT4, KEY_INT8, LSN, MESSAGE_BYTES, MESSAGE_TEMPLATE, SourceTexts, XID, key_hash};
use crate::encoding::{BYTES_SHORT, ByteReader, Decoded, Malformed, put_bytes, put_varint, put_zigzag};
use crate::id::CommitId;
use crate::schema::Oid;

pub(super) struct Unpacker<'a> {
    memory: Memory,
    structure: ByteReader<'a>,
    hits: &'a [u8],
    hit_count: usize,
    values: ByteReader<'a>,
    /// The records so far, each with its size.
    body: Vec<u8>,
    /// How large the body is to be.
    size: usize,
    /// The record under way.
    record: Vec<u8>,
    commit_at: usize,
    message_at: usize,
    message: Vec<u8>,
    texts: SourceTexts,
    /// The commit before.
    before: Option<Before>,
    ids: Ids,
    /// Nothing but the memory is kept of the record under way.
    quiet: bool,
    /// Where the id that is left out belongs in the record under way; 0: none is.
    hole: u32,
}

/// What becomes of a parent's id that is not stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    /// It is computed.
    Computed,
    /// It is left out: whoever asks for the record knows it, and computing it would take the hashes of all commits before in the frame.
    LeftOut,
}

enum Before {
    /// In the body.
    Bytes(usize, usize),
    NotKept,
}

impl<'a> Unpacker<'a> {
    pub fn new(memory: Memory, [structure, hits, values]: [&'a [u8]; 3], size: usize, ids: Ids) -> Self {
        Unpacker {
            memory,
            structure: ByteReader::new(structure),
            hits,
            hit_count: 0,
            values: ByteReader::new(values),
            body: Vec::new(),
            size,
            record: Vec::new(),
            commit_at: 0,
            message_at: 0,
            message: Vec::new(),
            texts: SourceTexts::default(),
            before: None,
            ids,
            quiet: false,
            hole: 0,
        }
    }

    /// Passes over a record, of which only what later ones need is kept.
    pub fn pass_over(&mut self) -> Decoded<()> {
        self.quiet = true;
        let passed = self.begin_record();
        self.quiet = false;
        if passed? == crate::record::COMMIT {
            self.before = Some(Before::NotKept);
        }
        Ok(())
    }

    /// The next record alone, and where the id that is left out belongs in it.
    pub fn take_record(mut self) -> Decoded<(Vec<u8>, u32)> {
        self.begin_record()?;
        Ok((self.record, self.hole))
    }

    /// Decodes a record and returns its kind.
    fn begin_record(&mut self) -> Decoded<u8> {
        let kind = self.structure.u8()?;
        self.record.clear();
        self.hole = 0;
        if kind == PLAIN {
            let record = self.structure.bytes()?;
            self.add(record)?;
        } else {
            self.add(&[kind])?;
            model::record(self, kind)?;
        }
        Ok(kind)
    }

    /// Adds the next record to the body; says where the id that is left out belongs in it, or 0.
    pub fn record(&mut self) -> Decoded<u32> {
        if self.body.capacity() == 0 {
            // What the size may be was compared with that of the streams.
            self.body.reserve(self.size);
        }
        let kind = self.begin_record()?;
        put_varint(&mut self.body, self.record.len() as u64);
        if kind == crate::record::COMMIT {
            self.before = Some(Before::Bytes(self.body.len() + self.commit_at, self.body.len() + self.record.len()));
        }
        self.body.extend_from_slice(&self.record);
        if self.body.len() > self.size { Err(Malformed("records are larger than they should be")) } else { Ok(self.hole) }
    }

    pub fn finish(self) -> Decoded<Vec<u8>> {
        self.structure.finish()?;
        self.values.finish()?;
        if self.hits.len() != self.hit_count.div_ceil(8) {
            return Err(Malformed("surplus bytes"));
        }
        if self.body.len() != self.size {
            return Err(Malformed("records have another size"));
        }
        Ok(self.body)
    }

    /// Adds to the record, unless that makes it larger than all are to be.
    #[inline]
    fn add(&mut self, bytes: &[u8]) -> Decoded<()> {
        if self.quiet {
            return Ok(());
        }
        if bytes.len() > self.size.saturating_sub(self.record.len()) {
            return Err(Malformed("records are larger than they should be"));
        }
        self.record.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn add_number(&mut self, form: Form, number: i64) {
        match form {
            _ if self.quiet => {}
            Form::Varint => put_varint(&mut self.record, number as u64),
            Form::Zigzag => put_zigzag(&mut self.record, number),
            Form::Time => self.record.extend_from_slice(&number.to_le_bytes()),
        }
    }

    fn add_bytes(&mut self, bytes: &[u8]) -> Decoded<()> {
        self.add_number(Form::Varint, bytes.len() as i64);
        self.add(bytes)
    }

    fn take(&mut self, guess: i64) -> Decoded<i64> {
        let byte = self.hits.get(self.hit_count / 8).ok_or(Malformed("ends early"))?;
        let is_hit = byte >> (self.hit_count % 8) & 1 == 1;
        self.hit_count += 1;
        if is_hit { Ok(guess) } else { Ok(guess.wrapping_add(self.values.zigzag()?)) }
    }

    fn take_related(&mut self, guess: i64) -> Decoded<i64> {
        match self.structure.u8()? {
            0 => self.take(guess),
            back => self.memory.recent(usize::from(back)).ok_or(Malformed("no number is so far back")),
        }
    }

    /// Puts the message with its size where it belongs, before the source.
    fn insert_message(&mut self, message: &[u8]) -> Decoded<()> {
        let end = self.record.len();
        put_varint(&mut self.record, message.len() as u64);
        self.add(message)?;
        let size = self.record.len() - end;
        self.record[self.message_at..].rotate_right(size);
        Ok(())
    }
}

impl Coder for Unpacker<'_> {
    fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    fn byte(&mut self) -> Decoded<u8> {
        let byte = self.structure.u8()?;
        self.add(&[byte])?;
        Ok(byte)
    }

    fn tag(&mut self) -> Decoded<u8> {
        let tag = match self.structure.u8()? {
            BYTES_SHORT => self.values.u8()?.checked_add(BYTES_SHORT).ok_or(Malformed("string too long"))?,
            tag => tag,
        };
        self.add(&[tag])?;
        Ok(tag)
    }

    fn count(&mut self) -> Decoded<u64> {
        let number = self.structure.varint()?;
        self.add_number(Form::Varint, number as i64);
        Ok(number)
    }

    fn name(&mut self) -> Decoded<()> {
        let name = self.structure.bytes()?;
        self.add_bytes(name)
    }

    fn string(&mut self) -> Decoded<()> {
        let string = self.values.bytes()?;
        self.add_bytes(string)
    }

    fn plain(&mut self, size: usize) -> Decoded<()> {
        let bytes = self.values.take(size)?;
        self.add(bytes)
    }

    fn number(&mut self, form: Form, guess: i64) -> Decoded<i64> {
        let number = self.take(guess)?;
        self.add_number(form, number);
        Ok(number)
    }

    fn related(&mut self, form: Form, guess: i64) -> Decoded<i64> {
        let number = self.take_related(guess)?;
        self.add_number(form, number);
        Ok(number)
    }

    fn parent(&mut self) -> Decoded<()> {
        match (self.structure.u8()?, &self.before) {
            (0, _) => {
                let id = self.values.take(32)?;
                self.add(id)
            }
            (1, Some(_)) if self.quiet => Ok(()),
            (1, Some(_)) if self.ids == Ids::LeftOut => {
                if self.hole != 0 {
                    return Err(Malformed("more than one id is left out"));
                }
                self.hole = self.record.len() as u32;
                self.add(&[0; 32])
            }
            (1, Some(Before::Bytes(start, end))) => {
                let id = CommitId::of(&self.body[*start..*end]);
                self.add(&id.0)
            }
            _ => Err(Malformed("no commit is before")),
        }
    }

    fn begin_commit(&mut self) {
        self.commit_at = self.record.len();
    }

    fn begin_message(&mut self) -> Decoded<()> {
        self.message_at = self.record.len();
        Ok(())
    }

    fn message(&mut self, source: Option<(i64, i64)>) -> Decoded<()> {
        let kind = self.structure.u8()?;
        let template = self.structure.bytes()?;
        match (kind, source) {
            (MESSAGE_BYTES, _) | (MESSAGE_TEMPLATE, Some(_)) if self.quiet => Ok(()),
            (MESSAGE_BYTES, _) => self.insert_message(template),
            (MESSAGE_TEMPLATE, Some((lsn, xid))) => {
                self.texts.set(lsn, xid);
                let mut message = std::mem::take(&mut self.message);
                message.clear();
                for byte in template {
                    match *byte {
                        LSN => message.extend_from_slice(self.texts.lsn.as_bytes()),
                        XID => message.extend_from_slice(self.texts.xid.as_bytes()),
                        byte => message.push(byte),
                    }
                }
                self.insert_message(&message)?;
                self.message = message;
                Ok(())
            }
            _ => Err(Malformed("unknown kind of message")),
        }
    }

    fn key(&mut self, table: Oid) -> Decoded<u32> {
        let form = self.structure.u8()?;
        match form {
            KEY_INT4 | KEY_INT8 => {
                let guess = self.memory.guess(Slot::Key(table));
                let number = self.take_related(guess)?;
                self.memory.note(Slot::Key(table), number);
                self.memory.note_recent(number);
                if form == KEY_INT4 {
                    let number = i32::try_from(number).map_err(|_| Malformed("number too large"))?;
                    let mut key = [5, 1, 0, 0, 0, 0];
                    key[2..].copy_from_slice(&(number ^ i32::MIN).to_be_bytes());
                    self.add(&key)?;
                    Ok(key_hash(table, &key[1..]))
                } else {
                    let mut key = [9, 1, 0, 0, 0, 0, 0, 0, 0, 0];
                    key[2..].copy_from_slice(&(number ^ i64::MIN).to_be_bytes());
                    self.add(&key)?;
                    Ok(key_hash(table, &key[1..]))
                }
            }
            KEY_BYTES => {
                let shared = self.values.varint()?;
                let rest = self.values.bytes()?;
                let last = self.memory.key(table);
                if shared > last.len() as u64 {
                    return Err(Malformed("a key shares more than there is"));
                }
                last.truncate(shared as usize);
                last.extend_from_slice(rest);
                if last.len() > self.size {
                    return Err(Malformed("records are larger than they should be"));
                }
                if !self.quiet {
                    put_bytes(&mut self.record, last);
                }
                Ok(key_hash(table, last))
            }
            _ => Err(Malformed("unknown kind of key")),
        }
    }
}
