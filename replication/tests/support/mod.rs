//! A replicator in the test's own process, for tests against a real primary.

// Every test binary uses a part of this.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::Arc;

use strandline_replication::client::{CONNECT_TIMEOUT_DEFAULT, ConnectionConfig, Place, Places, Streaming, TlsOptions};
use strandline_replication::{
    CommitMode, Config, ConflictPolicies, CreateTables, Handle, InitialCopy, Replicator, STREAM_MEMORY_MAX_DEFAULT, Snapshot, State,
    WatchConfig,
};
use strandline_storage::root::Root;
use strandline_storage::schema::{Column, Index, IndexColumn, IndexKey, PUBLIC_SCHEMA_OID};
use strandline_storage::store::{Branch, Store, StoreOptions};
use strandline_storage::value::TextSettings;
use strandline_storage::{Commit, CommitMeta, DataType, Error, Identity, Lsn, TableSchema, Timestamp};
use strandline_tests::sample::{Picture, picture};
use strandline_tests::{Db, Primary, primary, wait_until};

pub const SLOT: &str = "strandline";

/// A store with a replicator, restartable.
pub struct Replica {
    pub folder: tempfile::TempDir,
    /// The primary's, or that of what stands in between.
    pub port: u16,
    store: Option<Arc<Store>>,
    handle: Option<Handle>,
    pub adjust: fn(&mut Config),
}

impl Replica {
    pub fn new(primary: &Primary, adjust: fn(&mut Config)) -> Replica {
        let folder = tempfile::tempdir().unwrap();
        let mut replica = Replica { folder, port: primary.port(), store: None, handle: None, adjust };
        replica.open();
        replica.store().create_database("postgres", local_meta("test")).unwrap();
        replica
    }

    pub fn started(primary: &Primary, adjust: fn(&mut Config)) -> Replica {
        let mut replica = Replica::new(primary, adjust);
        replica.start();
        replica
    }

    pub fn open(&mut self) {
        // A child process that another test is just starting may hold the lock's descriptor until it executes its program.
        let mut opened = None;
        wait_until(
            || match Store::open(self.folder.path(), StoreOptions { group_commit_ms_max: 2, ..StoreOptions::default() }) {
                Ok(store) => {
                    opened = Some(store);
                    true
                }
                Err(Error::Locked { .. }) => false,
                Err(error) => panic!("{error}"),
            },
            || "the lock to be free".into(),
        );
        self.store = opened;
    }

    pub fn start(&mut self) {
        let mut config = Config {
            connection: ConnectionConfig {
                places: Places::one(Place::new("127.0.0.1", self.port, Some(primary::PASSWORD.into()))),
                user: "postgres".into(),
                database: "postgres".into(),
                application_name: "strandline".into(),
                tls: TlsOptions::default(),
                options: None,
                connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            },
            slot_name: SLOT.into(),
            publication_names: vec![SLOT.into()],
            replica_database: "postgres".into(),
            branch: "main".into(),
            initial_copy: InitialCopy::Auto,
            create_tables: CreateTables::Auto,
            copy_workers: 2,
            cfg_dir: self.folder.path().join(".doltcfg"),
            commit_mode: CommitMode::EachTransaction,
            conflicts: ConflictPolicies::default(),
            streaming: Streaming::On,
            stream_memory_max: STREAM_MEMORY_MAX_DEFAULT,
            spool_folder: self.spool_folder(),
            two_phase: false,
            prepared_folder: self.folder.path().join("prepared"),
            watch: WatchConfig { interval: None, retained_max: 0 },
            subscription: None,
            expressions: None,
        };
        (self.adjust)(&mut config);
        self.handle = Some(Replicator::start(Arc::clone(self.store()), config).unwrap());
    }

