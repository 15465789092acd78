//! Segments: the files of the journal, `00000001.seg` and up, and how one is read at opening.
//!
//! A segment is a header, frames, and, once it is sealed, a footer frame and a trailer. Only the last segment may be
//! unsealed, and only its end, beyond what was durable, may be torn.
//!
//! | offset | size | header field |
//! |---|---|---|
//! | 0 | 8 | magic `STRANDJ1` |
//! | 8 | 4 | format version |
//! | 12 | 4 | number of the segment |
//! | 16 | 8 | sequence number of its first record |
//! | 24 | 4 | zero |
//! | 28 | 4 | CRC32C of bytes 0 to 27 |
//!
//! | offset | size | trailer field, at the end of a sealed segment |
//! |---|---|---|
//! | 0 | 8 | offset of the footer frame |
//! | 8 | 4 | magic `SEND` |
//! | 12 | 4 | CRC32C of bytes 0 to 11 |

use std::path::{Path, PathBuf};

use super::frame::{FRAME_HEADER_SIZE, FRAME_MAGIC, FrameHeader, FrameKind};
use crate::disk::DiskFile;
use crate::encoding::{ByteReader, Decoded, Malformed, put_bytes, put_varint};
use crate::id::ChunkAddress;

pub(crate) const SEGMENT_HEADER_SIZE: usize = 32;
pub(crate) const TRAILER_SIZE: usize = 16;
pub(crate) const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"STRANDJ1";
const TRAILER_MAGIC: [u8; 4] = *b"SEND";

pub(crate) fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:08}.seg"))
}

/// The number in a segment's file name.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    if digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok().filter(|n| *n > 0) } else { None }
}

pub(crate) fn encode_header(number: u32, first_sequence: u64) -> [u8; SEGMENT_HEADER_SIZE] {
    let mut header = [0; SEGMENT_HEADER_SIZE];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&number.to_le_bytes());
    header[16..24].copy_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Checks a segment's header and returns (format version, sequence number of its first record).
pub(crate) fn decode_header(bytes: &[u8], number: u32) -> Decoded<(u32, u64)> {
    let mut reader = ByteReader::new(bytes.get(..SEGMENT_HEADER_SIZE).ok_or(Malformed("segment without a header"))?);
    let magic: [u8; 8] = reader.array()?;
    let version = u32::from_le_bytes(reader.array()?);
    let found = u32::from_le_bytes(reader.array()?);
    let sequence = u64::from_le_bytes(reader.array()?);
    reader.take(4)?;
    let crc = u32::from_le_bytes(reader.array()?);
    if magic != MAGIC || crc != crc32c::crc32c(&bytes[..28]) {
        return Err(Malformed("segment header is damaged"));
    }
    if found != number {
        return Err(Malformed("segment under another number"));
    }
    Ok((version, sequence))
}

pub(crate) fn encode_trailer(footer_at: u64) -> [u8; TRAILER_SIZE] {
    let mut trailer = [0; TRAILER_SIZE];
    trailer[..8].copy_from_slice(&footer_at.to_le_bytes());
    trailer[8..12].copy_from_slice(&TRAILER_MAGIC);
    let crc = crc32c::crc32c(&trailer[..12]);
    trailer[12..].copy_from_slice(&crc.to_le_bytes());
    trailer
}

/// The offset of the footer frame, when these last bytes of a segment are a trailer.
pub(crate) fn decode_trailer(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; TRAILER_SIZE] = bytes.try_into().ok()?;
    let crc = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    if bytes[8..12] != TRAILER_MAGIC || crc != crc32c::crc32c(&bytes[..12]) {
        return None;
    }
    Some(u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]))
}

/// Where a log frame is and which records it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogFrameAt {
    pub sequence: u64,
    pub offset: u32,
    pub record_count: u16,
}

/// Where a chunk's frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkAt {
    pub offset: u32,
    /// The whole frame's.
    pub size: u32,
}

/// What a segment holds: kept by the writer of an unsealed one, in the footer of a sealed one.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub log_frames: Vec<LogFrameAt>,
    pub chunks: Vec<(ChunkAddress, ChunkAt)>,
    /// What the store wants to find again at opening; see `recovery.rs`.
    pub summary: Vec<u8>,
    /// The sequence number after the last record.
    pub next_sequence: u64,
}

impl Contents {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.chunks.len() * 40 + self.summary.len() + self.log_frames.len() * 6 + 32);
        put_varint(&mut out, self.next_sequence);
        put_varint(&mut out, self.log_frames.len() as u64);
        for frame in &self.log_frames {
            put_varint(&mut out, frame.sequence);
            put_varint(&mut out, u64::from(frame.offset));
            put_varint(&mut out, u64::from(frame.record_count));
        }
        put_varint(&mut out, self.chunks.len() as u64);
        for (address, at) in &self.chunks {
            out.extend_from_slice(&address.0);
            put_varint(&mut out, u64::from(at.offset));
            put_varint(&mut out, u64::from(at.size));
        }
        put_bytes(&mut out, &self.summary);
        out
    }

    pub fn decode(bytes: &[u8]) -> Decoded<Contents> {
        let mut reader = ByteReader::new(bytes);
        let mut contents = Contents { next_sequence: reader.varint()?, ..Contents::default() };
        for _ in 0..reader.count()? {
            let sequence = reader.varint()?;
            let offset = reader.varint_u32()?;
            let record_count = u16::try_from(reader.varint()?).map_err(|_| Malformed("too many records"))?;
            contents.log_frames.push(LogFrameAt { sequence, offset, record_count });
        }
        for _ in 0..reader.count()? {
            let address = ChunkAddress(reader.array()?);
            let at = ChunkAt { offset: reader.varint_u32()?, size: reader.varint_u32()? };
            contents.chunks.push((address, at));
        }
        contents.summary = reader.bytes()?.to_vec();
        reader.finish()?;
        Ok(contents)
    }
}

