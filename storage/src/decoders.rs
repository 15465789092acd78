//! All decoders of stored bytes behind one door, for the fuzz targets in `fuzz/` and the test of mutated bytes.
//!
//! Each takes any bytes and must neither panic nor take memory out of proportion to them. What decodes is used as a reader would:
//! values are read, trees verified, so that a decoder that lets nonsense through is found here and not in a query.

use std::sync::Arc;

use bytes::Bytes;

use crate::change_set::{ChangeSet, touched_mask};
use crate::chunk::{ChunkReader, MemoryChunks};
use crate::commit::{Commit, Header};
use crate::commit_index;
use crate::encoding::ByteReader;
use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::journal::{FRAME_HEADER_SIZE, FrameHeader, LogFrame, ScanEnd, scan, unpack};
use crate::record::{Record, commit_bytes};
use crate::root::Root;
use crate::row_index::run::{BLOCK_SIZE, decode_block};
use crate::schema::CatalogObject;
use crate::table::TableShape;
use crate::tree::{Layout, Tree};
use crate::value::key::decode_key;
use crate::value::{DataType, Kind, Physical, TextSettings, Value};

/// A kind of stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// A frame; its checksum is made right, as nothing else would be reached.
    Frame,
    /// The frames of a segment, one after the other.
    Segment,
    /// What the commits of a sealed segment's file say, behind its checksums.
    SealedCommits,
    LogFrame,
    /// The number of records (2 bytes), the size that they claim to have (4), and packed records.
    PackedRecords,
    Record,
    Commit,
    ChangeSet,
    /// A root value; its catalog objects are looked for in vain.
    Root,
    CatalogObject,
    Leaf,
    InnerNode,
    /// A block of a run of the row index, behind its checksum.
    RowIndexBlock,
    Row,
    /// The type's number, then a key.
    Key,
    /// The type's number, then stored bytes of a value of that type.
    Value,
}

pub const DECODERS: [Decoder; 16] = [
    Decoder::Frame,
    Decoder::Segment,
    Decoder::SealedCommits,
    Decoder::LogFrame,
    Decoder::PackedRecords,
    Decoder::Record,
    Decoder::Commit,
    Decoder::ChangeSet,
    Decoder::Root,
    Decoder::CatalogObject,
    Decoder::Leaf,
    Decoder::InnerNode,
    Decoder::RowIndexBlock,
    Decoder::Row,
    Decoder::Key,
    Decoder::Value,
];

const KINDS: [Kind; 24] = [
    Kind::Bool,
    Kind::Int2,
    Kind::Int4,
    Kind::Int8,
    Kind::Oid,
    Kind::Float4,
    Kind::Float8,
    Kind::Numeric,
    Kind::Money,
    Kind::Text,
    Kind::Bpchar,
    Kind::Bytea,
    Kind::Date,
    Kind::Time,
    Kind::Timetz,
    Kind::Timestamp,
    Kind::Timestamptz,
    Kind::Interval,
    Kind::Uuid,
    Kind::Json,
    Kind::Jsonb,
    Kind::Lsn,
    Kind::Array,
    Kind::Enum,
];

/// The layout of the leaves that [`Decoder::Leaf`] decodes: a column of each shape.
pub(crate) fn leaf_layout() -> Arc<Layout> {
    Layout::new(vec![
        Physical::Bool,
        Physical::Int2,
        Physical::Int4,
        Physical::Int8,
        Physical::Float4,
        Physical::Float8,
        Physical::Uuid,
        Physical::Bytes,
    ])
}

pub(crate) fn data_type(number: u8) -> DataType {
    let kind = KINDS[usize::from(number) % KINDS.len()];
    DataType { oid: 0, typmod: -1, name: format!("{kind:?}").to_lowercase().into(), kind, element: None }
}

