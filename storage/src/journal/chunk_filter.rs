//! Which sealed segments may hold a chunk: without this, looking for a chunk would look into every segment's index.
//!
//! Each index has a Bloom filter of its chunks' addresses. In memory the filters of 64 segments lie side by side: word n has
//! bit n of each of the 64 filters. Five words, one for each probe, combined with *and*, name the segments among the 64 that
//! may hold the chunk, for five memory accesses instead of 64 look-ups.
//!
//! Filters have a power of two of bits, and a probe is the low bits of a part of the address; so a smaller filter in a
//! larger table is its own repetition. Costs one to two bytes of memory a chunk; one in 50 segments, or fewer, that do not hold
//! the chunk is asked in vain.

use crate::checked_file::u32_at;
use crate::id::ChunkAddress;

const PROBE_COUNT: usize = 5;
const BITS_PER_CHUNK: usize = 8;
const BIT_COUNT_MIN: usize = 64;
/// A filter does not grow beyond this, which is right for 100,000 chunks a segment; beyond, it says yes more often.
const BIT_COUNT_MAX: usize = 1 << 20;
const GROUP_SIZE: usize = 64;

/// The bit for each probe, before it is cut to the filter's size.
fn probes(address: &ChunkAddress) -> [usize; PROBE_COUNT] {
    // The first bytes decide where it is in the index; these are others.
    std::array::from_fn(|probe| u32_at(&address.0, 8 + probe * 4) as usize)
}

/// The filter of a segment with these chunks; empty for none.
pub(super) fn encode<'a>(count: usize, addresses: impl Iterator<Item = &'a ChunkAddress>) -> Vec<u8> {
    if count == 0 {
        return Vec::new();
    }
    let bit_count = (count * BITS_PER_CHUNK).next_power_of_two().clamp(BIT_COUNT_MIN, BIT_COUNT_MAX);
    let mut filter = vec![0; bit_count / 8];
    for address in addresses {
        for probe in probes(address) {
            let bit = probe & (bit_count - 1);
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

/// The filters of all sealed segments.
#[derive(Debug, Default)]
pub(super) struct ChunkFilter {
    groups: Vec<Group>,
}

/// Bit n of word m: bit m of the filter of the group's n-th segment. A power of two of words, or none.
#[derive(Debug, Default)]
struct Group {
    words: Vec<u64>,
}

impl ChunkFilter {
    /// Enters the filter of the segment at this index (its number less one).
    pub fn enter(&mut self, segment: usize, filter: &[u8]) {
        let bit_count = filter.len() * 8;
        if !bit_count.is_power_of_two() || bit_count > BIT_COUNT_MAX {
            return;
        }
        let (group, member) = (segment / GROUP_SIZE, 1u64 << (segment % GROUP_SIZE));
        if self.groups.len() <= group {
            self.groups.resize_with(group + 1, Group::default);
        }
        let words = &mut self.groups[group].words;
        if words.is_empty() {
            words.resize(bit_count, 0);
        }
        while words.len() < bit_count {
            words.extend_from_within(..);
        }
        for (at, word) in words.iter_mut().enumerate() {
            let bit = at & (bit_count - 1);
            if filter[bit / 8] & 1 << (bit % 8) != 0 {
                *word |= member;
            }
        }
    }

    /// The segments that may hold a chunk, as indexes, the newest first.
    pub fn find(&self, address: &ChunkAddress) -> impl Iterator<Item = usize> + '_ {
        let probes = probes(address);
        self.groups.iter().enumerate().rev().flat_map(move |(group, Group { words })| {
            let mut members =
                if words.is_empty() { 0 } else { probes.iter().fold(u64::MAX, |all, probe| all & words[probe & (words.len() - 1)]) };
            std::iter::from_fn(move || {
                let member = members.checked_ilog2()?;
                members &= !(1 << member);
                Some(group * GROUP_SIZE + member as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_found_in_its_segment_and_few_are_looked_for_in_others() {
        let address = |segment: usize, n: usize| ChunkAddress::of(&[segment.to_le_bytes(), n.to_le_bytes()].concat());
        // Of very different sizes, small ones before and after large ones, some without chunks.
        let count = |segment: usize| [3, 0, 200, 5000, 40][segment % 5];
        let mut filter = ChunkFilter::default();
        for segment in 0..150 {
            let addresses: Vec<_> = (0..count(segment)).map(|n| address(segment, n)).collect();
            filter.enter(segment, &encode(addresses.len(), addresses.iter()));
        }
        let mut surplus = 0;
        for segment in 0..150 {
            for n in 0..count(segment) {
                let found: Vec<usize> = filter.find(&address(segment, n)).collect();
                assert!(found.contains(&segment) && found.is_sorted_by(|a, b| a > b));
                surplus += found.len() - 1;
            }
        }
        let chunk_count: usize = (0..150).map(count).sum();
        assert!(surplus < chunk_count * 5, "{surplus} for {chunk_count}");
        let unknown: usize = (0..1000).map(|n| filter.find(&address(999, n)).count()).sum();
        assert!(unknown < 5000, "{unknown}");
    }
}
