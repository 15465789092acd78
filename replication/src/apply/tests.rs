//! What the applier makes of messages at moments that a real primary does not choose on demand.

use std::path::Path;
use std::sync::mpsc;

use strandline_storage::store::StoreOptions;

use super::*;
use crate::apply::Joining;
use crate::client::{CONNECT_TIMEOUT_DEFAULT, ConnectionConfig, Place, Places, Streaming, TlsOptions};
use crate::config::{CreateTables, InitialCopy};
use crate::conflict::ConflictPolicies;
use crate::watch::WatchConfig;

const START: Lsn = Lsn(100);

fn config(folder: &Path) -> Config {
    Config {
        connection: ConnectionConfig {
            places: Places::one(Place::new("127.0.0.1", 1, None)),
            user: "postgres".into(),
            database: "postgres".into(),
            application_name: "test".into(),
            tls: TlsOptions::default(),
            options: None,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
        },
        slot_name: "slot".into(),
        publication_names: vec!["publication".into()],
        replica_database: "postgres".into(),
        branch: "main".into(),
        initial_copy: InitialCopy::Never,
        create_tables: CreateTables::Never,
        copy_workers: 1,
        cfg_dir: folder.join("cfg"),
        commit_mode: CommitMode::EachTransaction,
        conflicts: ConflictPolicies::default(),
        streaming: Streaming::On,
        stream_memory_max: 1 << 20,
        spool_folder: folder.join("spool"),
        two_phase: false,
        prepared_folder: folder.join("prepared"),
        watch: WatchConfig { interval: None, retained_max: 0 },
        subscription: None,
        expressions: None,
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&b"d"[..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn data(lsn: u64, payload: &[u8]) -> Vec<u8> {
    frame(&[&b"w"[..], &lsn.to_be_bytes(), &lsn.to_be_bytes(), &[0; 8], payload].concat())
}

fn keepalive(sent: u64) -> Vec<u8> {
    frame(&[&b"k"[..], &sent.to_be_bytes(), &[0; 8], &[1]].concat())
}

/// The position after all of these messages and the end of the connection.
fn position_after(messages: &[Vec<u8>]) -> Lsn {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
    let config = Arc::new(config(folder.path()));
    let who = author(&config);
    let now = Timestamp::now();
    let meta = CommitMeta { author: who.clone(), author_time: now, committer: who, commit_time: now, message: "made".into(), source: None };
    store.create_database("postgres", meta).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let progress = Arc::new(Progress::default());
    progress.start_at(START);
    let context = Arc::new(Context {
        branch: store.branch("postgres", "main").unwrap(),
        records: SourceRecords::new(Arc::clone(&store), "postgres", "main"),
        status: Arc::new(Status::new("slot".into(), Vec::new(), Arc::clone(&progress))),
        store,
        config,
        progress,
        runtime: runtime.handle().clone(),
        joining: Joining::default(),
    });
    context.records.set_position(START, None, &context.branch).unwrap();
    let applier = Applier::new(Arc::clone(&context), START, None).unwrap();
    let (batches, input) = mpsc::channel();
    for message in messages {
        let batch = Batch { bytes: Bytes::copy_from_slice(message), received: Lsn(0), reply_requested: true };
        batches.send(batch).unwrap();
    }
    drop(batches);
    applier.run(&input, &Queue::default()).unwrap();
    let (stored, _) = context.records.position(&context.branch).unwrap();
    assert_eq!(stored, Some(context.progress.applied()));
    context.progress.applied()
}

#[test]
fn a_keepalive_counts_unless_it_comes_within_a_transaction() {
    let begin = |commit_lsn: u64| data(110, &[&b"B"[..], &commit_lsn.to_be_bytes(), &[0; 8], &7u32.to_be_bytes()].concat());
    assert_eq!(position_after(&[keepalive(150)]), Lsn(150));
    // The connection is lost before the commit at 200, which is to be sent again.
    assert_eq!(position_after(&[keepalive(105), begin(200), keepalive(300)]), Lsn(105));
}
