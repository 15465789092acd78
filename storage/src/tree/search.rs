//! Searching keys.

/// The first eight bytes of a key as a number: keys sort like it where it differs.
pub(super) fn key_prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

/// Binary search; `compare` says how an entry compares to what is sought.
pub(super) fn search(count: usize, compare: impl Fn(usize) -> std::cmp::Ordering) -> Result<usize, usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = (low + high) / 2;
        match compare(middle) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Ok(middle),
        }
    }
    Err(low)
}

/// Searches keys of one width, that of `key`, which is not 0. Keys of a leaf mostly grow evenly after the bytes that they have in common
/// (serial numbers, hashes), so the search begins where the key should be.
pub(super) fn find_fixed(keys: &[u8], key: &[u8]) -> Result<usize, usize> {
    let width = key.len();
    let count = keys.len() / width;
    let nth = |row: usize| &keys[width * row..width * (row + 1)];
    if count == 0 {
        return Err(0);
    }
    // Keys of at most eight bytes are numbers themselves; of longer ones the bytes are where they begin to differ.
    let (skip, exact) = if width <= 8 {
        (0, true)
    } else {
        let common = std::iter::zip(nth(0), nth(count - 1)).take_while(|(a, b)| a == b).count();
        let skip = common.min(width - 8);
        match key[..skip].cmp(&nth(0)[..skip]) {
            std::cmp::Ordering::Less => return Err(0),
            std::cmp::Ordering::Greater => return Err(count),
            std::cmp::Ordering::Equal => (skip, skip == width - 8),
        }
    };
    let at = match width {
        5 => lower_bound(count, key_number(key), |row| {
            let [a, b, c, d, e] = *keys[5 * row..].first_chunk().expect("BUG: a key is cut short");
            u64::from_be_bytes([0, 0, 0, a, b, c, d, e])
        }),
        8.. => lower_bound(count, key_number(&key[skip..]), |row| {
            u64::from_be_bytes(*keys[width * row + skip..].first_chunk().expect("BUG: a key is cut short"))
        }),
        _ => lower_bound(count, key_number(key), |row| key_number(nth(row))),
    };
    if exact {
        return if at < count && nth(at) == key { Ok(at) } else { Err(at) };
    }
    if at == count || nth(at)[skip..skip + 8] != key[skip..skip + 8] {
        return Err(at);
    }
    // Of those with the same number, what follows decides.
    search(count - at, |row| nth(at + row).cmp(key)).map(|row| at + row).map_err(|row| at + row)
}

/// The first bytes of a key, eight at most, as a number that sorts like them.
fn key_number(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(8);
    bytes[8 - length..].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

/// The first of `count` ascending numbers that is not below `sought`: looked for where it should be if they grow evenly, then in steps
/// that double, then by halving.
fn lower_bound(count: usize, sought: u64, number: impl Fn(usize) -> u64) -> usize {
    let (first, last) = (number(0), number(count - 1));
    if sought <= first {
        return 0;
    }
    if sought > last {
        return count;
    }
    // Below the first and at most the last, so there are two at least, and they differ. Rounding does no harm to a guess.
    let guess = ((sought - first) as f64 / (last - first) as f64 * (count - 1) as f64) as usize;
    let guess = guess.min(count - 1);
    let found = number(guess);
    // Those before `low` are below `sought`, those from `high` on are not.
    let (mut low, mut high) = (1, count - 1);
    let mut step = 1;
    if found < sought {
        low = guess + 1;
        while low + step <= high {
            if number(low + step - 1) < sought {
                low += step;
            } else {
                high = low + step - 1;
                break;
            }
            step *= 2;
        }
    } else {
        high = guess;
        while high >= low + step {
            if number(high - step) >= sought {
                high -= step;
            } else {
                low = high - step + 1;
                break;
            }
            step *= 2;
        }
    }
    while low < high {
        let middle = (low + high) / 2;
        if number(middle) < sought { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Keys of one width: serial numbers, even ones, ones in bunches, with bytes in common before and after.
    fn sets(width: usize, random: &mut StdRng) -> Vec<BTreeSet<Vec<u8>>> {
        let count = random.random_range(0..400);
        let tail = |n: u64| -> Vec<u8> {
            let bytes = n.to_be_bytes();
            (0..width).map(|i| (i + 8).checked_sub(width).map_or(0x80, |at| bytes[at])).collect()
        };
        let serial = (0..count).map(|n| tail(n + 77)).collect();
        let hashes = (0..count).map(|_| (0..width).map(|_| random.random()).collect()).collect();
        let steep = (0..count).map(|n| tail(1 << (n % 64))).collect();
        let few = (0..count).map(|_| (0..width).map(|_| random.random_range(0..3)).collect()).collect();
        let ends = (0..count).map(|_| (0..width).map(|i| if i == 0 || i + 1 == width { random.random_range(0..9) } else { 7 }).collect());
        vec![serial, hashes, steep, few, ends.collect()]
    }

    #[test]
    fn every_key_is_found_and_every_other_has_its_place() {
        let mut random = StdRng::seed_from_u64(7);
        for round in 0..400 {
            let width = 1 + round % 26;
            for set in sets(width, &mut random) {
                let keys: Vec<Vec<u8>> = set.into_iter().collect();
                let flat = keys.concat();
                let mut sought = keys.clone();
                for key in &keys {
                    for step in [1u8, 255] {
                        let mut near = key.clone();
                        let at = random.random_range(0..width);
                        near[at] = near[at].wrapping_add(step);
                        sought.push(near);
                    }
                }
                sought.extend([vec![0; width], vec![255; width]]);
                for key in sought {
                    assert_eq!(find_fixed(&flat, &key), keys.binary_search(&key), "{key:?} in {keys:?}");
                }
            }
        }
    }

    #[test]
    fn a_prefix_sorts_like_its_key() {
        let keys: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0", b"abcdefg", b"abcdefgh", b"abcdefghi"];
        assert!(keys.windows(2).all(|pair| key_prefix(pair[0]) <= key_prefix(pair[1])));
        assert!(key_prefix(b"abcdefg") < key_prefix(b"abcdefgh"));
    }
}
