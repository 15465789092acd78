//! From records to streams.

use super::memory::{Memory, Slot};
use super::model::{self, Coder, Form};
use super::{PLAIN, join};
use crate::encoding::{BYTES_SHORT, ByteReader, Decoded, Malformed, put_varint, put_zigzag};
use crate::id::CommitId;
use crate::schema::Oid;

/// How a key lies in the streams.
pub(super) const KEY_BYTES: u8 = 0;
/// One integer of 4 bytes that is not NULL.
pub(super) const KEY_INT4: u8 = 1;
pub(super) const KEY_INT8: u8 = 2;

/// How a message lies in the streams.
pub(super) const MESSAGE_BYTES: u8 = 0;
/// With [`XID`] and [`LSN`] for what the commit's source says.
pub(super) const MESSAGE_TEMPLATE: u8 = 1;
pub(super) const XID: u8 = 1;
pub(super) const LSN: u8 = 2;

pub(super) struct Packer<'a> {
    memory: Memory,
    input: ByteReader<'a>,
    structure: Vec<u8>,
    hits: Vec<u8>,
    hit_count: usize,
    values: Vec<u8>,
    message: &'a [u8],
    template: Vec<u8>,
    texts: SourceTexts,
    /// The commit before in the frame.
    before: Option<CommitId>,
}

impl<'a> Packer<'a> {
    /// `size`: bytes of the records.
    pub fn new(memory: Memory, size: usize) -> Self {
        Packer {
            memory,
            input: ByteReader::new(&[]),
            structure: Vec::with_capacity(size / 2),
            hits: Vec::with_capacity(size / 32),
            hit_count: 0,
            values: Vec::with_capacity(size / 4),
            message: &[],
            template: Vec::new(),
            texts: SourceTexts::default(),
            before: None,
        }
    }

