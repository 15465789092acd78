//! What subscriptions made by SQL need beyond a replicator: the primary as CREATE, ALTER and DROP SUBSCRIPTION see it, connection strings, and
//! what the store remembers of each.

mod conninfo;
mod publisher;
mod records;

pub use conninfo::{Conninfo, ConninfoError};
pub use publisher::{PublishedName, Publisher};
pub use records::{SubscriptionRecords, TableRecord};
