//! Records in fewer bytes: how the body of a log frame is stored.
//!
//! A commit repeats its predecessor: the same author, tables and columns, the next height, a time a little later, the old
//! value that an earlier change of the row left. Its hash is over all of that, so the *stored form* leaves out what can be said again:
//!
//! ```text
//!   records ── model ──┬── structure   kinds, counts, tables, columns, names: nearly the same for each record
//!      (bytes that     ├── hits        a bit for each number: it is what was guessed
//!       are hashed)    └── values      the others, as distances to the guess, and the bytes of strings
//! ```
//!
//! The three are one block for lz4, to which the structure of a record like its predecessor costs almost nothing. Guesses come from
//! the records before in the same frame alone, so a frame is read by itself. The id of a commit's parent, when that is the commit
//! before in the frame, is not stored: it is the hash of what was just decoded.
//!
//! One description of the records' grammar (`model`) serves both directions, so what is packed comes back the same to the byte. Bytes that
//! do not follow the grammar are stored as they are.

mod memory;
mod model;
mod packer;
#[cfg(test)]
mod tests;
mod unpacker;

use crate::encoding::{ByteReader, Decoded, Malformed, put_varint};
use crate::id::CommitId;
use memory::Memory;
use packer::Packer;
use unpacker::{Ids, Unpacker};

/// In place of a record's kind: the record's size and bytes follow.
const PLAIN: u8 = 0;
/// What a byte of the streams stands for at most: an id that is left out takes one.
const EXPANSION_MAX: usize = 64;

/// A commit in a frame: which of its records it is, from 0, and its id.
pub(crate) type FrameCommit = (u32, CommitId);

/// The stored form of a log frame's body with so many records, of which these are commits; `None` where it cannot be had.
pub(crate) fn pack(body: &[u8], record_count: u16, commits: &[FrameCommit]) -> Option<Vec<u8>> {
    let (whole, body_size) = (body, body.len());
    let mut body = ByteReader::new(body);
    let mut packer = Packer::new(Memory::new(record_count), body_size);
    let mut commits = commits.iter().peekable();
    for number in 0..u32::from(record_count) {
        let record = body.bytes().ok()?;
        let id = commits.next_if(|(n, _)| *n == number).map(|(_, id)| *id);
        packer.record(record, id).ok()?;
    }
    if !body.is_empty() {
        return None;
    }
    let packed = packer.finish();
    if body_size > packed.len().saturating_mul(EXPANSION_MAX) {
        return None;
    }
    debug_assert!(unpack(&packed, record_count, body_size).is_ok_and(|unpacked| unpacked == whole), "BUG: records do not come back");
    Some(packed)
}

/// The body of so many bytes with so many records.
pub(crate) fn unpack(packed: &[u8], record_count: u16, size: usize) -> Decoded<Vec<u8>> {
    let mut unpacker = unpacker(packed, record_count, size, Ids::Computed)?;
    for _ in 0..record_count {
        unpacker.record()?;
    }
    unpacker.finish()
}

/// The body as [`unpack`] gives it but for the ids that are not stored, which are zeros; and for each record where it has such an id,
/// from the record's beginning on (0: nowhere). Computing the ids takes more than half of the time.
pub(crate) fn unpack_without_ids(packed: &[u8], record_count: u16, size: usize) -> Decoded<(Vec<u8>, Vec<u32>)> {
    let mut unpacker = unpacker(packed, record_count, size, Ids::LeftOut)?;
    let holes = (0..record_count).map(|_| unpacker.record()).collect::<Decoded<_>>()?;
    Ok((unpacker.finish()?, holes))
}

/// One of the records, from 0, without its id that is not stored, and where that belongs (0: nowhere). What comes after it is not looked at.
pub(crate) fn unpack_record(packed: &[u8], record_count: u16, size: usize, index: u16) -> Decoded<(Vec<u8>, u32)> {
    let mut unpacker = unpacker(packed, record_count, size, Ids::LeftOut)?;
    for _ in 0..index {
        unpacker.pass_over()?;
    }
    unpacker.take_record()
}

fn unpacker(packed: &[u8], record_count: u16, size: usize, ids: Ids) -> Decoded<Unpacker<'_>> {
    if size > packed.len().saturating_mul(EXPANSION_MAX) {
        return Err(Malformed("records claim to be larger than they can be"));
    }
    let mut reader = ByteReader::new(packed);
    let structure = reader.bytes()?;
    let hits = reader.bytes()?;
    Ok(Unpacker::new(Memory::new(record_count), [structure, hits, reader.rest()], size, ids))
}

fn join(structure: &[u8], hits: &[u8], values: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(structure.len() + hits.len() + values.len() + 8);
    for stream in [structure, hits] {
        put_varint(&mut out, stream.len() as u64);
        out.extend_from_slice(stream);
    }
    out.extend_from_slice(values);
    out
}
