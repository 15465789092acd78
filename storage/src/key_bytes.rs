//! Encoded keys in memory.

use std::fmt;
use std::ops::Deref;

const INLINE_MAX: usize = 22;

/// The bytes of a key, which need no allocation when they are few. Sorts like them.
#[derive(Clone)]
pub struct KeyBytes(Held);

#[derive(Clone)]
enum Held {
    Inline { length: u8, bytes: [u8; INLINE_MAX] },
    Heap(Box<[u8]>),
}

impl KeyBytes {
    pub fn new(key: &[u8]) -> Self {
        if key.len() <= INLINE_MAX {
            let mut bytes = [0; INLINE_MAX];
            bytes[..key.len()].copy_from_slice(key);
            KeyBytes(Held::Inline { length: key.len() as u8, bytes })
        } else {
            KeyBytes(Held::Heap(key.into()))
        }
    }

    /// What it takes beside itself.
    pub(crate) fn heap_size(&self) -> usize {
        match &self.0 {
            Held::Inline { .. } => 0,
            Held::Heap(bytes) => bytes.len(),
        }
    }

    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Held::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Held::Heap(bytes) => bytes,
        }
    }
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<&[u8]> for KeyBytes {
    fn from(key: &[u8]) -> Self {
        KeyBytes::new(key)
    }
}

impl From<Vec<u8>> for KeyBytes {
    fn from(key: Vec<u8>) -> Self {
        if key.len() <= INLINE_MAX { KeyBytes::new(&key) } else { KeyBytes(Held::Heap(key.into())) }
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &KeyBytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for KeyBytes {}

impl PartialOrd for KeyBytes {
    fn partial_cmp(&self, other: &KeyBytes) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyBytes {
    fn cmp(&self, other: &KeyBytes) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl std::hash::Hash for KeyBytes {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_their_bytes_however_they_are_held() {
        let bytes: Vec<u8> = (0..40).collect();
        for length in 0..=bytes.len() {
            let key = KeyBytes::new(&bytes[..length]);
            assert_eq!(*key, bytes[..length]);
            assert_eq!(key, KeyBytes::from(bytes[..length].to_vec()));
            assert_eq!(key.heap_size(), if length <= INLINE_MAX { 0 } else { length });
            // A zero behind a short key is not the key that ends with a zero.
            let longer = KeyBytes::from([&bytes[..length], &[0]].concat());
            assert!(key < longer && key != longer);
        }
        assert!(KeyBytes::new(&[9]) > KeyBytes::new(&bytes));
    }
}
