//! Reading a journal for what is whole in it, past all damage.

use crate::disk::Disk;
use crate::error::Result;
use crate::id::ChunkAddress;
use crate::journal::{FRAME_MAGIC, FrameHeader, FrameKind, LogFrame, SEGMENT_HEADER_SIZE, marked_durable, segment_files};
use crate::record::Record;

/// What is whole.
pub(super) enum Salvaged {
    Chunk(ChunkAddress, Vec<u8>),
    /// A record with its number; where it was not readable, nothing.
    Record(u64, Option<Record>),
}

/// Something that is not.
pub(super) struct Damaged {
    pub place: String,
    pub what: String,
}

/// Reads all segments in order and passes on what is whole. Records are passed on in the order of their numbers, each at most once; those
/// that are missing are not.
/// # Errors
/// `Io`, and those of `take`.
pub(super) fn read(
    disk: &dyn Disk,
    folder: &std::path::Path,
    damaged: &mut dyn FnMut(Damaged),
    take: &mut dyn FnMut(Salvaged) -> Result<()>,
) -> Result<()> {
    let mut next_sequence = 0;
    let durable = marked_durable(disk, folder)?;
    let mut durable_end = 0;
    for (path, bytes) in segment_files(disk, folder)? {
        let bytes = bytes()?;
        let mut at = SEGMENT_HEADER_SIZE.min(bytes.len());
        let mut bad_since = None;
        let mut end = at;
        while at < bytes.len() {
            let place = |offset: usize| format!("{} at offset {offset}", path.display());
            let header = FrameHeader::decode(&bytes[at..]);
            let frame = header.and_then(|header| bytes.get(at..at + header.frame_size()).filter(|frame| header.verify(frame)));
            let (Some(header), Some(frame)) = (header, frame) else {
                bad_since.get_or_insert(at);
                at = next_frame(&bytes, at, header);
                continue;
            };
            if let Some(from) = bad_since.take() {
                damaged(Damaged { place: place(from), what: format!("{} bytes that are no frame", at - from) });
            }
            let payload = &frame[crate::journal::FRAME_HEADER_SIZE..];
            match (header.kind, header.body(payload)) {
                (_, Err(error)) => damaged(Damaged { place: place(at), what: error.0.into() }),
                (FrameKind::Chunk, Ok(body)) => {
                    let address = ChunkAddress::of(&body);
                    if payload[..32] == address.0 {
                        take(Salvaged::Chunk(address, body))?;
                    } else {
                        damaged(Damaged { place: place(at), what: "chunk does not hash to its address".into() });
                    }
                }
                (FrameKind::Log, Ok(body)) => match LogFrame::decode(header.sequence, header.record_count, body) {
                    Err(error) => damaged(Damaged { place: place(at), what: error.0.into() }),
                    Ok(frame) => {
                        for (sequence, bytes) in frame.iter().filter(|(sequence, _)| *sequence >= next_sequence) {
                            let record = match Record::decode(&bytes) {
                                Ok(record) => Some(record),
                                Err(error) => {
                                    damaged(Damaged { place: place(at), what: format!("record {sequence}: {}", error.0) });
                                    None
                                }
                            };
                            take(Salvaged::Record(sequence, record))?;
                        }
                        next_sequence = next_sequence.max(header.sequence + u64::from(header.record_count));
                    }
                },
                (FrameKind::Footer | FrameKind::Seal, Ok(_)) => {
                    // Only the trailer follows.
                    at = bytes.len();
                    end = at;
                    continue;
                }
            }
            at += frame.len();
            end = at;
        }
        if durable.as_ref().is_some_and(|(marked, _)| *marked == path) {
            durable_end = end as u64;
        }
        if let Some(from) = bad_since
            && bytes[from..].iter().any(|byte| *byte != 0)
        {
            let place = format!("{} at offset {from}", path.display());
            damaged(Damaged { place, what: format!("{} bytes at the end that are no frame", bytes.len() - from) });
        }
    }
    if let Some((path, size)) = durable.filter(|(_, size)| durable_end < *size) {
        damaged(Damaged { place: path.display().to_string(), what: format!("{size} bytes were durable, and {durable_end} are whole") });
    }
    Ok(())
}

/// Where the next frame begins: after the bad one if its header tells the truth, otherwise where one is found.
fn next_frame(bytes: &[u8], at: usize, bad: Option<FrameHeader>) -> usize {
    let is_frame = |at: usize| {
        let Some(header) = bytes.get(at..).and_then(FrameHeader::decode) else { return false };
        bytes.get(at..at + header.frame_size()).is_some_and(|frame| header.verify(frame))
    };
    if let Some(after) = bad.map(|header| at + header.frame_size()).filter(|after| is_frame(*after)) {
        return after;
    }
    let mut next = at + 1;
    while let Some(found) = bytes.get(next..).and_then(|rest| rest.windows(4).position(|window| window == FRAME_MAGIC)) {
        next += found;
        if is_frame(next) {
            return next;
        }
        next += 1;
    }
    bytes.len()
}
