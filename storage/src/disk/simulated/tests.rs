//! The simulated disk loses and tears what it says, and nothing else.

use std::collections::BTreeSet;

use super::*;

fn path(name: &str) -> PathBuf {
    Path::new("/d").join(name)
}

fn made() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    super::super::create_dirs(&disk, Path::new("/d")).unwrap();
    disk
}

#[test]
fn synced_bytes_stay_and_unsynced_ones_come_in_every_combination() {
    let disk = made();
    let file = disk.open(&path("a"), true).unwrap();
    file.write_at(&[1; 600], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(&[2; 512], 1024).unwrap();
    file.write_at(&[3; 512], 1536).unwrap();
    let mut random = random_of(1, 0);
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        let bytes = disk.after_power_loss(&mut random).file("a").unwrap();
        assert!(bytes.len() >= 600 && bytes[..600] == [1; 600]);
        let has = |at: usize, value: u8| bytes.get(at..at + 512).is_some_and(|b| *b == [value; 512]);
        seen.insert((has(1024, 2), has(1536, 3), has(1536, 0), bytes.len() == 600));
    }
    for expected in [(true, true, false, false), (true, false, false, false), (false, true, false, false), (false, false, false, true)] {
        assert!(seen.contains(&expected), "{expected:?} of {seen:?}");
    }
    assert!(seen.iter().any(|s| s.2), "a longer file without its bytes");
    assert_eq!(disk.without_unsynced().file("a").unwrap(), [1; 600]);
    assert_eq!(disk.copy().file("a").unwrap().len(), 2048);
}

#[test]
fn durable_sectors_are_old_or_new() {
    let disk = made();
    let file = disk.open(&path("a"), true).unwrap();
    file.write_at(&[1; 4096], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(&[2; 100], 700).unwrap();
    let mut random = random_of(2, 0);
    let images: BTreeSet<Vec<u8>> = (0..200).map(|_| disk.after_power_loss(&mut random).file("a").unwrap()).collect();
    let new = disk.file("a").unwrap();
    assert_eq!(images, BTreeSet::from([vec![1; 4096], new]));
}

#[test]
fn names_are_durable_when_their_folder_was_synced() {
    let disk = made();
    for name in ["a", "b"] {
        disk.open(&path(name), true).unwrap().sync().unwrap();
    }
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.open(&path("c"), true).unwrap().sync().unwrap();
    disk.remove(&path("a")).unwrap();
    disk.rename(&path("b"), &path("e")).unwrap();
    let mut random = random_of(3, 0);
    let names = |disk: &SimulatedDisk| disk.list(Path::new("/d")).unwrap().concat();
    let seen: BTreeSet<String> = (0..500).map(|_| names(&disk.after_power_loss(&mut random))).collect();
    // c is there or not, a is there or not, b is there or it is e.
    let all: BTreeSet<String> = ["ab", "abc", "ae", "ace", "b", "bc", "e", "ce"].map(String::from).into();
    assert_eq!(seen, all);
    assert_eq!(names(&disk.without_unsynced()), "ab");
}

#[test]
fn a_failed_sync_loses_what_was_to_be_written_though_it_can_still_be_read() {
    let disk = made();
    let file = disk.open(&path("a"), true).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_at(b"lost", 0).unwrap();
    disk.fail_at(0, true);
    let before = (disk.operation_count(), disk.change_count());
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
    file.sync().unwrap();
    assert_eq!((disk.operation_count(), disk.change_count()), (before.0 + 2, before.1 + 2));
    assert_eq!(disk.failed(), Some(Kind::Sync));
    assert_eq!(disk.after_kill().file("a").unwrap(), b"lost");
    assert_eq!(disk.without_unsynced().file("a").unwrap(), b"");
    // Written again, it is there.
    file.write_at(b"lost", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.without_unsynced().file("a").unwrap(), b"lost");
}

#[test]
fn a_full_disk_takes_what_fits_and_overwrites() {
    let disk = made();
    disk.set_capacity(Some(10));
    let file = disk.open(&path("a"), true).unwrap();
    assert_eq!(file.write_at(&[1; 16], 0).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(file.size().unwrap(), 10);
    file.write_at(&[2; 10], 0).unwrap();
    assert_eq!(disk.open(&path("b"), true).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert!(disk.was_full());
    file.set_size(4).unwrap();
    disk.open(&path("b"), true).unwrap();
    disk.flip("a", 9);
    assert_eq!(disk.file("a").unwrap(), [2, 0, 2, 2]);
}

#[test]
fn the_recorded_operations_give_the_disk_again() {
    let disk = made();
    let file = disk.open(&path("a"), true).unwrap();
    file.write_at(b"abc", 2).unwrap();
    disk.rename(&path("a"), &path("b")).unwrap();
    file.set_size(3).unwrap();
    let (mut content, operations) = disk.operations();
    operations.iter().for_each(|operation| content.apply(operation));
    assert_eq!(SimulatedDisk::new(content).file("b").unwrap(), b"\0\0a");
}
