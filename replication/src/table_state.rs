//! How far each table of a subscription made by SQL has come.
//!
//! ```text
//!   Init --> Copying(S) --> Synced(S) ------------------> Ready      no table follows yet: the stream rests
//!   Init --> Copying(S) --> Finished(S) --> Copying(P) --> Ready(P)  beside the stream
//!   Ready --> Stopped(L) --> Init --> ...                            it could not follow a change, and waits to be copied anew; or it does not wait
//! ```
//!
//! A table is copied on the snapshot of a temporary slot that starts at S. The snapshot holds the transactions whose commit records lie before S, so the others come from
//! the stream; of tables that are not copied yet it applies nothing. Where no table follows yet, the stream rests meanwhile, and when it has passed S, all tables stand
//! at the same LSN. Where some do, it goes on, and the table's changes are kept; copy and changes become one commit where the stream stands by then, at P
//! (`apply/joining.rs`). Either way a copy is one commit that carries the LSN of `Copying`, which is in the journal before it: after a crash the commit
//! tells whether the copy is there. What is kept does not outlast the process, so `Finished` begins anew.
//!
//! A table whose definition, or a row of it, cannot be followed is stopped at the transaction that brought it, whose commit record lies at L. That is in the journal
//! before the transaction is applied without the table, so no crash makes the table follow with a gap. It keeps the rows that it had. Why it was stopped stays in the
//! record until a new copy has taken their place (`SubscribedTable::stopped`): such a copy replaces rows and definition, where another one joins the rows that are here.

use std::fmt;
use std::str::FromStr;

use strandline_storage::Lsn;

/// The state of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncState {
    /// Its rows are to be copied.
    Init,
    /// They are being copied as they were at this point.
    Copying { point: Lsn },
    /// They were copied as they were at this point, and wait for the stream to take them in.
    Finished { point: Lsn },
    /// They are here as they were at this point, which the stream has not reached.
    Synced { point: Lsn },
    /// It follows the stream.
    Ready { point: Option<Lsn> },
    /// A configured source published it once and did no more at this point, before it could be copied: what comes of earlier transactions is left out.
    Left { point: Lsn },
    /// It could not follow the transaction whose commit record lies here, and is as it was before that.
    Stopped { since: Lsn },
}

impl SyncState {
    /// Says whether a change of a transaction whose commit record lies at `commit` is to be applied.
    pub(crate) fn takes(self, commit: Lsn) -> bool {
        match self {
            SyncState::Init | SyncState::Copying { .. } | SyncState::Finished { .. } | SyncState::Left { .. } => false,
            SyncState::Synced { point } => commit >= point,
            SyncState::Stopped { since } => commit < since,
            SyncState::Ready { .. } => true,
        }
    }

    /// PostgreSQL's letter (`pg_subscription_rel.srsubstate`); what is not shown there has another.
    pub(crate) fn letter(self) -> char {
        match self {
            SyncState::Init => 'i',
            SyncState::Copying { .. } => 'd',
            SyncState::Finished { .. } => 'f',
            SyncState::Synced { .. } => 's',
            SyncState::Ready { .. } => 'r',
            SyncState::Left { .. } => 'l',
            SyncState::Stopped { .. } => 'x',
        }
    }

    pub(crate) fn point(self) -> Option<Lsn> {
        match self {
            SyncState::Init | SyncState::Copying { .. } | SyncState::Left { .. } => None,
            SyncState::Finished { point } | SyncState::Synced { point } => Some(point),
            SyncState::Stopped { since } => Some(since),
            SyncState::Ready { point } => point,
        }
    }
}

/// A subscribed table of the primary, by its name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscribedTable {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) state: SyncState,
    /// Why it was stopped, while what is here is from before that.
    pub(crate) stopped: Option<String>,
}

impl SubscribedTable {
    pub(crate) fn new(schema: &str, name: &str, state: SyncState) -> Self {
        SubscribedTable { schema: schema.to_owned(), name: name.to_owned(), state, stopped: None }
    }

    /// The same table, having come further.
    pub(crate) fn with_state(&self, state: SyncState) -> Self {
        // Its copy is here.
        let is_renewed = matches!(state, SyncState::Synced { .. } | SyncState::Ready { .. });
        SubscribedTable { state, stopped: self.stopped.clone().filter(|_| !is_renewed), ..self.clone() }
    }

    /// Says whether its copy takes the place of the rows and the definition that are here, rather than join the rows.
    pub(crate) fn is_replaced(&self) -> bool {
        self.stopped.is_some()
    }
}