impl Contents {
    /// What the footer of a whole, sealed segment says.
    pub fn of_sealed(bytes: &[u8]) -> Option<Contents> {
        let trailer_at = bytes.len().checked_sub(TRAILER_SIZE)?;
        let footer_at = usize::try_from(decode_trailer(&bytes[trailer_at..])?).ok()?;
        let frame = bytes.get(footer_at..trailer_at)?;
        let header = FrameHeader::decode(frame).filter(|h| h.kind == FrameKind::Footer && h.verify(frame))?;
        header.body(&frame[FRAME_HEADER_SIZE..]).and_then(|body| Contents::decode(&body)).ok()
    }
}

/// How the reading of a segment from its beginning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanEnd {
    /// After the last frame of an unsealed segment.
    Unsealed { offset: u64 },
    /// With a footer and a trailer.
    Sealed,
    /// At something that is no frame.
    Bad { offset: u64, what: &'static str },
}

/// Reads a segment's frames one by one; calls `visit` with each frame's offset, header and payload.
/// `next_sequence` is checked against each frame and moved on.
pub(crate) fn scan<E>(
    bytes: &[u8],
    next_sequence: &mut u64,
    mut visit: impl FnMut(u64, &FrameHeader, &[u8]) -> Result<(), E>,
) -> Result<ScanEnd, E> {
    let mut at = SEGMENT_HEADER_SIZE;
    loop {
        let rest = &bytes[at.min(bytes.len())..];
        let offset = at as u64;
        // Space that was set aside and never written.
        if rest.iter().all(|b| *b == 0) {
            return Ok(ScanEnd::Unsealed { offset });
        }
        let Some(header) = FrameHeader::decode(rest) else {
            return Ok(ScanEnd::Bad { offset, what: "not a frame" });
        };
        let Some(frame) = rest.get(..header.frame_size()) else {
            return Ok(ScanEnd::Bad { offset, what: "frame ends early" });
        };
        if !header.verify(frame) {
            return Ok(ScanEnd::Bad { offset, what: "frame fails its checksum" });
        }
        if header.sequence != *next_sequence {
            return Ok(ScanEnd::Bad { offset, what: "frame out of sequence" });
        }
        *next_sequence += u64::from(header.record_count);
        at += frame.len();
        if header.kind == FrameKind::Footer {
            let trailer = &bytes[at..];
            return Ok(match decode_trailer(trailer) {
                Some(footer_at) if footer_at == offset => ScanEnd::Sealed,
                _ => ScanEnd::Bad { offset, what: "footer without its trailer" },
            });
        }
        visit(offset, &header, &frame[FRAME_HEADER_SIZE..])?;
    }
}

/// How much of a segment was durable, as far as frames after `from` know. Such a frame proves that what lies before
/// that offset was once complete, so that damage there is not a torn write.
pub(crate) fn synced_after(bytes: &[u8], from: u64) -> u64 {
    let mut synced = 0;
    let mut at = from as usize + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|w| w == FRAME_MAGIC)) {
        at += found;
        match FrameHeader::decode(&bytes[at..]) {
            Some(header) if bytes.get(at..at + header.frame_size()).is_some_and(|frame| header.verify(frame)) => {
                synced = synced.max(u64::from(header.synced));
                at += header.frame_size();
            }
            _ => at += 1,
        }
    }
    synced
}

/// Reads a whole file.
pub(crate) fn read_all(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.size()? as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_segments_belong_together() {
        assert_eq!(segment_path(Path::new("/d"), 7), PathBuf::from("/d/00000007.seg"));
        assert_eq!(segment_number("00000007.seg"), Some(7));
        for name in ["0000007.seg", "00000000.seg", "00000007.tmp", "x0000007.seg"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }

    #[test]
    fn a_footer_comes_back_as_it_was() {
        let contents = Contents {
            log_frames: vec![LogFrameAt { sequence: 9, offset: 32, record_count: 2 }],
            chunks: vec![(ChunkAddress([3; 32]), ChunkAt { offset: 100, size: 50 })],
            summary: b"summary".to_vec(),
            next_sequence: 11,
        };
        let bytes = contents.encode();
        let decoded = Contents::decode(&bytes).unwrap();
        assert_eq!((decoded.log_frames, decoded.chunks), (contents.log_frames, contents.chunks));
        assert_eq!((decoded.summary, decoded.next_sequence), (contents.summary, 11));
        for size in 0..bytes.len() {
            assert!(Contents::decode(&bytes[..size]).is_err());
        }
    }

    #[test]
    fn headers_and_trailers_notice_flipped_bits() {
        let header = encode_header(3, 55);
        assert_eq!(decode_header(&header, 3), Ok((FORMAT_VERSION, 55)));
        assert!(decode_header(&header, 4).is_err());
        let trailer = encode_trailer(1234);
        assert_eq!(decode_trailer(&trailer), Some(1234));
        for bit in 0..SEGMENT_HEADER_SIZE * 8 {
            let mut bytes = header;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_header(&bytes, 3).is_err());
        }
        for bit in 0..TRAILER_SIZE * 8 {
            let mut bytes = trailer;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_trailer(&bytes), None);
        }
    }
}
