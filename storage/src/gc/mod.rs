//! Giving back the space of chunks that nothing refers to any more.

pub(crate) mod automatic;
pub(crate) mod epochs;
pub(crate) mod kept;
pub(crate) mod live;
pub(crate) mod named;
pub(crate) mod run;
#[cfg(test)]
mod tests;
