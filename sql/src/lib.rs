//! SQL with PostgreSQL's meaning on DataFusion's engine: parse, bind, lower, execute; DML, DDL, catalogs, versions.

pub mod bind;
pub mod bound;
pub mod catalog_data;
pub mod context;
pub mod error;
pub mod exec;
pub mod functions;
pub mod lower;
pub mod parse;
pub mod session;
mod statement;
pub mod system;
pub mod types;
pub mod virtual_table;
pub mod wire;
