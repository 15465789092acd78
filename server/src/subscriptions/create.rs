//! CREATE SUBSCRIPTION, and what it shares with ALTER: the questions to the primary.

use std::io::ErrorKind;

use strandline_replication::Error as ReplicationError;
use strandline_replication::client::{ConnectionConfig, Streaming};
use strandline_replication::subscription::{PublishedName, Publisher};
use strandline_sql::error::{ErrorCode, Result, SqlError};
use strandline_sql::session::subscription::{CreateSubscription, SubscriptionCaller};
use strandline_sql::session::{Notice, NoticeCode};
use strandline_storage::{CatalogObject, Oid};

use super::definition::{self, Definition};
use super::plan::{Desired, Pending, Plan};
use super::{Subscriptions, exists};

impl Subscriptions {
    /// CREATE SUBSCRIPTION at once, its slot included.
    pub(super) fn create(&self, create: CreateSubscription, caller: &SubscriptionCaller, notify: &mut dyn FnMut(Notice)) -> Result<()> {
        let slot = create.slot_name.clone().filter(|_| create.create_slot);
        let (publisher, oid, desired) = self.plan_create(&Plan::default(), create, caller, notify)?;
        let Some((mut publisher, slot)) = publisher.zip(slot) else {
            return self.make_so(oid, None, &desired);
        };
        let not_created = |error: &ReplicationError| {
            let text = primary_text(error);
            SqlError::new(ErrorCode::ProtocolViolation, format!("could not create replication slot \"{slot}\": {text}"))
        };
        let records = Definition::records(&self.store, oid);
        // The definition comes first, with a note that its slot is yet to be made: after a crash the subscription makes it, and no slot is left without an owner.
        let prepared = publisher.position_before_slot(&slot).map_err(|error| not_created(&error));
        let written = prepared.and_then(|position| match position {
            Some((system_id, after)) => {
                records.set_slot_to_make(&system_id, after).map_err(stored)?;
                self.write(oid, None, &desired)
            }
            // It exists, and the primary says so.
            None => Ok(()),
        });
        let made = written.and_then(|()| publisher.create_slot(&slot).map_err(|error| not_created(&error)));
        if let Err(error) = made {
            Definition::remove(&self.store, oid)?;
            return Err(error);
        }
        records.clear_slot_to_make().map_err(stored)?;
        notify(Notice::new(NoticeCode::Success, format!("created replication slot \"{slot}\" on publisher")));
        // All of it again: somebody's slot of this name may have gone at this very moment, and then nothing was written before.
        self.make_so(oid, None, &desired)
    }

