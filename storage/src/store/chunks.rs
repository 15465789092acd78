//! A store's chunks as trees see them: in the journal, with a limit on what is in memory.

use std::sync::Arc;

use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::Result;
use crate::id::ChunkAddress;
use crate::journal::Journal;
use crate::tree::NodeCache;

#[derive(Debug)]
pub(crate) struct StoreChunks {
    pub journal: Arc<Journal>,
    pub cache: Arc<NodeCache>,
}

impl ChunkReader for StoreChunks {
    fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
        self.journal.read(address)
    }

    fn cache(&self) -> Option<&Arc<NodeCache>> {
        Some(&self.cache)
    }

    fn writer(&self) -> Option<Box<dyn ChunkWriter + '_>> {
        Some(Box::new(&*self.journal))
    }
}
