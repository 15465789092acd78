//! How a repaired journal takes the place of a damaged one, which is kept.

use std::path::Path;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::store::{FORMAT_FILE, JOURNAL_FOLDER, ROW_INDEX_FOLDER, find_format, put_format};

/// Says that the repaired journal is complete and being put in the place of the damaged one; holds the number of the repair.
pub const REPAIR_FILE: &str = "REPAIR";

/// Where the journal that a repair found damaged is kept.
pub(super) fn kept_name(number: u32) -> String {
    format!("{JOURNAL_FOLDER}.damaged-{number}")
}

/// Where a repair makes the new journal.
pub(super) fn repaired_name(number: u32) -> String {
    format!("{JOURNAL_FOLDER}.repaired-{number}")
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| Error::Io { action, path, source }
}

/// Notes durably that a repaired journal is complete.
pub(super) fn write_note(disk: &dyn Disk, folder: &Path, number: u32) -> Result<()> {
    let path = folder.join(REPAIR_FILE);
    let file = disk.open(&path, true).map_err(io("create", &path))?;
    file.write_at(format!("{number}\n").as_bytes(), 0).map_err(io("write", &path))?;
    file.sync().map_err(io("sync", &path))?;
    disk.sync_dir(folder).map_err(io("sync", folder))
}

/// Puts a repaired journal in the place of the damaged one, if a note says that it is complete. May be interrupted and run again.
pub(super) fn finish_exchange(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let note = folder.join(REPAIR_FILE);
    let Ok(file) = disk.open_read(&note) else { return Ok(()) };
    let mut bytes = vec![0; file.size().map_err(io("read", &note))?.min(32) as usize];
    file.read_at(&mut bytes, 0).map_err(io("read", &note))?;
    // A note without its number was being written when nothing had been exchanged yet.
    let number = String::from_utf8_lossy(&bytes).strip_suffix('\n').and_then(|text| text.parse::<u32>().ok());
    if let Some(number) = number {
        let is_there = |name: &str| disk.list(&folder.join(name)).is_ok();
        let rename = |from: &str, to: &str| disk.rename(&folder.join(from), &folder.join(to)).map_err(io("rename", &folder.join(from)));
        if is_there(&repaired_name(number)) {
            if is_there(JOURNAL_FOLDER) {
                rename(JOURNAL_FOLDER, &kept_name(number))?;
            }
            rename(&repaired_name(number), JOURNAL_FOLDER)?;
        }
        // It numbers the commits of the old journal. What is made again from the journal needs no copy, but is no hindrance either.
        let row_index = format!("{ROW_INDEX_FOLDER}.damaged-{number}");
        if is_there(ROW_INDEX_FOLDER) && !is_there(&row_index) {
            rename(ROW_INDEX_FOLDER, &row_index)?;
        }
        if find_format(disk, folder).is_err() {
            if disk.open_read(&folder.join(FORMAT_FILE)).is_ok() {
                rename(FORMAT_FILE, &format!("{FORMAT_FILE}.damaged-{number}"))?;
            }
            put_format(disk, folder)?;
        }
        disk.sync_dir(folder).map_err(io("sync", folder))?;
    }
    disk.remove(&note).map_err(io("remove", &note))?;
    disk.sync_dir(folder).map_err(io("sync", folder))
}
