//! The session as its connection owns it: prepared statements and portals over the shared core.

use std::sync::Arc;

use crate::error::Result;
use crate::session::Notice;
use crate::session::core::SessionCore;
use crate::session::engine::CancelHandle;
use crate::session::transaction::TransactionStatus;

/// A client's session. Dropping it rolls back what is under way.
#[derive(Debug)]
pub struct Session {
    core: Arc<SessionCore>,
}

impl Session {
    pub(crate) fn new(core: Arc<SessionCore>) -> Self {
        Session { core }
    }

    pub fn pid(&self) -> i32 {
        self.core.pid
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        self.core.cancel_handle()
    }

    pub fn status(&self) -> TransactionStatus {
        self.core.status()
    }

    pub fn take_notices(&self) -> Vec<Notice> {
        self.core.take_notices()
    }

    /// Settings to report that changed since the last call: (name on the wire, value).
    pub fn take_reports(&self) -> Vec<(&'static str, String)> {
        self.core.take_reports()
    }

    pub fn setting(&self, name: &str) -> Option<String> {
        self.core.setting(name)
    }

    /// Ends an implicit transaction with its changes durable; an explicit one goes on.
    /// # Errors
    /// `SerializationFailure`: nothing of it was kept.
    pub fn finish(&mut self) -> Result<()> {
        self.core.end_statement();
        if !self.core.in_explicit() {
            self.core.commit()?;
        }
        Ok(())
    }

    /// After an error: an explicit transaction becomes a failed one, an implicit one is rolled back.
    pub fn fail(&mut self) {
        self.core.end_statement();
        self.core.fail();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.rollback();
        self.core.engine.disconnect(self.core.pid);
    }
}
