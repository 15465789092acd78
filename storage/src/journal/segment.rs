//! Segments: the files of the journal, `00000001.seg` and up, and how one is read at opening.
//!
//! A segment is a header, frames, and, once it is sealed, a seal and a trailer. Only the last segment may be unsealed, and
//! only its end, beyond what was durable, may be torn. The index of a sealed segment is a file of its own,
//! [`super::segment_index`].
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
//! | 0 | 8 | offset of the seal's frame |
//! | 8 | 4 | magic `SEND` |
//! | 12 | 4 | CRC32C of bytes 0 to 11 |
//!
//! The seal's body is the sequence number after the last record (8 bytes) and the BLAKE3 hash of the headers of all frames
//! before it, each of which has the checksum of its frame. Segments of format 1 have a footer instead, which is passed over.

use std::path::{Path, PathBuf};

use super::frame::{FRAME_HEADER_SIZE, FRAME_MAGIC, FrameHeader, FrameKind};
use crate::checked_file::Subject;
use crate::disk::DiskFile;
use crate::encoding::{ByteReader, Decoded, Malformed};
use crate::id::ChunkAddress;

pub(crate) const SEGMENT_HEADER_SIZE: usize = 32;
pub(crate) const TRAILER_SIZE: usize = 16;
pub(crate) const FORMAT_VERSION: u32 = 2;
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

pub(crate) fn encode_trailer(seal_at: u64) -> [u8; TRAILER_SIZE] {
    let mut trailer = [0; TRAILER_SIZE];
    trailer[..8].copy_from_slice(&seal_at.to_le_bytes());
    trailer[8..12].copy_from_slice(&TRAILER_MAGIC);
    let crc = crc32c::crc32c(&trailer[..12]);
    trailer[12..].copy_from_slice(&crc.to_le_bytes());
    trailer
}

/// The offset of the seal's frame, when these last bytes of a segment are a trailer.
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

/// What a segment holds, as its frames say.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub log_frames: Vec<LogFrameAt>,
    pub chunks: Vec<(ChunkAddress, ChunkAt)>,
}

/// The hash of the frames of a segment, which its seal has.
#[derive(Clone, Debug, Default)]
pub(crate) struct FramesHash(blake3::Hasher);

impl FramesHash {
    /// Adds the next frame.
    pub fn add(&mut self, frame: &[u8]) {
        self.0.update(&frame[..FRAME_HEADER_SIZE]);
    }

    /// The seal's body.
    pub fn seal(&self, next_sequence: u64) -> [u8; SEAL_SIZE] {
        let mut seal = [0; SEAL_SIZE];
        seal[..8].copy_from_slice(&next_sequence.to_le_bytes());
        seal[8..].copy_from_slice(self.0.finalize().as_bytes());
        seal
    }
}

const SEAL_SIZE: usize = 40;
/// Of a segment's end, how much tells it from others: more than seal and trailer.
const SUBJECT_END_SIZE: usize = 256;

/// What tells a sealed segment from any other, for the files that are derived from it: a hash of its header, its end with the
/// seal, and its size.
pub(crate) fn subject_of(file: &dyn DiskFile) -> std::io::Result<Subject> {
    let size = file.size()?;
    let mut bytes = [0; SEGMENT_HEADER_SIZE + SUBJECT_END_SIZE];
    let end_size = size.min(SUBJECT_END_SIZE as u64);
    file.read_at(&mut bytes[..SEGMENT_HEADER_SIZE], 0)?;
    file.read_at(&mut bytes[SEGMENT_HEADER_SIZE..][..end_size as usize], size - end_size)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes).update(&size.to_le_bytes());
    Ok(*hasher.finalize().as_bytes())
}

/// How the reading of a segment from its beginning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanEnd {
    /// After the last frame of an unsealed segment.
    Unsealed { offset: u64 },
    /// With a seal and a trailer.
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
    let mut hash = FramesHash::default();
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
        if matches!(header.kind, FrameKind::Footer | FrameKind::Seal) {
            if decode_trailer(&bytes[at..]) != Some(offset) {
                return Ok(ScanEnd::Bad { offset, what: "seal without its trailer" });
            }
            if header.kind == FrameKind::Seal && frame[FRAME_HEADER_SIZE..] != hash.seal(*next_sequence) {
                return Ok(ScanEnd::Bad { offset, what: "seal does not fit what it seals" });
            }
            return Ok(ScanEnd::Sealed);
        }
        hash.add(frame);
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

/// A sealed segment as format 1 had it: a footer, with whatever is in it, in the place of the seal.
#[cfg(test)]
pub(crate) fn as_format_1(segment: &[u8]) -> Vec<u8> {
    let mut bytes = segment.to_vec();
    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let trailer_at = bytes.len() - TRAILER_SIZE;
    if let Some(seal_at) = decode_trailer(&bytes[trailer_at..]) {
        let sequence = FrameHeader::decode(&bytes[seal_at as usize..]).unwrap().sequence;
        bytes.truncate(seal_at as usize);
        let body = vec![7; 3000];
        super::frame::NewFrame { kind: FrameKind::Footer, record_count: 0, sequence, synced: 0, address: None, body: &body, commits: &[] }
            .encode(&mut bytes);
        bytes.extend_from_slice(&encode_trailer(seal_at));
    }
    bytes
}

/// Reads a whole file.
pub(crate) fn read_all(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.size()? as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::frame::NewFrame;
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
    fn a_seal_notices_another_frame_that_is_right_in_itself() {
        let frame = |kind, sequence, body: &[u8]| {
            let mut out = Vec::new();
            NewFrame { kind, record_count: 0, sequence, synced: 0, address: None, body, commits: &[] }.encode(&mut out);
            out
        };
        let ends = |frames: [&[u8]; 2], seal: &[u8]| {
            let mut bytes = encode_header(1, 5).to_vec();
            bytes.extend(frames.concat());
            let seal_at = bytes.len() as u64;
            bytes.extend(seal);
            bytes.extend_from_slice(&encode_trailer(seal_at));
            scan(&bytes, &mut 5, |_, _, _| Ok::<(), ()>(())).unwrap()
        };
        let [a, b, c] = [b"a", b"b", b"c"].map(|body| frame(FrameKind::Log, 5, body));
        let mut hash = FramesHash::default();
        hash.add(&a);
        hash.add(&b);
        let seal = frame(FrameKind::Seal, 5, &hash.seal(5));
        assert_eq!(ends([&a, &b], &seal), ScanEnd::Sealed);
        for frames in [[&a, &c], [&b, &a], [&c, &b]] {
            assert!(matches!(
                ends(frames.map(|frame| frame.as_slice()), &seal),
                ScanEnd::Bad { what: "seal does not fit what it seals", .. }
            ));
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