    pub fn spool_folder(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    pub fn stop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop();
        }
    }

    /// Stops everything and starts again from what the disk holds.
    pub fn restart(&mut self) {
        self.stop();
        self.store = None;
        self.open();
        self.start();
    }

    pub fn store(&self) -> &Arc<Store> {
        self.store.as_ref().unwrap()
    }

    pub fn branch(&self) -> Arc<Branch> {
        self.store().branch("postgres", "main").unwrap()
    }

    pub fn status(&self) -> Snapshot {
        self.handle.as_ref().unwrap().status().snapshot()
    }

    pub fn location(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(".doltcfg/pg_wal_location")).unwrap_or_default().trim().to_owned()
    }

    pub fn wait_for(&self, state: State) {
        let arrived = || {
            let status = self.status();
            assert!(status.state == state || status.state != State::Failed, "{status:?}");
            status.state == state
        };
        wait_until(arrived, || format!("{state:?}: {:?}", self.status()));
    }

    /// Waits until everything that the primary has done so far is durable here.
    pub fn wait_caught_up(&self, db: &Db) {
        let lsn: Lsn = db.value("SELECT pg_current_wal_insert_lsn()").parse().unwrap();
        let done = || {
            let status = self.status();
            assert!(status.state != State::Failed, "{status:?}");
            status.durable >= lsn
        };
        // Another record behind it, so that the primary's decoder passes the place.
        db.execute("SELECT pg_logical_emit_message(false, 'test', 'mark')");
        wait_until(done, || format!("{lsn}: {:?}", self.status()));
    }

    pub fn wait_failed(&self) -> String {
        self.wait_for(State::Failed);
        self.status().last_error.unwrap().1
    }

    pub fn picture(&self, table: &str) -> Picture {
        picture_of(&self.branch().state().head_root, table)
    }

    /// Replicated commits, oldest first.
    pub fn replicated(&self) -> Vec<Arc<Commit>> {
        let head = self.branch().state().head;
        let mut commits: Vec<_> = self.store().log(&[head], &[]).unwrap().map(|c| c.unwrap()).filter(|c| c.meta.source.is_some()).collect();
        commits.reverse();
        commits
    }

    pub fn assert_equal(&self, db: &Db, tables: &[&str]) {
        for table in tables {
            let (ours, theirs) = (self.picture(table), picture(db, table));
            if ours != theirs {
                let odd =
                    |a: &Picture, b: &Picture| a.iter().filter(|line| b.binary_search(line).is_err()).take(5).cloned().collect::<Vec<_>>();
                panic!(
                    "{table}: {} rows, not {}; only here {:?}, only there {:?}",
                    ours.len(),
                    theirs.len(),
                    odd(&ours, &theirs),
                    odd(&theirs, &ours)
                );
            }
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn local_meta(message: &str) -> CommitMeta {
    let who = Identity { name: "test".into(), email: "test@localhost".into() };
    CommitMeta {
        author: who.clone(),
        author_time: Timestamp::now(),
        committer: who,
        commit_time: Timestamp::now(),
        message: message.into(),
        source: None,
    }
}

/// A table's rows as the primary would print them.
pub fn picture_of(root: &Root, table: &str) -> Picture {
    let (schema, name) = table.split_once('.').unwrap_or(("public", table));
    let Some(table) = root.catalog().table_by_name(schema, name.trim_matches('"')) else { return Arc::new(vec!["no table".into()]) };
    let settings = TextSettings::default();
    let mut cursor = root.table(table.oid).unwrap().scan((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), false);
    let mut lines = Vec::new();
    while let Some((_, row)) = cursor.next_row().unwrap() {
        let values: Vec<String> = row
            .iter()
            .zip(&table.columns)
            .map(|(value, column)| {
                if value.is_null() {
                    return "\\N".to_owned();
                }
                let mut out = Vec::new();
                column.data_type.format(value, &settings, &mut out);
                String::from_utf8(out).unwrap()
            })
            .collect();
        lines.push(values.join("|"));
    }
    lines.sort();
    Arc::new(lines)
}

pub fn utc(primary: &Primary) -> Db {
    let db = primary.db();
    db.execute("SET timezone = 'UTC'");
    db
}

/// Makes and commits a table here by hand: (name, type's oid) of its columns, the first of which is the primary key.
pub fn make_table(replica: &Replica, name: &str, columns: &[(&str, u32)]) {
    let store = replica.store();
    let column = |(at, (name, oid)): (usize, &(&str, u32))| Column {
        name: (*name).into(),
        attnum: at as i16 + 1,
        data_type: DataType::builtin(*oid, -1).unwrap(),
        not_null: at == 0,
        default: None,
        identity: None,
        generated: None,
        collation: None,
        comment: None,
    };
    let key = Index {
        oid: store.next_oid().unwrap(),
        name: format!("{name}_pkey"),
        unique: true,
        nulls_not_distinct: false,
        columns: vec![IndexColumn { key: IndexKey::Column(0), descending: false, nulls_first: false }],
        include: Vec::new(),
        predicate: None,
        method: "btree".into(),
        constraint: false,
        comment: None,
    };
    let schema = TableSchema {
        oid: store.next_oid().unwrap(),
        schema_oid: PUBLIC_SCHEMA_OID,
        name: name.into(),
        owner: "postgres".into(),
        next_attnum: columns.len() as i16 + 1,
        columns: columns.iter().enumerate().map(column).collect(),
        primary_key: Some(key),
        indexes: Vec::new(),
        constraints: Vec::new(),
        merged_columns: Vec::new(),
        comment: None,
    };
    let mut apply = replica.branch().begin_apply(false).unwrap();
    apply.put_table(schema).unwrap();
    apply.commit(local_meta("a table")).unwrap();
}