/// Decodes bytes as this kind; says whether they decode.
pub fn decode(decoder: Decoder, bytes: &[u8]) -> bool {
    match decoder {
        Decoder::Frame => frame(bytes),
        Decoder::Segment => {
            let mut next = 0;
            let end = scan(bytes, &mut next, |_, header, payload| header.body(payload).map(drop));
            matches!(end, Ok(ScanEnd::Sealed | ScanEnd::Unsealed { .. }))
        }
        Decoder::SealedCommits => commit_index::decode_rows(bytes).is_ok(),
        Decoder::LogFrame => match bytes.split_first_chunk::<2>() {
            Some((count, body)) => LogFrame::decode(7, u16::from_le_bytes(*count), body.to_vec())
                .is_ok_and(|frame| frame.iter().all(|(sequence, record)| frame.record(sequence) == Some(record))),
            None => false,
        },
        Decoder::PackedRecords => match bytes.split_first_chunk::<6>() {
            Some(([c0, c1, size @ ..], packed)) => {
                unpack(packed, u16::from_le_bytes([*c0, *c1]), u32::from_le_bytes(*size) as usize).is_ok()
            }
            None => false,
        },
        Decoder::Record => {
            let bytes = Bytes::copy_from_slice(bytes);
            let _ = commit_bytes(&bytes);
            Record::decode(&bytes).is_ok_and(|record| {
                if let Record::Working { changes, .. } = &record {
                    let _ = changes.load(&MemoryChunks::default());
                }
                !record.encode().is_empty()
            })
        }
        Decoder::Commit => {
            let reader: Arc<dyn ChunkReader> = Arc::new(MemoryChunks::default());
            let bytes = Bytes::copy_from_slice(bytes);
            let _ = Header::decode(&bytes).map(|header| header.touched_mask(&bytes));
            Commit::decode(&bytes, &reader).is_ok_and(|commit| commit.changes().is_ok())
        }
        Decoder::ChangeSet => {
            let _ = touched_mask(bytes);
            ChangeSet::decode(bytes)
                .is_ok_and(|changes| changes.is_empty() || changes.inverted().is_none_or(|inverted| inverted.row_count() > 0))
        }
        Decoder::Root => {
            let chunks = Arc::new(OneChunk(bytes.to_vec()));
            Root::open(&ChunkAddress::of(bytes), chunks).is_ok()
        }
        Decoder::CatalogObject => match serde_json::from_slice::<CatalogObject>(bytes) {
            Ok(CatalogObject::Table(schema)) => TableShape::new(schema).is_ok(),
            other => other.is_ok(),
        },
        Decoder::Leaf | Decoder::InnerNode => node(bytes).is_ok(),
        Decoder::RowIndexBlock => {
            let mut block = [0; BLOCK_SIZE];
            let size = bytes.len().min(BLOCK_SIZE - 4);
            block[4..4 + size].copy_from_slice(&bytes[..size]);
            decode_block(&block, 1000).is_ok()
        }
        Decoder::Row => {
            let mut reader = ByteReader::new(bytes);
            reader.row().is_ok() && reader.finish().is_ok()
        }
        Decoder::Key => match bytes.split_first() {
            Some((number, key)) => {
                let (descending, nulls_first) = (number & 64 != 0, number & 128 != 0);
                let data_type = data_type(number & 63);
                decode_key(key, &data_type, descending, nulls_first).is_ok_and(|(value, _)| use_value(&data_type, &value))
            }
            None => false,
        },
        Decoder::Value => match bytes.split_first() {
            Some((number, stored)) => {
                let data_type = data_type(*number);
                data_type.kind.physical() == Physical::Bytes && use_value(&data_type, &Value::bytes(stored))
            }
            None => false,
        },
    }
}

/// Does with a stored value what a query does: its text, its binary form, its key.
fn use_value(data_type: &DataType, value: &Value) -> bool {
    let text = data_type.to_text(value, &TextSettings::default());
    let mut out = Vec::new();
    let _ = data_type.to_binary(value, &mut out);
    crate::value::key::encode_key(&mut out, value, data_type, false, false);
    data_type.parse(&text, &TextSettings::default()).is_ok()
}

fn frame(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    let Some(header) = FrameHeader::decode(&bytes) else { return false };
    let Some(frame) = bytes.get_mut(..header.frame_size()) else { return false };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[4..28]), &frame[FRAME_HEADER_SIZE..]);
    frame[28..32].copy_from_slice(&crc.to_le_bytes());
    let header = FrameHeader::decode(frame).expect("BUG: only the checksum was changed");
    header.verify(frame) && header.body(&frame[FRAME_HEADER_SIZE..]).is_ok()
}

/// A reader of one chunk under whatever address.
#[derive(Debug)]
struct OneChunk(Vec<u8>);

impl ChunkReader for OneChunk {
    fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
        if ChunkAddress::of(&self.0) == *address {
            return Ok(self.0.clone());
        }
        Err(Error::Damaged { place: format!("chunk {address:.12}"), what: "missing".into() })
    }
}

/// Opens a tree on a node and reads what is in it.
fn node(bytes: &[u8]) -> Result<()> {
    let tree = Tree::open(ChunkAddress::of(bytes), leaf_layout(), Arc::new(OneChunk(bytes.to_vec())))?;
    let mut cursor = tree.scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    while cursor.next_row()?.is_some() {}
    tree.get(b"key")?;
    tree.verify().map(drop)
}

#[cfg(test)]
mod tests;
