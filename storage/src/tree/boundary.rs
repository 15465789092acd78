//! Where nodes end: decided by the hash of the key that would begin the next node and by how many entries the
//! present one has, and by nothing else.
//!
//! An update of a value therefore never moves a boundary, and trees with the same keys have the same nodes
//! whatever the order of their edits. The chance that a node ends grows with the cube of its size (Weibull's
//! rule with shape 4), so sizes vary far less than with a constant chance: about nine tenths of the target on
//! average, seldom more than one and a half times. Everything is integer arithmetic, so every machine agrees.

/// Entries of an inner node that its size is aimed at.
pub(crate) const FANOUT_TARGET: u32 = 32;
/// Bounds of the number of rows that a leaf's size may be aimed at.
pub(crate) const LEAF_TARGET_MIN: u32 = 8;
pub(crate) const LEAF_TARGET_MAX: u32 = 512;

/// Decides boundaries between nodes of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub target: u32,
    /// 2^66 / target^4: times n^3 it is the chance of an end after n entries, as a fraction of 2^64.
    step: u128,
}

impl Rule {
    pub fn new(target: u32) -> Self {
        Rule { target, step: (1u128 << 66) / u128::from(target).pow(4) }
    }

    /// The entries at which a node ends whatever the key.
    pub fn max(&self) -> usize {
        2 * self.target as usize
    }

    /// Says whether the entry with this key begins a new node after a node of `count` entries at `level`.
    pub fn begins_node(&self, key: &[u8], level: u8, count: usize) -> bool {
        if count >= self.max() {
            return true;
        }
        // A node has two entries at least, so that every level is lower than the one below.
        if count < 2 {
            return false;
        }
        let n = count as u128;
        let threshold = n * n * n * self.step;
        u128::from(level_hash(key, level)) < threshold
    }
}

/// The rule for inner nodes.
pub(crate) fn inner_rule() -> Rule {
    Rule::new(FANOUT_TARGET)
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// A fast hash of a key. Part of the format: it may never change.
fn level_hash(key: &[u8], level: u8) -> u64 {
    let mut state = SEED ^ (u64::from(level) << 56) ^ key.len() as u64;
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), FACTOR).wrapping_add(SEED);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    state = fold(state ^ u64::from_le_bytes(last), FACTOR);
    fold(state ^ SEED, FACTOR ^ 0x5555_5555_5555_5555)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stay_near_the_target() {
        for target in [8, 32, 117, 512] {
            let rule = Rule::new(target);
            let (mut count, mut nodes, mut longest) = (0, 0u32, 0);
            let rows = 200_000u32;
            for i in 0..rows {
                if rule.begins_node(&i.to_be_bytes(), 0, count) {
                    longest = longest.max(count);
                    nodes += 1;
                    count = 0;
                }
                count += 1;
            }
            let mean = rows / nodes;
            assert!(mean * 4 >= target * 3 && mean * 10 < target * 12, "target {target}, mean {mean}");
            assert!(longest <= rule.max());
        }
    }

    #[test]
    fn the_hash_is_part_of_the_format() {
        assert_eq!(level_hash(b"", 0), 0x9639d59350280f01);
        assert_eq!(level_hash(b"key", 0), 0x1abdb159285d2796);
        assert_eq!(level_hash(b"key", 1), 0x511a320569bd21b5);
        assert_eq!(level_hash(b"a key of more than eight bytes", 2), 0x57b338d297aa523e);
        assert_ne!(level_hash(b"a", 0), level_hash(b"a", 1));
        assert_ne!(level_hash(b"a", 0), level_hash(b"a\0", 0));
    }
}
