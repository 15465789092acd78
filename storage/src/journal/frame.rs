//! Frames: what a segment consists of. Each checks itself, so that a torn or rotten one is recognised.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `SFRM` |
//! | 4 | 4 | size of the payload as stored |
//! | 8 | 4 | size of the body before compression |
//! | 12 | 1 | kind: 1 log, 2 chunk, 3 footer (format 1), 4 seal |
//! | 13 | 1 | flags: bit 0, compressed (lz4); bit 1, a log frame's body is packed (`pack`): the payload begins with the size before compression, 4 bytes |
//! | 14 | 2 | number of records in a log frame, else 0 |
//! | 16 | 8 | sequence number of the first record; elsewhere of the next record |
//! | 24 | 4 | how much of this segment was durable when the frame was made |
//! | 28 | 4 | CRC32C of bytes 4 to 27 and the payload |
//! | 32 | | payload: in a chunk frame the chunk's address (32 bytes), then the body |
//!
//! All numbers are little-endian.

use super::pack::{self, FrameCommit};
use crate::encoding::{Decoded, Malformed};
use crate::id::ChunkAddress;

pub(crate) const FRAME_HEADER_SIZE: usize = 32;
/// No frame is larger, before or after compression: bounds what a reader allocates.
pub(crate) const FRAME_BODY_SIZE_MAX: usize = 64 << 20;
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"SFRM";
/// Bodies smaller than this are not worth compressing.
const COMPRESSION_SIZE_MIN: usize = 100;
const COMPRESSED: u8 = 1;
const PACKED: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Log = 1,
    Chunk = 2,
    Footer = 3,
    Seal = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: FrameKind,
    pub compressed: bool,
    pub packed: bool,
    pub record_count: u16,
    pub stored_size: u32,
    pub raw_size: u32,
    pub sequence: u64,
    pub synced: u32,
    crc: u32,
}

impl FrameHeader {
    /// Header and payload.
    pub fn frame_size(&self) -> usize {
        FRAME_HEADER_SIZE + self.stored_size as usize
    }

    /// Reads a header; `None` where none begins.
    pub fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        let bytes: &[u8; FRAME_HEADER_SIZE] = bytes.get(..FRAME_HEADER_SIZE)?.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..4] != FRAME_MAGIC || bytes[13] & !(COMPRESSED | PACKED) != 0 {
            return None;
        }
        let kind = match bytes[12] {
            1 => FrameKind::Log,
            2 => FrameKind::Chunk,
            3 => FrameKind::Footer,
            4 => FrameKind::Seal,
            _ => return None,
        };
        let header = FrameHeader {
            kind,
            compressed: bytes[13] & COMPRESSED != 0,
            packed: bytes[13] & PACKED != 0,
            record_count: u16::from_le_bytes([bytes[14], bytes[15]]),
            stored_size: u32_at(4),
            raw_size: u32_at(8),
            sequence: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
            synced: u32_at(24),
            crc: u32_at(28),
        };
        let limit = FRAME_BODY_SIZE_MAX + 32;
        if header.stored_size as usize > limit || header.raw_size as usize > FRAME_BODY_SIZE_MAX {
            return None;
        }
        if kind == FrameKind::Chunk && header.stored_size < 32 || header.packed && kind != FrameKind::Log {
            return None;
        }
        Some(header)
    }

    /// Says whether a whole frame (with this header in front) is as it was written.
    pub fn verify(&self, frame: &[u8]) -> bool {
        frame.len() == self.frame_size() && frame_crc(frame) == self.crc
    }

    /// Takes the body out of a verified frame's payload.
    pub fn body(&self, payload: &[u8]) -> Decoded<Vec<u8>> {
        let body = if self.kind == FrameKind::Chunk { payload.get(32..).ok_or(Malformed("chunk frame too short"))? } else { payload };
        if self.packed {
            let packed = self.packed_body(body)?;
            return pack::unpack(&packed, self.record_count, self.raw_size as usize);
        }
        decompress(body, self.compressed, self.raw_size as usize)
    }

    /// The packed records in the payload of a frame that has them.
    pub fn packed_body(&self, payload: &[u8]) -> Decoded<Vec<u8>> {
        let (size, rest) = payload.split_first_chunk().ok_or(Malformed("log frame too short"))?;
        decompress(rest, self.compressed, u32::from_le_bytes(*size) as usize)
    }
}