    /// What a subscription whose slot is somebody else's affair is to be, after what is planned. Gives the connection to the primary, too, where there is one.
    pub(super) fn plan_create(
        &self,
        plan: &Plan,
        create: CreateSubscription,
        caller: &SubscriptionCaller,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<(Option<Publisher>, Oid, Desired)> {
        self.check_mode()?;
        let name = create.name.clone();
        if self.find(plan, &name, &caller.database)?.is_some() || self.is_configured(&name, &caller.database) {
            return Err(exists(&name));
        }
        let connection = definition::connection(&create.conninfo, &name)?;
        let settings = create.settings;
        let definition = Definition {
            name,
            owner: caller.role,
            database: caller.database.clone(),
            branch: caller.branch.clone(),
            conninfo: create.conninfo,
            slot_name: create.slot_name,
            publications: create.publications,
            streaming: settings.streaming.map_or(Streaming::Off, definition::streaming),
            two_phase: create.two_phase,
            disable_on_error: settings.disable_on_error.unwrap_or(false),
            synchronous_commit: settings.synchronous_commit.unwrap_or_else(|| "off".into()),
            origin: settings.origin.unwrap_or_else(|| "any".into()),
            create_tables: create.create_tables,
            binary: settings.binary.unwrap_or(false),
            comment: None,
        };
        let mut publisher = None;
        let mut tables = Vec::new();
        if create.connect {
            let mut connected = connect(&connection)?;
            warn_of_missing(&mut connected, &definition.publications, notify)?;
            tables = published_tables(&mut connected, &definition.publications)?;
            self.check_tables(&definition, &tables)?;
            publisher = Some(connected);
        } else {
            let what =
                "tables were not subscribed, you will have to run ALTER SUBSCRIPTION ... REFRESH PUBLICATION to subscribe the tables";
            notify(Notice::warning(NoticeCode::Warning, what));
        }
        let pending = Pending { enabled: Some(create.enabled), skip: None, tables: Some((tables, create.copy_data)) };
        Ok((publisher, self.store.next_oid()?, Desired { definition, pending }))
    }

    /// A published table must be something here that rows can be written into, or be created.
    pub(super) fn check_tables(&self, definition: &Definition, tables: &[PublishedName]) -> Result<()> {
        let state = self.store.branch(&definition.database, &definition.branch)?.state();
        for table in tables {
            let (schema, name) = (&table.schema, &table.name);
            let local = state.working.catalog().relation(schema, name).or_else(|| state.head_root.catalog().relation(schema, name));
            match local.map(|object| &**object) {
                Some(CatalogObject::Table(_)) => {}
                Some(other) => {
                    let kind = if matches!(other, CatalogObject::View(_)) { "views" } else { "sequences" };
                    return Err(SqlError::new(
                        ErrorCode::WrongObjectType,
                        format!("cannot use relation \"{schema}.{name}\" as logical replication target"),
                    )
                    .detail(format!("This operation is not supported for {kind}.")));
                }
                None if definition.create_tables => {}
                None => return Err(SqlError::new(ErrorCode::UndefinedTable, format!("relation \"{schema}.{name}\" does not exist"))),
            }
        }
        Ok(())
    }
}

pub(super) fn connect(connection: &ConnectionConfig) -> Result<Publisher> {
    Publisher::connect(connection).map_err(|error| {
        let what = connection_failure(connection, &error);
        SqlError::new(ErrorCode::ConnectionFailure, format!("could not connect to the publisher: {what}"))
    })
}

/// libpq's words for a connection that could not be made.
pub(super) fn connection_failure(connection: &ConnectionConfig, error: &ReplicationError) -> String {
    const SOCKET_QUESTION: &str = "\n\tIs the server running locally and accepting connections on that socket?";
    // All were tried, and the error is the last one's.
    let place = connection.places.all().last().unwrap_or_else(|| connection.places.current());
    let is_socket = place.socket_folder().is_some();
    let what = match error {
        ReplicationError::Primary { message, .. } => format!("FATAL:  {message}"),
        ReplicationError::Connection { source, .. } => match (source.kind(), is_socket) {
            (ErrorKind::ConnectionRefused, false) => {
                "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?".to_owned()
            }
            (ErrorKind::ConnectionRefused, true) => format!("Connection refused{SOCKET_QUESTION}"),
            (ErrorKind::NotFound, true) => format!("No such file or directory{SOCKET_QUESTION}"),
            // What a server is not, and that it did not answer in time, is said as it is.
            (ErrorKind::Other | ErrorKind::TimedOut, _) => source.to_string(),
            _ => error.to_string(),
        },
        other => other.to_string(),
    };
    let at = if is_socket { "on" } else { "at" };
    format!("connection to server {at} {place} failed: {what}")
}

/// What the primary answered, as libpq shows it.
pub(super) fn primary_text(error: &ReplicationError) -> String {
    match error {
        ReplicationError::Primary { message, detail, hint, .. } => {
            let mut text = format!("ERROR:  {message}");
            for (word, part) in [("DETAIL", detail), ("HINT", hint)] {
                if let Some(part) = part {
                    text.push_str(&format!("\n{word}:  {part}"));
                }
            }
            text
        }
        other => other.to_string(),
    }
}

pub(super) fn stored(error: ReplicationError) -> SqlError {
    match error {
        ReplicationError::Store(error) => error.into(),
        other => super::internal(other.to_string()),
    }
}

pub(super) fn warn_of_missing(publisher: &mut Publisher, names: &[String], notify: &mut dyn FnMut(Notice)) -> Result<()> {
    let missing = publisher.missing_publications(names).map_err(|error| {
        let text = primary_text(&error);
        SqlError::new(ErrorCode::ConnectionFailure, format!("could not receive list of publications from the publisher: {text}"))
    })?;
    let list = missing.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    match missing.len() {
        0 => {}
        1 => notify(Notice::warning(NoticeCode::UndefinedObject, format!("publication {list} does not exist on the publisher"))),
        _ => notify(Notice::warning(NoticeCode::UndefinedObject, format!("publications {list} do not exist on the publisher"))),
    }
    Ok(())
}

pub(super) fn published_tables(publisher: &mut Publisher, names: &[String]) -> Result<Vec<PublishedName>> {
    publisher.tables(names).map_err(|error| match error {
        ReplicationError::Setup(what) => SqlError::new(ErrorCode::FeatureNotSupported, what),
        error => {
            let text = primary_text(&error);
            SqlError::new(ErrorCode::ConnectionFailure, format!("could not receive list of replicated tables from the publisher: {text}"))
        }
    })
}
