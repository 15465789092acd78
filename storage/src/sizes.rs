//! Where the bytes of a data directory are, by kind: for benchmarks, and for whoever wonders what fills a disk.

use std::path::Path;

use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::journal::{FRAME_HEADER_SIZE, FrameKind, SEGMENT_HEADER_SIZE, scan, segment_files};
use crate::store::{JOURNAL_FOLDER, ROW_INDEX_FOLDER, STORE_FOLDER};

/// What one kind of stored bytes takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindSize {
    pub kind: &'static str,
    /// Things of this kind: records, chunks, files.
    pub count: u64,
    /// Bytes on disk.
    pub size: u64,
}

/// The bytes of a data directory by kind, all of them together being what its files take. Reads the whole journal, takes no lock:
/// of a store that is being written it tells what it meets.
/// # Errors
/// `Io`.
pub fn sizes(path: &Path) -> Result<Vec<KindSize>> {
    let folder = path.join(STORE_FOLDER);
    let mut sizes: Vec<KindSize> = Vec::new();
    let mut add = |kind, count, size| match sizes.iter_mut().find(|found| found.kind == kind) {
        Some(found) => {
            found.count += count;
            found.size += size;
        }
        None => sizes.push(KindSize { kind, count, size }),
    };
    let mut next_sequence = 0;
    let journal = folder.join(JOURNAL_FOLDER);
    for (_, bytes) in segment_files(&RealDisk, &journal)? {
        let bytes = bytes()?;
        let mut in_frames = 0;
        let _ = scan(&bytes, &mut next_sequence, |_, header, payload| {
            let size = header.frame_size() as u64;
            in_frames += size;
            match header.kind {
                FrameKind::Log => add("records", u64::from(header.record_count), size),
                FrameKind::Chunk => {
                    add("chunks: frames and addresses", 1, (FRAME_HEADER_SIZE + 32) as u64);
                    add("chunks: contents", 1, (payload.len() - 32) as u64);
                }
                FrameKind::Footer | FrameKind::Seal => add("ends of segments", 1, size),
            }
            Ok::<(), std::convert::Infallible>(())
        });
        add("heads of segments, unused space", 1, (bytes.len() as u64).saturating_sub(in_frames).max(SEGMENT_HEADER_SIZE as u64));
    }
    for (kind, folder, suffix) in [
        ("indexes of segments", &journal, ".idx"),
        ("commits of segments", &journal, ".commits"),
        ("row index", &folder.join(ROW_INDEX_FOLDER), ".run"),
        ("derived facts", &folder.join("derived"), ""),
    ] {
        for name in RealDisk.list(folder).unwrap_or_default().into_iter().filter(|name| name.ends_with(suffix)) {
            let path = folder.join(name);
            let metadata = std::fs::metadata(&path).map_err(|source| Error::Io { action: "read", path, source })?;
            if metadata.is_file() {
                add(kind, 1, metadata.len());
            }
        }
    }
    Ok(sizes)
}
