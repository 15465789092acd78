//! `dolt_gc`: gives back the space of what nothing refers to.

use strandline_storage::Value;
use strandline_storage::store::GcMode;

use super::flags::Flags;
use super::{bad_argument, done};
use crate::context::StatementContext;
use crate::error::Result;

pub fn gc(arguments: &[&str], context: &StatementContext) -> Result<Vec<Value>> {
    let flags = Flags::parse("dolt_gc", arguments, &[(None, "shallow", false), (None, "full", false)])?;
    if !flags.rest.is_empty() {
        return Err(bad_argument("dolt_gc() takes no arguments but options"));
    }
    let mode = match (flags.has("shallow"), flags.has("full")) {
        (false, false) => GcMode::Normal,
        (true, false) => GcMode::Shallow,
        (false, true) => GcMode::Full,
        (true, true) => return Err(bad_argument("dolt_gc() takes one of --shallow and --full")),
    };
    context.store.gc(mode)?;
    done()
}
