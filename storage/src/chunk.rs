//! Chunks: immutable bytes named by their hash, and the two doors through which trees reach them.
//!
//! A tree does not know where its chunks live. It reads one when a node is first needed and writes those that
//! no checkpoint has written before. The journal implements both doors; [`MemoryChunks`] does for tests.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::{Error, Result};
use crate::id::ChunkAddress;
use crate::tree::NodeCache;

/// Reads chunks by address. May be called from any thread, and again for a chunk read before.
pub trait ChunkReader: Send + Sync + std::fmt::Debug {
    /// The chunk's bytes, uncompressed and verified against the address.
    /// # Errors
    /// `Damaged` when it is missing or does not hash to its address; `Io`.
    fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>>;

    /// Says that what lies at this address, with all that it refers to, is to stay as long as anybody holds this door.
    fn pin(&self, _address: &ChunkAddress) {}

    /// The period of the store in which this door was made; later ones have larger numbers. 0 for what has none.
    fn epoch(&self) -> u64 {
        0
    }

    /// What bounds the memory of nodes read from here. `None`: a node that was read stays with its tree.
    fn cache(&self) -> Option<&Arc<NodeCache>> {
        None
    }

    /// The door back, for nodes that have to leave memory before anybody asks for their addresses. A reader with a cache has one.
    fn writer(&self) -> Option<Box<dyn ChunkWriter + '_>> {
        None
    }

    /// As [`ChunkReader::writer`], for many chunks for whose durability nobody waits.
    fn bulk_writer(&self) -> Option<Box<dyn ChunkWriter + '_>> {
        self.writer()
    }
}

/// Takes chunks to be stored. A chunk comes before any chunk that refers to it.
pub trait ChunkWriter {
    /// Stores a chunk. `address` is `ChunkAddress::of(bytes)`, already computed. Putting a chunk that exists already is
    /// allowed and does nothing.
    fn put(&mut self, address: ChunkAddress, bytes: &[u8]) -> Result<()>;

    /// Hashes and stores a chunk, and returns its address.
    fn put_bytes(&mut self, bytes: &[u8]) -> Result<ChunkAddress> {
        let address = ChunkAddress::of(bytes);
        self.put(address, bytes)?;
        Ok(address)
    }
}

/// Chunks in memory.
#[derive(Debug, Default)]
pub struct MemoryChunks {
    chunks: RwLock<HashMap<ChunkAddress, Vec<u8>>>,
}

impl MemoryChunks {
    pub fn len(&self) -> usize {
        self.chunks.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ChunkReader for MemoryChunks {
    fn read(&self, address: &ChunkAddress) -> Result<Vec<u8>> {
        let missing = || Error::Damaged { place: format!("chunk {address:.12}"), what: "missing".into() };
        self.chunks.read().get(address).cloned().ok_or_else(missing)
    }
}

impl ChunkWriter for &MemoryChunks {
    fn put(&mut self, address: ChunkAddress, bytes: &[u8]) -> Result<()> {
        self.chunks.write().entry(address).or_insert_with(|| bytes.to_vec());
        Ok(())
    }
}
