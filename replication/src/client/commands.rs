//! The replication commands, typed.

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use strandline_storage::Lsn;

use super::connection::{Connection, unexpected};
use super::stream::ReplicationStream;
use crate::error::{Error, Result};

/// The first major version that copies slots.
pub const SLOT_COPY_VERSION_MIN: u32 = 12;

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Made by `initdb`, kept for the life of the cluster and its physical copies.
    pub system_id: String,
    pub timeline: u32,
    /// Where the primary's flushed log ends.
    pub flushed: Lsn,
}

/// The answer to `CREATE_REPLICATION_SLOT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSlot {
    /// The stream begins here; the snapshot holds everything before.
    pub consistent_point: Lsn,
    /// Valid until the connection runs its next command.
    pub snapshot: Option<String>,
}

/// A slot as `pg_replication_slots` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    pub plugin: Option<String>,
    pub logical: bool,
    pub database: Option<String>,
    pub active: bool,
    pub confirmed_flush: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`; from version 13 on.
    pub wal_status: Option<String>,
}

/// Whether large transactions are sent while they still run, by servers that can (from version 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streaming {
    #[default]
    Off,
    On,
    /// As `On`; servers from version 16 on also tell where and when such a transaction was rolled back.
    Parallel,
}

/// What to ask the output plugin for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    pub publications: Vec<String>,
    pub streaming: Streaming,
    /// Prepared transactions are sent when they are prepared. Once a slot has been used so, it stays so.
    pub two_phase: bool,
    /// What the server has from another one is not sent, by servers that can leave it out (from version 16).
    pub only_local: bool,
    /// Values are sent in their types' binary form where they have one.
    pub binary: bool,
}

impl StreamOptions {
    /// The plugin's options as a server of this major version takes them. What it does not know is not asked for.
    fn list(&self, server_major_version: u32) -> String {
        let protocol_version = match server_major_version {
            ..=13 => 1,
            14 => 2,
            15 => 3,
            16.. => 4,
        };
        let names = self.publications.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(",");
        // The grammar of replication commands knows no escapes but the doubled quote.
        let mut list = format!("\"proto_version\" '{protocol_version}', \"publication_names\" '{}'", names.replace('\'', "''"));
        if server_major_version >= 14 {
            list.push_str(", \"messages\" 'true'");
            if self.binary {
                list.push_str(", \"binary\" 'true'");
            }
            match self.streaming {
                Streaming::Off => {}
                Streaming::Parallel if server_major_version >= 16 => list.push_str(", \"streaming\" 'parallel'"),
                Streaming::On | Streaming::Parallel => list.push_str(", \"streaming\" 'on'"),
            }
            if self.two_phase && server_major_version >= 15 {
                list.push_str(", \"two_phase\" 'on'");
            }
            if self.only_local && server_major_version >= 16 {
                list.push_str(", \"origin\" 'none'");
            }
        }
        list
    }
}

impl Connection {
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let malformed = || Error::Protocol("an answer to IDENTIFY_SYSTEM without its columns".into());
        let [Some(system_id), Some(timeline), Some(flushed), ..] = rows.first().map(Vec::as_slice).unwrap_or_default() else {
            return Err(malformed());
        };
        Ok(SystemIdentity {
            system_id: system_id.clone(),
            timeline: timeline.parse().map_err(|_| malformed())?,
            flushed: flushed.parse().map_err(|_| malformed())?,
        })
    }

    /// Looks a slot up by name.
    pub async fn slot(&mut self, name: &str) -> Result<Option<SlotInfo>> {
        let sql = format!(
            "SELECT s.plugin, s.slot_type = 'logical', s.database, s.active, s.confirmed_flush_lsn, pg_catalog.to_jsonb(s) ->> 'wal_status' \
             FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = {}",
            quote_literal(name)
        );
        let rows = self.query(&sql).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let [plugin, logical, database, active, confirmed_flush, wal_status] = <[Option<String>; 6]>::try_from(row)
            .map_err(|_| Error::Protocol("a row of pg_replication_slots without its columns".into()))?;
        let confirmed_flush = confirmed_flush.map(|lsn| lsn.parse()).transpose()?;
        let is_true = |text: Option<String>| text.as_deref() == Some("t");
        Ok(Some(SlotInfo { plugin, logical: is_true(logical), database, active: is_true(active), confirmed_flush, wal_status }))
    }

    /// Makes a slot that lasts, without a snapshot, and returns where it starts.
    pub async fn create_slot(&mut self, name: &str) -> Result<Lsn> {
        let options = if self.server_major_version() >= 15 { "(SNAPSHOT 'nothing')" } else { "NOEXPORT_SNAPSHOT" };
        let sql = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}", quote_identifier(name));
        let rows = self.query(&sql).await?;
        let point = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
        let point = point.ok_or_else(|| Error::Protocol("an answer to CREATE_REPLICATION_SLOT without its columns".into()))?;
        Ok(point.parse()?)
    }

    /// Drops a slot, once nobody uses it.
    pub async fn drop_slot(&mut self, name: &str) -> Result<()> {
        self.query(&format!("DROP_REPLICATION_SLOT {} WAIT", quote_identifier(name))).await.map(drop)
    }

    /// Makes a slot that lives as long as this connection, and exports the snapshot that fits its start.
    pub async fn create_temporary_slot(&mut self, name: &str) -> Result<CreatedSlot> {
        self.create_slot_with_snapshot(name, "TEMPORARY ").await
    }

    /// Makes a slot that lasts, and exports the snapshot that fits its start.
    pub async fn create_exporting_slot(&mut self, name: &str) -> Result<CreatedSlot> {
        self.create_slot_with_snapshot(name, "").await
    }

    async fn create_slot_with_snapshot(&mut self, name: &str, kind: &str) -> Result<CreatedSlot> {
        let options = if self.server_major_version() >= 15 { "(SNAPSHOT 'export')" } else { "EXPORT_SNAPSHOT" };
        let sql = format!("CREATE_REPLICATION_SLOT {} {kind}LOGICAL pgoutput {options}", quote_identifier(name));
        let rows = self.query(&sql).await?;
        let malformed = || Error::Protocol("an answer to CREATE_REPLICATION_SLOT without its columns".into());
        let row = rows.into_iter().next().ok_or_else(malformed)?;
        let point = row.get(1).cloned().flatten().ok_or_else(malformed)?;
        Ok(CreatedSlot { consistent_point: point.parse().map_err(|_| malformed())?, snapshot: row.get(2).cloned().flatten() })
    }

    /// Makes a lasting slot that starts where another one does, and returns that place. For servers from [`SLOT_COPY_VERSION_MIN`] on.
    pub async fn copy_slot(&mut self, from: &str, to: &str) -> Result<Lsn> {
        let sql =
            format!("SELECT lsn FROM pg_catalog.pg_copy_logical_replication_slot({}, {}, false)", quote_literal(from), quote_literal(to));
        let rows = self.query(&sql).await?;
        let lsn = rows.into_iter().flatten().next().flatten();
        let lsn = lsn.ok_or_else(|| Error::Protocol("no answer to pg_copy_logical_replication_slot".into()))?;
        Ok(lsn.parse()?)
    }

    /// Turns the connection into a stream that begins with the first transaction that ends after `start` (or after what the slot
    /// has confirmed, whichever is later).
    pub async fn start_replication(mut self, slot: &str, start: Lsn, options: &StreamOptions) -> Result<ReplicationStream> {
        let options = options.list(self.server_major_version());
        let sql = format!("START_REPLICATION SLOT {} LOGICAL {start} ({options})", quote_identifier(slot));
        let mut out = BytesMut::new();
        frontend::query(&sql, &mut out).map_err(|e| Error::Setup(format!("a name for the primary is invalid: {e}")))?;
        self.send(&out).await?;
        let frame = self.frame().await?;
        if frame.tag != b'W' {
            return Err(unexpected(&frame, "starting the stream"));
        }
        Ok(ReplicationStream::new(self.socket, self.received))
    }
}

/// A name in double quotes.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in single quotes, whatever `standard_conforming_strings` is.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_for_what_its_version_has() {
        let options = StreamOptions {
            publications: vec!["a".into(), "it's \"b\"".into()],
            streaming: Streaming::On,
            two_phase: false,
            only_local: false,
            binary: false,
        };
        let names = r#""publication_names" '"a","it''s ""b"""'"#;
        assert_eq!(options.list(13), format!(r#""proto_version" '1', {names}"#));
        assert_eq!(options.list(14), format!(r#""proto_version" '2', {names}, "messages" 'true', "streaming" 'on'"#));
        assert_eq!(options.list(15), format!(r#""proto_version" '3', {names}, "messages" 'true', "streaming" 'on'"#));
        assert_eq!(options.list(18), format!(r#""proto_version" '4', {names}, "messages" 'true', "streaming" 'on'"#));
        let both = StreamOptions { two_phase: true, ..options.clone() };
        assert_eq!(both.list(14), options.list(14));
        assert_eq!(both.list(15), format!("{}, \"two_phase\" 'on'", options.list(15)));
        let local = StreamOptions { only_local: true, ..options.clone() };
        assert_eq!(local.list(15), options.list(15));
        assert_eq!(local.list(16), options.list(16) + ", \"origin\" 'none'");
        let binary = StreamOptions { binary: true, ..options.clone() };
        assert_eq!(binary.list(13), options.list(13));
        assert!(binary.list(14).contains(", \"binary\" 'true'"));
        let parallel = StreamOptions { streaming: Streaming::Parallel, ..options.clone() };
        for version in [10, 13, 14, 15] {
            assert_eq!(parallel.list(version), options.list(version));
        }
        assert_eq!(parallel.list(16), options.list(16).replace("'on'", "'parallel'"));
        assert_eq!(parallel.list(18), format!(r#""proto_version" '4', {names}, "messages" 'true', "streaming" 'parallel'"#));
        let whole = StreamOptions { streaming: Streaming::Off, ..options };
        assert_eq!(whole.list(15), format!(r#""proto_version" '3', {names}, "messages" 'true'"#));
    }

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b'"), "E'a\\\\b'''");
    }
}
