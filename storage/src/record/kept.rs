//! Which root values of old commits are kept, as a checkpoint says. The chunks of all others may be gone.

use crate::encoding::{ByteReader, Decoded, Malformed, put_varint};
use crate::id::{ChunkAddress, CommitId};

/// Which of the root values that older checkpoints tell still count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum KeptRoots {
    /// All of them: nothing was ever removed.
    #[default]
    All,
    /// These, which were chosen when this checkpoint was made.
    These(Vec<KeptRoot>),
    /// Those that the checkpoint with this sequence number lists, and all since.
    OfRecord(u64),
}

/// The root value of an old commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptRoot {
    pub commit: CommitId,
    pub address: ChunkAddress,
    /// See `Checkpoint::cost`.
    pub cost: u64,
}

const ALL: u8 = 0;
const THESE: u8 = 1;
const OF_RECORD: u8 = 2;

impl KeptRoots {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            KeptRoots::All => out.push(ALL),
            KeptRoots::These(roots) => {
                out.push(THESE);
                put_varint(out, roots.len() as u64);
                for root in roots {
                    out.extend_from_slice(&root.commit.0);
                    out.extend_from_slice(&root.address.0);
                    put_varint(out, root.cost);
                }
            }
            KeptRoots::OfRecord(sequence) => {
                out.push(OF_RECORD);
                put_varint(out, *sequence);
            }
        }
    }

    pub fn decode(reader: &mut ByteReader<'_>) -> Decoded<KeptRoots> {
        Ok(match reader.u8()? {
            ALL => KeptRoots::All,
            THESE => {
                let count = reader.count()?;
                let mut roots = Vec::with_capacity(count.min(1024));
                for _ in 0..count {
                    roots.push(KeptRoot {
                        commit: CommitId(reader.array()?),
                        address: ChunkAddress(reader.array()?),
                        cost: reader.varint()?,
                    });
                }
                KeptRoots::These(roots)
            }
            OF_RECORD => KeptRoots::OfRecord(reader.varint()?),
            _ => return Err(Malformed("unknown kind of kept root values")),
        })
    }
}