impl fmt::Display for SubscribedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = match self.state {
            SyncState::Copying { point } | SyncState::Left { point } => Some(point),
            other => other.point(),
        };
        // A name can have every character but this.
        let (schema, name) = (&self.schema, &self.name);
        write!(f, "{}\0{}\0{schema}\0{name}", self.state.letter(), point.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string()))?;
        match &self.stopped {
            Some(why) => write!(f, "\0{}", why.replace('\0', " ")),
            None => Ok(()),
        }
    }
}

impl FromStr for SubscribedTable {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let fields: Vec<&str> = text.split('\0').collect();
        let (letter, point, schema, name, stopped) = match *fields.as_slice() {
            [letter, point, schema, name] => (letter, point, schema, name, None),
            [letter, point, schema, name, why] => (letter, point, schema, name, Some(why.to_owned())),
            _ => return Err(()),
        };
        let point: Option<Lsn> = if point == "-" { None } else { Some(point.parse().map_err(drop)?) };
        let state = match (letter, point) {
            ("i", None) => SyncState::Init,
            ("d", Some(point)) => SyncState::Copying { point },
            ("f", Some(point)) => SyncState::Finished { point },
            ("l", Some(point)) => SyncState::Left { point },
            ("s", Some(point)) => SyncState::Synced { point },
            ("x", Some(since)) if stopped.is_some() => SyncState::Stopped { since },
            ("r", point) => SyncState::Ready { point },
            _ => return Err(()),
        };
        Ok(SubscribedTable { schema: schema.to_owned(), name: name.to_owned(), state, stopped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_with_any_name() {
        let point = Lsn(0x1_0000_0002);
        for state in [
            SyncState::Init,
            SyncState::Copying { point },
            SyncState::Finished { point },
            SyncState::Synced { point },
            SyncState::Left { point },
            SyncState::Ready { point: None },
            SyncState::Ready { point: Some(point) },
        ] {
            let table = SubscribedTable::new("a b", "c\n\"d -", state);
            assert_eq!(table.to_string().parse(), Ok(table.clone()));
            let replaced = SubscribedTable { stopped: Some("column \"x\" was added".into()), ..table };
            assert_eq!(replaced.to_string().parse(), Ok(replaced));
        }
        let stopped =
            SubscribedTable { stopped: Some("why".into()), ..SubscribedTable::new("a", "b", SyncState::Stopped { since: point }) };
        assert_eq!(stopped.to_string(), "x\x001/2\0a\0b\0why");
        assert_eq!(stopped.to_string().parse(), Ok(stopped.clone()));
        let odd = SubscribedTable { stopped: Some("a\0b".into()), ..stopped };
        assert_eq!(odd.to_string().parse::<SubscribedTable>().map(|table| table.stopped), Ok(Some("a b".into())));
        // As earlier versions wrote it.
        assert_eq!("r\x000/5\0public\0t".parse(), Ok(SubscribedTable::new("public", "t", SyncState::Ready { point: Some(Lsn(5)) })));
        for damaged in [
            "",
            "i\0-\0a",
            "d\0-\0a\0b",
            "i\x000/1\0a\0b",
            "x\0-\0a\0b",
            "r\0what\0a\0b",
            "x\x000/1\0a\0b",
            "x\0-\0a\0b\0why",
            "r\0-\0a\0b\0c\0d",
        ] {
            assert_eq!(damaged.parse::<SubscribedTable>(), Err(()), "{damaged:?}");
        }
    }

    #[test]
    fn a_copied_table_takes_what_its_snapshot_does_not_hold() {
        let synced = SyncState::Synced { point: Lsn(10) };
        assert!(!synced.takes(Lsn(9)) && synced.takes(Lsn(10)) && synced.takes(Lsn(11)));
        assert!(!SyncState::Init.takes(Lsn(99)) && !SyncState::Copying { point: Lsn(10) }.takes(Lsn(99)));
        assert!(SyncState::Ready { point: Some(Lsn(10)) }.takes(Lsn(1)));
    }

    #[test]
    fn a_stopped_table_takes_what_came_before_and_is_replaced_until_its_copy_is_here() {
        let since = Lsn(10);
        let stopped = SyncState::Stopped { since };
        assert!(stopped.takes(Lsn(9)) && !stopped.takes(since) && !stopped.takes(Lsn(11)));
        let mut table = SubscribedTable { stopped: Some("why".into()), ..SubscribedTable::new("a", "b", stopped) };
        let point = Lsn(20);
        for state in [SyncState::Init, SyncState::Copying { point }, SyncState::Finished { point }, SyncState::Left { point }] {
            table = table.with_state(state);
            assert!(table.is_replaced() && !table.state.takes(Lsn(99)), "{state:?}");
        }
        for state in [SyncState::Synced { point }, SyncState::Ready { point: None }] {
            assert!(!table.with_state(state).is_replaced(), "{state:?}");
        }
    }
}