fn decompress(stored: &[u8], compressed: bool, size: usize) -> Decoded<Vec<u8>> {
    if !compressed {
        return if stored.len() == size { Ok(stored.to_vec()) } else { Err(Malformed("frame has another size")) };
    }
    // lz4 makes at most 255 bytes of one; a header that claims more would only cost memory.
    if size > FRAME_BODY_SIZE_MAX || size > stored.len().saturating_mul(255) {
        return Err(Malformed("frame does not decompress"));
    }
    let mut raw = vec![0; size];
    match lz4_flex::block::decompress_into(stored, &mut raw) {
        Ok(size) if size == raw.len() => Ok(raw),
        _ => Err(Malformed("frame does not decompress")),
    }
}

fn frame_crc(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[4..28]), &frame[FRAME_HEADER_SIZE..])
}

/// The parts of a frame to be made.
pub(crate) struct NewFrame<'a> {
    pub kind: FrameKind,
    pub record_count: u16,
    pub sequence: u64,
    pub synced: u32,
    /// In front of a chunk's body.
    pub address: Option<ChunkAddress>,
    pub body: &'a [u8],
    /// The commits among the records of a log frame.
    pub commits: &'a [FrameCommit],
}

impl NewFrame<'_> {
    /// Appends the frame and returns its size. Records are packed; what comes of that, or the body, is compressed when that saves an eighth.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        assert!(self.body.len() <= FRAME_BODY_SIZE_MAX, "BUG: frame body too large");
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_HEADER_SIZE]);
        if let Some(address) = &self.address {
            out.extend_from_slice(&address.0);
        }
        let mut flags = 0;
        let packed = if self.kind == FrameKind::Log { pack::pack(self.body, self.record_count, self.commits) } else { None };
        if let Some(packed) = &packed {
            out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
            flags |= PACKED;
        }
        let body = packed.as_deref().unwrap_or(self.body);
        let body_at = out.len();
        if body.len() >= COMPRESSION_SIZE_MIN {
            out.resize(body_at + lz4_flex::block::get_maximum_output_size(body.len()), 0);
            match lz4_flex::block::compress_into(body, &mut out[body_at..]) {
                Ok(size) if size <= body.len() - body.len() / 8 => {
                    out.truncate(body_at + size);
                    flags |= COMPRESSED;
                }
                _ => out.truncate(body_at),
            }
        }
        if flags & COMPRESSED == 0 {
            out.extend_from_slice(body);
        }
        let size = out.len() - start;
        let frame = &mut out[start..];
        frame[..4].copy_from_slice(&FRAME_MAGIC);
        frame[4..8].copy_from_slice(&((size - FRAME_HEADER_SIZE) as u32).to_le_bytes());
        frame[8..12].copy_from_slice(&(self.body.len() as u32).to_le_bytes());
        frame[12] = self.kind as u8;
        frame[13] = flags;
        frame[14..16].copy_from_slice(&self.record_count.to_le_bytes());
        frame[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        frame[24..28].copy_from_slice(&self.synced.to_le_bytes());
        let crc = frame_crc(frame);
        frame[28..32].copy_from_slice(&crc.to_le_bytes());
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, body: &[u8]) -> Vec<u8> {
        let address = (kind == FrameKind::Chunk).then(|| ChunkAddress::of(body));
        let mut out = Vec::new();
        NewFrame { kind, record_count: 3, sequence: 1 << 40, synced: 77, address, body, commits: &[] }.encode(&mut out);
        out
    }

    #[test]
    fn a_frame_comes_back_compressed_or_not() {
        for (kind, body) in [(FrameKind::Log, vec![1; 5000]), (FrameKind::Chunk, (0..200).collect()), (FrameKind::Footer, vec![])] {
            let bytes = frame(kind, &body);
            let header = FrameHeader::decode(&bytes).unwrap();
            assert_eq!((header.kind, header.record_count, header.sequence, header.synced), (kind, 3, 1 << 40, 77));
            assert_eq!(header.compressed, body.len() == 5000);
            assert!(header.verify(&bytes));
            assert_eq!(header.body(&bytes[FRAME_HEADER_SIZE..]).unwrap(), body);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = frame(FrameKind::Chunk, b"some chunk");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let noticed = FrameHeader::decode(&flipped).is_none_or(|h| !h.verify(&flipped));
            assert!(noticed, "bit {bit}");
        }
    }
}
