//! ALTER SUBSCRIPTION.

use strandline_sql::error::{ErrorCode, Result, SqlError};
use strandline_sql::session::Notice;
use strandline_sql::session::subscription::{SubscriptionCaller, SubscriptionChange, SubscriptionSettings};
use strandline_storage::Lsn;

use super::create::{connect, published_tables, stored, warn_of_missing};
use super::definition::{self, Definition};
use super::plan::{Desired, Plan};
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
    /// Plans a change; one that asks the primary is carried out at once (and never comes from a transaction block).
    pub(super) fn alter(
        &self,
        plan: &mut Plan,
        name: &str,
        change: SubscriptionChange,
        caller: &SubscriptionCaller,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<()> {
        let found = self.find(plan, name, &caller.database)?.ok_or_else(|| missing(name))?;
        check_owner(&found, caller)?;
        let mut definition = found.definition.clone();
        let mut pending = found.pending.clone();
        match change {
            SubscriptionChange::Connection(conninfo) => {
                definition::connection(&conninfo, name)?;
                definition.conninfo = conninfo;
            }
            SubscriptionChange::Set { slot_name, create_tables, settings } => {
                set(&found, &mut definition, slot_name, create_tables, settings)?
            }
            SubscriptionChange::SetPublications { names, refresh, copy_data } => {
                if refresh {
                    return self.set_publications(&found, Form::Set, names.clone(), &names, copy_data, notify);
                }
                definition.publications = names;
            }
            SubscriptionChange::AddPublications { names, refresh, copy_data } => {
                for added in &names {
                    if definition.publications.contains(added) {
                        let what = format!("publication \"{added}\" is already in subscription \"{name}\"");
                        return Err(SqlError::new(ErrorCode::DuplicateObject, what));
                    }
                    definition.publications.push(added.clone());
                }
                if refresh {
                    return self.set_publications(&found, Form::Add, definition.publications, &names, copy_data, notify);
                }
            }
            SubscriptionChange::DropPublications { names, refresh, copy_data } => {
                for dropped in &names {
                    if !definition.publications.contains(dropped) {
                        let what = format!("publication \"{dropped}\" is not in subscription \"{name}\"");
                        return Err(SqlError::new(ErrorCode::InvalidObjectDefinition, what));
                    }
                    definition.publications.retain(|publication| publication != dropped);
                }
                if definition.publications.is_empty() {
                    let what = "cannot drop all the publications from a subscription";
                    return Err(SqlError::new(ErrorCode::InvalidObjectDefinition, what));
                }
                if refresh {
                    return self.set_publications(&found, Form::Drop, definition.publications, &[], copy_data, notify);
                }
            }
            SubscriptionChange::Refresh { copy_data } => {
                if !found.is_enabled() {
                    return Err(state_error("ALTER SUBSCRIPTION ... REFRESH is not allowed for disabled subscriptions"));
                }
                if copy_data && definition.two_phase && found.records.has_stopped().map_err(stored)? {
                    return self.refresh_stopped(&found);
                }
                if copy_data && definition.two_phase {
                    let what = "ALTER SUBSCRIPTION ... REFRESH with copy_data is not allowed when two_phase is enabled";
                    return Err(SqlError::new(ErrorCode::SyntaxError, what)
                        .hint("Use ALTER SUBSCRIPTION ... REFRESH with copy_data = false, or use DROP/CREATE SUBSCRIPTION."));
                }
                return self.refresh(&found, definition, copy_data, &[], notify);
            }
            SubscriptionChange::Enable(enable) => {
                if enable && definition.slot_name.is_none() {
                    return Err(state_error("cannot enable subscription that does not have a slot name"));
                }
                if enable {
                    self.check_mode()?;
                }
                pending.enabled = Some(enable);
            }
            SubscriptionChange::Skip(lsn) => {
                if !caller.superuser {
                    return Err(SqlError::new(ErrorCode::InsufficientPrivilege, "must be superuser to skip transaction"));
                }
                let reached = found.records.position(&definition.database, &definition.branch).map_err(stored)?;
                check_skip(lsn, reached)?;
                pending.skip = Some(lsn);
            }
            SubscriptionChange::Owner { role, superuser } => {
                if !superuser {
                    let what = format!("permission denied to change owner of subscription \"{name}\"");
                    return Err(
                        SqlError::new(ErrorCode::InsufficientPrivilege, what).hint("The owner of a subscription must be a superuser.")
                    );
                }
                definition.owner = role;
            }
            SubscriptionChange::Rename(new_name) => {
                if self.find(plan, &new_name, &caller.database)?.is_some() || self.is_configured(&new_name, &caller.database) {
                    return Err(exists(&new_name));
                }
                definition.name = new_name;
            }
            SubscriptionChange::Comment(comment) => definition.comment = comment,
        }
        plan.put(&found, Some(Desired { definition, pending }));
        Ok(())
    }

    /// Those of `asked` are looked up on the primary.
    fn set_publications(
        &self,
        found: &Found,
        form: Form,
        publications: Vec<String>,
        asked: &[String],
        copy_data: bool,
        notify: &mut dyn FnMut(Notice),
    ) -> Result<()> {
        let definition = Definition { publications, ..found.definition.clone() };
        let word = form.as_str();
        if !found.is_enabled() {
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
        self.stop_worker(found.oid);
        let change = || -> Result<()> {
            let (added, removed) = found.records.set_tables(&tables, copy_data).map_err(stored)?;
            for table in added {
                tracing::info!(subscription = %definition.name, table = %format_args!("{}.{}", table.schema, table.name), "table added to subscription");
            }
            for table in removed {
                tracing::info!(subscription = %definition.name, table = %format_args!("{}.{}", table.schema, table.name), "table removed from subscription");
            }
            definition.save(&self.store, found.oid)
        };
        let changed = change();
        if found.records.is_enabled() {
            self.start_worker(found.oid)?;
        }
        changed
    }

    /// Has stopped tables copied anew, and changes nothing else. Unlike the first copy of a table that is published anew, this goes with two phases: all that was prepared
    /// of the table since it has been published is here.
    fn refresh_stopped(&self, found: &Found) -> Result<()> {
        let definition = &found.definition;
        let tables = published_tables(&mut connect(&definition.connection()?)?, &definition.publications)?;
        self.stop_worker(found.oid);
        let renewed = found.records.copy_stopped(&tables).map_err(stored);
        if found.records.is_enabled() {
            self.start_worker(found.oid)?;
        }
        for table in renewed? {
            tracing::info!(subscription = %definition.name, table = %format_args!("{}.{}", table.schema, table.name), "table to be copied");
        }
        Ok(())
    }

    /// The configuration file says what it is; only its running can be changed.
    pub(super) fn alter_configured(&self, name: &str, change: SubscriptionChange, caller: &SubscriptionCaller) -> Result<()> {
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
                if copy_data && self.settings.working_set {
                    // A copy is a commit.
                    return Err(SqlError::unsupported(
                        "ALTER SUBSCRIPTION ... REFRESH with copy_data while dolt_transaction_commit is off in the configuration",
                    ));
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

/// ALTER SUBSCRIPTION ... SET.
fn set(
    found: &Found,
    definition: &mut Definition,
    slot_name: Option<Option<String>>,
    create_tables: Option<bool>,
    settings: SubscriptionSettings,
) -> Result<()> {
    if slot_name == Some(None) && found.is_enabled() {
        return Err(state_error("cannot set slot_name = NONE for enabled subscription"));
    }
    if let Some(slot_name) = slot_name {
        definition.slot_name = slot_name;
    }
    if let Some(synchronous_commit) = settings.synchronous_commit {
        definition.synchronous_commit = synchronous_commit;
    }
    if let Some(origin) = settings.origin {
        definition.origin = origin;
    }
    definition.streaming = settings.streaming.map_or(definition.streaming, definition::streaming);
    definition.binary = settings.binary.unwrap_or(definition.binary);
    definition.disable_on_error = settings.disable_on_error.unwrap_or(definition.disable_on_error);
    definition.create_tables = create_tables.unwrap_or(definition.create_tables);
    Ok(())
}

fn check_skip(lsn: Option<Lsn>, reached: Option<Lsn>) -> Result<()> {
    let (Some(lsn), Some(reached)) = (lsn, reached) else { return Ok(()) };
    if lsn < reached {
        let what = format!("skip WAL location (LSN {lsn}) must be greater than origin LSN {reached}");
        return Err(SqlError::new(ErrorCode::InvalidParameterValue, what));
    }
    Ok(())
}
