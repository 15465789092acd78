//! ALTER SUBSCRIPTION.

use strandline_sql::error::{ErrorCode, Result, SqlError};
use strandline_sql::session::Notice;
use strandline_sql::session::subscription::{SubscriptionCaller, SubscriptionChange, SubscriptionSettings};
use strandline_storage::Lsn;

use super::create::{connect, published_tables, stored, warn_of_missing};
use super::definition::{self, Definition};
use super::{CONFIGURED_OID, Found, Subscriptions, check_owner, defined_by_file, exists, missing};

fn state_error(message: impl Into<String>) -> SqlError {
    SqlError::new(ErrorCode::ObjectNotInPrerequisiteState, message)
}

/// Which of the forms that change publications it is, for its texts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Set,
    Add,
    Drop,
}

impl Form {
    fn as_str(self) -> &'static str {
        match self {
            Form::Set => "SET",
            Form::Add => "ADD",
            Form::Drop => "DROP",
        }
    }
}

impl Subscriptions {
    pub(super) fn alter(
        &self,
        name: &str,
        change: SubscriptionChange,
        caller: &SubscriptionCaller,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<()> {
        if self.is_configured(name, &caller.database) {
            return self.alter_configured(name, change, caller);
        }
        let found = self.find(name, &caller.database)?.ok_or_else(|| missing(name))?;
        check_owner(&found, caller)?;
        match change {
            SubscriptionChange::Connection(conninfo) => {
                definition::connection(&conninfo, name)?;
                self.replace(&found, Definition { conninfo, ..found.definition.clone() })
            }
            SubscriptionChange::Set { slot_name, create_tables, settings } => self.set(&found, slot_name, create_tables, settings),
            SubscriptionChange::SetPublications { names, refresh, copy_data } => {
                let asked = names.clone();
                self.set_publications(&found, Form::Set, names, &asked, (refresh, copy_data), notify)
            }
            SubscriptionChange::AddPublications { names, refresh, copy_data } => {
                let mut publications = found.definition.publications.clone();
                for added in &names {
                    if publications.contains(added) {
                        let what = format!("publication \"{added}\" is already in subscription \"{name}\"");
                        return Err(SqlError::new(ErrorCode::DuplicateObject, what));
                    }
                    publications.push(added.clone());
                }
                self.set_publications(&found, Form::Add, publications, &names, (refresh, copy_data), notify)
            }
            SubscriptionChange::DropPublications { names, refresh, copy_data } => {
                let mut publications = found.definition.publications.clone();
                for dropped in &names {
                    if !publications.contains(dropped) {
                        let what = format!("publication \"{dropped}\" is not in subscription \"{name}\"");
                        return Err(SqlError::new(ErrorCode::InvalidObjectDefinition, what));
                    }
                    publications.retain(|publication| publication != dropped);
                }
                if publications.is_empty() {
                    let what = "cannot drop all the publications from a subscription";
                    return Err(SqlError::new(ErrorCode::InvalidObjectDefinition, what));
                }
                self.set_publications(&found, Form::Drop, publications, &[], (refresh, copy_data), notify)
            }
            SubscriptionChange::Refresh { copy_data } => {
                if !found.records.is_enabled() {
                    return Err(state_error("ALTER SUBSCRIPTION ... REFRESH is not allowed for disabled subscriptions"));
                }
                if copy_data && found.definition.two_phase {
                    let what = "ALTER SUBSCRIPTION ... REFRESH with copy_data is not allowed when two_phase is enabled";
                    return Err(SqlError::new(ErrorCode::SyntaxError, what)
                        .hint("Use ALTER SUBSCRIPTION ... REFRESH with copy_data = false, or use DROP/CREATE SUBSCRIPTION."));
                }
                self.refresh(&found, found.definition.clone(), copy_data, &[], notify)
            }
            SubscriptionChange::Enable(enable) => self.enable(&found, enable),
            SubscriptionChange::Skip(lsn) => {
                if !caller.superuser {
                    return Err(SqlError::new(ErrorCode::InsufficientPrivilege, "must be superuser to skip transaction"));
                }
                let reached = found.records.position(&found.definition.database, &found.definition.branch).map_err(stored)?;
                check_skip(lsn, reached)?;
                self.with_worker_stopped(&found, || found.records.set_skip(lsn).map_err(stored))
            }
            SubscriptionChange::Owner { role, superuser } => {
                if !superuser {
                    let what = format!("permission denied to change owner of subscription \"{name}\"");
                    return Err(
                        SqlError::new(ErrorCode::InsufficientPrivilege, what).hint("The owner of a subscription must be a superuser.")
                    );
                }
                Definition { owner: role, ..found.definition }.save(&self.store, found.oid)
            }
            SubscriptionChange::Rename(new_name) => {
                if self.find(&new_name, &caller.database)?.is_some() || self.is_configured(&new_name, &caller.database) {
                    return Err(exists(&new_name));
                }
                self.replace(&found, Definition { name: new_name, ..found.definition.clone() })
            }
        }
    }

    /// Writes another definition, to which the worker changes over.
    fn replace(&self, found: &Found, definition: Definition) -> Result<()> {
        self.with_worker_stopped(found, || definition.save(&self.store, found.oid))
    }

    /// Runs something while no worker is there to see it half done.
    fn with_worker_stopped(&self, found: &Found, change: impl FnOnce() -> Result<()>) -> Result<()> {
        self.stop_worker(found.oid);
        let changed = change();
        if found.records.is_enabled() {
            self.start_worker(found.oid)?;
        }
        changed
    }

    fn enable(&self, found: &Found, enable: bool) -> Result<()> {
        if enable && found.definition.slot_name.is_none() {
            return Err(state_error("cannot enable subscription that does not have a slot name"));
        }
        if enable {
            self.check_mode()?;
        }
        self.with_worker_stopped(found, || found.records.set_enabled(enable).map_err(stored))
    }

    fn set(
        &self,
        found: &Found,
        slot_name: Option<Option<String>>,
        create_tables: Option<bool>,
        settings: SubscriptionSettings,
    ) -> Result<()> {
        if slot_name == Some(None) && found.records.is_enabled() {
            return Err(state_error("cannot set slot_name = NONE for enabled subscription"));
        }
        let mut definition = found.definition.clone();
        if let Some(slot_name) = slot_name {
            definition.slot_name = slot_name;
        }
        if let Some(synchronous_commit) = settings.synchronous_commit {
            definition.synchronous_commit = synchronous_commit;
        }
        if let Some(origin) = settings.origin {
            definition.origin = origin;
        }
        definition.streaming = settings.streaming.unwrap_or(definition.streaming);
        definition.disable_on_error = settings.disable_on_error.unwrap_or(definition.disable_on_error);
        definition.create_tables = create_tables.unwrap_or(definition.create_tables);
        self.replace(found, definition)
    }

    /// Those of `asked` are looked up on the primary.
    fn set_publications(
        &self,
        found: &Found,
        form: Form,
        publications: Vec<String>,
        asked: &[String],
        (refresh, copy_data): (bool, bool),
        notify: &mut dyn FnMut(Notice),
    ) -> Result<()> {
        let definition = Definition { publications, ..found.definition.clone() };
        if !refresh {
            return self.replace(found, definition);
        }
        let word = form.as_str();
        if !found.records.is_enabled() {
            let instead = if form == Form::Set { "." } else { " instead." };
            return Err(state_error("ALTER SUBSCRIPTION with refresh is not allowed for disabled subscriptions")
                .hint(format!("Use ALTER SUBSCRIPTION ... {word} PUBLICATION ... WITH (refresh = false){instead}")));
        }
        if copy_data && definition.two_phase {
            return Err(state_error("ALTER SUBSCRIPTION with refresh and copy_data is not allowed when two_phase is enabled").hint(format!(
                "Use ALTER SUBSCRIPTION ... {word} PUBLICATION with refresh = false, or with copy_data = false, or use DROP/CREATE SUBSCRIPTION."
            )));
        }
        self.refresh(found, definition, copy_data, asked, notify)
    }

    /// Reads anew what is published. The publications of `asked` are looked up first.
    fn refresh(
        &self,
        found: &Found,
        definition: Definition,
        copy_data: bool,
        asked: &[String],
        notify: &mut dyn FnMut(Notice),
    ) -> Result<()> {
        let mut publisher = connect(&definition.connection()?)?;
        if !asked.is_empty() {
            warn_of_missing(&mut publisher, asked, notify)?;
        }
        let tables = published_tables(&mut publisher, &definition.publications)?;
        self.check_tables(&definition, &tables)?;
        self.with_worker_stopped(found, || {
            let (added, removed) = found.records.set_tables(&tables, copy_data).map_err(stored)?;
            for table in added {
                tracing::info!(subscription = %definition.name, table = %format_args!("{}.{}", table.schema, table.name), "table added to subscription");
            }
            for table in removed {
                tracing::info!(subscription = %definition.name, table = %format_args!("{}.{}", table.schema, table.name), "table removed from subscription");
            }
            definition.save(&self.store, found.oid)
        })
    }

    /// The configuration file says what it is; only its running can be changed.
    fn alter_configured(&self, name: &str, change: SubscriptionChange, caller: &SubscriptionCaller) -> Result<()> {
        let records = self.configured_records().ok_or_else(|| missing(name))?;
        if !caller.superuser {
            return Err(SqlError::new(ErrorCode::InsufficientPrivilege, format!("must be owner of subscription {name}")));
        }
        match change {
            SubscriptionChange::Enable(enable) => {
                self.stop_worker(CONFIGURED_OID);
                records.set_enabled(enable).map_err(stored)?;
            }
            SubscriptionChange::Skip(lsn) => {
                let configured = self.configured.as_ref().ok_or_else(|| missing(name))?;
                let reached = records.position(&configured.config.replica_database, &configured.config.branch).map_err(stored)?;
                check_skip(lsn, reached)?;
                self.stop_worker(CONFIGURED_OID);
                records.set_skip(lsn).map_err(stored)?;
            }
            SubscriptionChange::Refresh { copy_data } => {
                let configured = self.configured.as_ref().ok_or_else(|| missing(name))?;
                if !records.is_enabled() {
                    return Err(state_error("ALTER SUBSCRIPTION ... REFRESH is not allowed for disabled subscriptions"));
                }
                let config = &configured.config;
                let tables = published_tables(&mut connect(&config.connection())?, &config.publication_names)?;
                if !copy_data {
                    // It takes every published table in any case.
                    return Ok(());
                }
                let branch = self.store.branch(&config.replica_database, &config.branch)?;
                self.stop_worker(CONFIGURED_OID);
                for table in records.copy_unknown(&tables, &branch).map_err(stored)? {
                    tracing::info!(table = %format_args!("{}.{}", table.schema, table.name), "table to be copied");
                }
            }
            _ => return Err(defined_by_file(name)),
        }
        if records.is_enabled() {
            self.start_worker(CONFIGURED_OID)?;
        }
        Ok(())
    }
}

fn check_skip(lsn: Option<Lsn>, reached: Option<Lsn>) -> Result<()> {
    let (Some(lsn), Some(reached)) = (lsn, reached) else { return Ok(()) };
    if lsn < reached {
        let what = format!("skip WAL location (LSN {lsn}) must be greater than origin LSN {reached}");
        return Err(SqlError::new(ErrorCode::InvalidParameterValue, what));
    }
    Ok(())
}