    /// Adds a record; `id` where it is a commit whose id is known. After an error the streams are of no use.
    pub fn record(&mut self, record: &'a [u8], id: Option<CommitId>) -> Decoded<()> {
        match record.split_first() {
            Some((kind, rest)) if model::is_packed(*kind) => {
                self.structure.push(*kind);
                self.input = ByteReader::new(rest);
                model::record(self, *kind)?;
                self.input.finish()?;
                if *kind == crate::record::COMMIT {
                    self.before = id;
                }
            }
            _ => {
                self.structure.push(PLAIN);
                put_varint(&mut self.structure, record.len() as u64);
                self.structure.extend_from_slice(record);
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Vec<u8> {
        join(&self.structure, &self.hits, &self.values)
    }

    /// A varint that is as short as it can be, which is the only one that comes back.
    fn varint(&mut self) -> Decoded<u64> {
        let before = self.input.rest();
        let number = self.input.varint()?;
        let size = before.len() - self.input.rest().len();
        if size > 1 && before[size - 1] == 0 {
            return Err(Malformed("a number is longer than it need be"));
        }
        Ok(number)
    }

    fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let size = self.varint()?;
        self.input.take(usize::try_from(size).map_err(|_| Malformed("ends early"))?)
    }

    fn read(&mut self, form: Form) -> Decoded<i64> {
        Ok(match form {
            Form::Varint => self.varint()? as i64,
            Form::Zigzag => {
                let number = self.varint()?;
                (number >> 1) as i64 ^ -((number & 1) as i64)
            }
            Form::Time => i64::from_le_bytes(self.input.array()?),
        })
    }

    /// Puts a number into the streams.
    fn put(&mut self, number: i64, guess: i64) {
        if self.hit_count.is_multiple_of(8) {
            self.hits.push(0);
        }
        if number == guess {
            self.hits[self.hit_count / 8] |= 1 << (self.hit_count % 8);
        } else {
            put_zigzag(&mut self.values, number.wrapping_sub(guess));
        }
        self.hit_count += 1;
    }

    fn put_related(&mut self, number: i64, guess: i64) {
        // A guess that is right costs a bit; a look among the recent ones a byte that may differ from the record before's.
        let back = self.memory.find_recent(number).unwrap_or(0);
        self.structure.push(back as u8);
        if back == 0 {
            self.put(number, guess);
        }
    }

    /// Whether the template of the message before, filled in, is this message.
    fn is_message_of_template(&self) -> bool {
        let (mut message, mut template) = (self.message, &self.template[..]);
        while let Some(at) = template.iter().position(|byte| matches!(*byte, XID | LSN)) {
            let text = if template[at] == LSN { &self.texts.lsn } else { &self.texts.xid };
            let Some(rest) = message.strip_prefix(&template[..at]).and_then(|rest| rest.strip_prefix(text.as_bytes())) else {
                return false;
            };
            (message, template) = (rest, &template[at + 1..]);
        }
        message == template
    }

    fn find_template(&mut self) {
        self.template.clear();
        let mut rest = self.message;
        while let Some((first, after)) = rest.split_first() {
            // Both begin with a digit of base 16.
            if !first.is_ascii_hexdigit() {
                self.template.push(*first);
                rest = after;
            } else if let Some(after) = rest.strip_prefix(self.texts.lsn.as_bytes()) {
                self.template.push(LSN);
                rest = after;
            } else if let Some(after) = rest.strip_prefix(self.texts.xid.as_bytes()) {
                self.template.push(XID);
                rest = after;
            } else {
                self.template.push(*first);
                rest = after;
            }
        }
    }
}

impl Coder for Packer<'_> {
    fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    fn byte(&mut self) -> Decoded<u8> {
        let byte = self.input.u8()?;
        self.structure.push(byte);
        Ok(byte)
    }

    fn tag(&mut self) -> Decoded<u8> {
        let tag = self.input.u8()?;
        self.structure.push(tag.min(BYTES_SHORT));
        if tag >= BYTES_SHORT {
            self.values.push(tag - BYTES_SHORT);
        }
        Ok(tag)
    }

    fn count(&mut self) -> Decoded<u64> {
        let number = self.varint()?;
        put_varint(&mut self.structure, number);
        Ok(number)
    }

    fn name(&mut self) -> Decoded<()> {
        let name = self.bytes()?;
        put_varint(&mut self.structure, name.len() as u64);
        self.structure.extend_from_slice(name);
        Ok(())
    }

    fn string(&mut self) -> Decoded<()> {
        let string = self.bytes()?;
        put_varint(&mut self.values, string.len() as u64);
        self.values.extend_from_slice(string);
        Ok(())
    }

    fn plain(&mut self, size: usize) -> Decoded<()> {
        let bytes = self.input.take(size)?;
        self.values.extend_from_slice(bytes);
        Ok(())
    }

    fn number(&mut self, form: Form, guess: i64) -> Decoded<i64> {
        let number = self.read(form)?;
        self.put(number, guess);
        Ok(number)
    }

    fn related(&mut self, form: Form, guess: i64) -> Decoded<i64> {
        let number = self.read(form)?;
        self.put_related(number, guess);
        Ok(number)
    }

    fn parent(&mut self) -> Decoded<()> {
        let parent = self.input.array()?;
        let is_before = self.before == Some(CommitId(parent));
        self.structure.push(u8::from(is_before));
        if !is_before {
            self.values.extend_from_slice(&parent);
        }
        Ok(())
    }

    fn begin_commit(&mut self) {}

    fn begin_message(&mut self) -> Decoded<()> {
        self.message = self.bytes()?;
        Ok(())
    }

    fn message(&mut self, source: Option<(i64, i64)>) -> Decoded<()> {
        let Some((lsn, xid)) = source.filter(|_| !self.message.iter().any(|byte| matches!(*byte, XID | LSN))) else {
            self.structure.push(MESSAGE_BYTES);
            put_varint(&mut self.structure, self.message.len() as u64);
            self.structure.extend_from_slice(self.message);
            return Ok(());
        };
        self.texts.set(lsn, xid);
        if !self.is_message_of_template() {
            self.find_template();
        }
        self.structure.push(MESSAGE_TEMPLATE);
        put_varint(&mut self.structure, self.template.len() as u64);
        self.structure.extend_from_slice(&self.template);
        Ok(())
    }

    fn key(&mut self, table: Oid) -> Decoded<u32> {
        let key = self.bytes()?;
        let guess = self.memory.guess(Slot::Key(table));
        let number = match key {
            [1, rest @ ..] if rest.len() == 4 => {
                self.structure.push(KEY_INT4);
                Some(i64::from(i32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) ^ i32::MIN))
            }
            [1, rest @ ..] if rest.len() == 8 => {
                self.structure.push(KEY_INT8);
                let number: [u8; 8] = rest.try_into().expect("BUG: 8 bytes");
                Some(i64::from_be_bytes(number) ^ i64::MIN)
            }
            _ => None,
        };
        if let Some(number) = number {
            self.put_related(number, guess);
            self.memory.note(Slot::Key(table), number);
            self.memory.note_recent(number);
        } else {
            self.structure.push(KEY_BYTES);
            let last = self.memory.key(table);
            let shared = key.iter().zip(last.iter()).take_while(|(a, b)| a == b).count();
            put_varint(&mut self.values, shared as u64);
            put_varint(&mut self.values, (key.len() - shared) as u64);
            self.values.extend_from_slice(&key[shared..]);
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(key_hash(table, key))
    }
}

/// What tells rows apart in the memory.
pub(super) fn key_hash(table: Oid, key: &[u8]) -> u32 {
    crc32c::crc32c_append(table, key)
}

/// The texts of a source's coordinates, which messages repeat.
#[derive(Default)]
pub(super) struct SourceTexts {
    pub lsn: String,
    pub xid: String,
}

impl SourceTexts {
    pub fn set(&mut self, lsn: i64, xid: i64) {
        self.lsn.clear();
        self.xid.clear();
        // Written by hand: the formatter would take a tenth of a transaction's packing.
        put_digits(&mut self.lsn, lsn as u64 >> 32, 16);
        self.lsn.push('/');
        put_digits(&mut self.lsn, lsn as u64 & 0xFFFF_FFFF, 16);
        put_digits(&mut self.xid, xid as u64, 10);
    }
}

/// Appends a number's digits, in upper case, without zeros before them.
fn put_digits(out: &mut String, mut number: u64, base: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789ABCDEF"[(number % base) as usize];
        number /= base;
        if number == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Lsn;

    #[test]
    fn coordinates_are_written_as_they_are_shown() {
        let mut texts = SourceTexts::default();
        for shift in 0..64 {
            for number in [(1u64 << shift) - 1, 1 << shift, 0xDEAD_BEEF_0000_1234 >> shift] {
                texts.set(number as i64, number as i64);
                assert_eq!((texts.lsn.as_str(), texts.xid.as_str()), (&*Lsn(number).to_string(), &*number.to_string()));
            }
        }
    }
}
