//! What a power loss leaves of a simulated disk.
//!
//! Everything that was synced stays. Of each change since then any part may be there: nothing, all of it, or, of a write,
//! some of its sectors. A write that makes a file longer may leave the longer file without its bytes: zeros, now and then
//! what the blocks held before. Sectors that were durable change as a whole or not at all, as disks promise.
//! Names in folders come and go one by one.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::content::{Content, FileChange, FileContent, FolderContent, NodeContent, write};

/// Which of the changes since the last sync are there.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Nothing,
    Everything,
    /// Those before this number; of the one with the number a part.
    Until(u64),
    /// Each by itself with this probability in percent; a third of the others are torn.
    Some(u32),
}

impl Kept {
    fn choose(random: &mut StdRng, changes: &[u64]) -> Kept {
        match random.random_range(0..6) {
            0 => Kept::Nothing,
            1 => Kept::Everything,
            2 | 3 => Kept::Until(changes.choose(random).copied().unwrap_or(0)),
            _ => Kept::Some(*[10, 50, 90].choose(random).expect("a choice")),
        }
    }

    fn part(self, random: &mut StdRng, number: u64) -> Part {
        match self {
            Kept::Nothing => Part::Nothing,
            Kept::Everything => Part::All,
            Kept::Until(last) if number == last => Part::Torn,
            Kept::Until(last) if number < last => Part::All,
            Kept::Until(_) => Part::Nothing,
            Kept::Some(percent) if random.random_ratio(percent, 100) => Part::All,
            Kept::Some(_) if random.random_ratio(1, 3) => Part::Torn,
            Kept::Some(_) => Part::Nothing,
        }
    }
}

enum Part {
    Nothing,
    All,
    Torn,
}

impl Content {
    /// One of the states in which a power loss may leave the disk.
    pub fn after_power_loss(&self, random: &mut StdRng) -> Content {
        let mut changes: Vec<u64> = Vec::new();
        for node in &self.nodes {
            match node {
                NodeContent::File(file) => changes.extend(file.pending.iter().map(|(number, _)| number)),
                NodeContent::Folder(folder) => changes.extend(folder.pending.iter().map(|(number, _)| number)),
            }
        }
        changes.sort_unstable();
        let sector_size = if random.random() { 512 } else { 4096 };
        // One order for the whole disk, or each file by itself.
        let of_all = random.random_bool(0.5).then(|| Kept::choose(random, &changes));
        let mut image = self.clone();
        for node in &mut image.nodes {
            let kept = of_all.unwrap_or_else(|| Kept::choose(random, &changes));
            match node {
                NodeContent::File(file) => *file = torn_file(file, kept, sector_size, random),
                NodeContent::Folder(folder) => *folder = torn_folder(folder, kept, random),
            }
        }
        image
    }

    /// What stays where nothing was written that was not synced.
    pub fn without_unsynced(&self) -> Content {
        let mut image = self.clone();
        for node in &mut image.nodes {
            match node {
                NodeContent::File(file) => *file = FileContent::settled(file.durable.clone()),
                NodeContent::Folder(folder) => *folder = FolderContent::settled(folder.durable.clone()),
            }
        }
        image
    }

    /// What is there when everything reaches the disk.
    pub fn settled(&self) -> Content {
        let mut image = self.clone();
        for node in &mut image.nodes {
            match node {
                NodeContent::File(file) => *file = FileContent::settled(file.now.clone()),
                NodeContent::Folder(folder) => *folder = FolderContent::settled(folder.now.clone()),
            }
        }
        image
    }
}

impl FileContent {
    pub fn settled(bytes: Vec<u8>) -> FileContent {
        FileContent { now: bytes.clone(), durable: bytes, pending: Vec::new() }
    }
}

impl FolderContent {
    fn settled(names: std::collections::BTreeMap<String, usize>) -> FolderContent {
        FolderContent { now: names.clone(), durable: names, pending: Vec::new() }
    }
}

fn torn_folder(folder: &FolderContent, kept: Kept, random: &mut StdRng) -> FolderContent {
    let mut names = folder.durable.clone();
    for (number, change) in &folder.pending {
        match kept.part(random, *number) {
            Part::All => change.apply(&mut names),
            // A name is there or not.
            Part::Torn if random.random() => change.apply(&mut names),
            Part::Torn | Part::Nothing => {}
        }
    }
    FolderContent::settled(names)
}

fn torn_file(file: &FileContent, kept: Kept, sector_size: u64, random: &mut StdRng) -> FileContent {
    let mut bytes = file.durable.clone();
    // Only where nothing durable is can anything but old or new be found.
    let durable_size = file.durable.len() as u64;
    let mut size_max = durable_size;
    for (number, change) in &file.pending {
        if let FileChange::Write { offset, bytes: written } = change {
            size_max = size_max.max(offset + written.len() as u64);
        }
        match (kept.part(random, *number), change) {
            (Part::All, change) => change.apply(&mut bytes),
            (Part::Torn, FileChange::Write { offset, bytes: written }) => {
                tear(&mut bytes, *offset, written, durable_size, sector_size, random);
            }
            (Part::Torn | Part::Nothing, _) => {}
        }
    }
    if random.random_ratio(1, 4) && size_max > bytes.len() as u64 {
        // The size reached the disk and the bytes did not.
        let size = if random.random() { size_max } else { random.random_range(bytes.len() as u64..=size_max) };
        let garbage = random.random_ratio(1, 4);
        let from = bytes.len();
        bytes.resize(size as usize, 0);
        if garbage {
            random.fill(&mut bytes[from..]);
        }
    }
    FileContent::settled(bytes)
}

/// Writes some sectors of a write.
fn tear(bytes: &mut Vec<u8>, offset: u64, written: &[u8], durable_size: u64, sector_size: u64, random: &mut StdRng) {
    let end = offset + written.len() as u64;
    let in_order = random.random_ratio(1, 2);
    let sectors: Vec<u64> = (offset / sector_size..end.div_ceil(sector_size)).collect();
    let last = sectors.choose(random).copied().unwrap_or(0);
    for sector in sectors {
        let from = offset.max(sector * sector_size);
        let to = end.min((sector + 1) * sector_size);
        let part = &written[(from - offset) as usize..(to - offset) as usize];
        let kept = if in_order { sector < last } else { random.random() };
        if kept {
            write(bytes, from, part);
        } else if sector == last && from >= durable_size {
            // A part of a sector in a place that was never durable, the rest of it zeros or anything.
            let mut part = part.to_vec();
            let at = random.random_range(0..=part.len());
            if random.random() {
                part[at..].fill(0)
            } else {
                random.fill(&mut part[at..])
            }
            write(bytes, from, &part);
        }
    }
}
