use super::*;

fn all() -> Vec<Record> {
    let id = CommitId([5; 32]);
    let address = ChunkAddress([6; 32]);
    let tag = TagRecord {
        database: 1,
        name: "t".into(),
        commit: id,
        tagger_name: "n".into(),
        tagger_email: "e".into(),
        time: Timestamp(-5),
        message: "m".into(),
    };
    let branch = BranchCheckpoint {
        branch: 2,
        database: 1,
        name: "main".into(),
        head: Some(id),
        head_root: address,
        staged: RootSpec::Head,
        working: RootSpec::Written(address),
        conflicts: vec![(16384, "(id)=(1)".into(), id)],
        applied: Lsn(1 << 40),
        sequence: 99,
    };
    let checkpoint = Checkpoint {
        sequence: 98,
        next_number: 7,
        oid_limit: 20000,
        databases: vec![(1, "postgres".into())],
        branches: vec![branch],
        tags: vec![tag.clone()],
        state: vec![("k".into(), vec![1, 2])],
        cost: 1 << 40,
        kept: KeptRoots::These(vec![KeptRoot { commit: id, address, cost: 3 }, KeptRoot { commit: id, address, cost: 0 }]),
    };
    let later = Checkpoint { kept: KeptRoots::OfRecord(1 << 33), ..checkpoint.clone() };
    vec![
        Record::DatabaseCreated { database: 1, name: "d".into() },
        Record::DatabaseDropped { database: 300 },
        Record::BranchCreated { database: 1, branch: 2, name: "main".into(), head: None },
        Record::BranchCreated { database: 1, branch: 2, name: "main".into(), head: Some(id) },
        Record::BranchRenamed { branch: 2, name: "x".into() },
        Record::BranchDeleted { branch: 2 },
        Record::Commit { branch: 2, mode: CommitMode::Staged, commit: Bytes::from_static(b"commit") },
        Record::HeadMoved { branch: 2, head: id, hard: true },
        Record::Working { branch: 2, applied: Lsn(0), changes: StoredChangeSet::Inline(Bytes::from_static(b"changes")) },
        Record::Working { branch: 2, applied: Lsn(7 << 32), changes: StoredChangeSet::Chunks(vec![address, address]) },
        Record::Roots { branch: 2, staged: RootSpec::Unchanged, working: RootSpec::Staged },
        Record::TagPut(tag),
        Record::TagDeleted { database: 1, name: "t".into() },
        Record::State { key: "k".into(), value: Some(vec![]) },
        Record::State { key: "k".into(), value: None },
        Record::Oids { limit: 4_000_000_000 },
        Record::Checkpoint(Box::new(checkpoint)),
        Record::Checkpoint(Box::new(later)),
        Record::Checkpoint(Box::default()),
    ]
}

#[test]
fn every_record_comes_back_as_it_was() {
    for record in all() {
        assert_eq!(Record::decode(&record.encode().into()), Ok(record));
    }
}

#[test]
fn a_checkpoint_of_a_version_that_removed_nothing_keeps_everything() {
    let checkpoint = Checkpoint { next_number: 3, ..Checkpoint::default() };
    let record = Record::Checkpoint(Box::new(checkpoint));
    let mut bytes = record.encode();
    // The cost and what is kept are two bytes then.
    bytes.truncate(bytes.len() - 2);
    assert_eq!(Record::decode(&bytes.into()), Ok(record));
}

#[test]
fn records_cut_short_or_flipped_never_panic() {
    for record in all() {
        let bytes = record.encode();
        for size in 0..bytes.len() {
            let _ = Record::decode(&Bytes::copy_from_slice(&bytes[..size]));
        }
        for i in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[i] ^= 0xff;
            let _ = Record::decode(&flipped.into());
        }
    }
}
