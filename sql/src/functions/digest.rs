//! MD5 and the SHA-2 family, for the SQL functions of these names (not for anything that needs to be secret).

/// Appends the padding of MD5 and SHA-2: a one bit, zeros, the length in bits.
fn padded(input: &[u8], block: usize, big_endian: bool) -> Vec<u8> {
    let mut data = input.to_vec();
    let bits = (input.len() as u64).wrapping_mul(8);
    let length_bytes = block / 8;
    data.push(0x80);
    while data.len() % block != block - length_bytes {
        data.push(0);
    }
    if big_endian {
        data.extend(std::iter::repeat_n(0, length_bytes - 8));
        data.extend(bits.to_be_bytes());
    } else {
        data.extend(bits.to_le_bytes());
    }
    data
}

pub fn md5(input: &[u8]) -> [u8; 16] {
    const SHIFTS: [u32; 16] = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded(input, 64, false).chunks_exact(64) {
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let [mut a, mut b, mut c, mut d] = state;
        for i in 0..64 {
            let (f, g) = match i / 16 {
                0 => (b & c | !b & d, i),
                1 => (d & b | !d & c, (5 * i + 1) % 16),
                2 => (b ^ c ^ d, (3 * i + 5) % 16),
                _ => (c ^ (b | !d), 7 * i % 16),
            };
            // The constants are the sines of the step numbers.
            let k = (((i + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a.wrapping_add(f).wrapping_add(k).wrapping_add(words[g]);
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(SHIFTS[i / 16 * 4 + i % 4]));
        }
        for (s, v) in state.iter_mut().zip([a, b, c, d]) {
            *s = s.wrapping_add(v);
        }
    }
    let mut out = [0; 16];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// The first primes, whose roots are SHA-2's constants.
fn primes(count: usize) -> Vec<u64> {
    (2u64..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).take(count).collect()
}

/// The first 64 bits of the fraction of a prime's cube root, exactly: the integer cube root of p * 2^192.
fn cube_root_fraction(p: u64) -> u64 {
    use num_bigint::BigUint;
    let root = (BigUint::from(p) << 192u32).cbrt();
    low_64(&root)
}

fn square_root_fraction(p: u64) -> u64 {
    use num_bigint::BigUint;
    let root = (BigUint::from(p) << 128u32).sqrt();
    low_64(&root)
}

fn low_64(number: &num_bigint::BigUint) -> u64 {
    number.iter_u64_digits().next().unwrap_or(0)
}

static ROUND_CONSTANTS: std::sync::LazyLock<Vec<u64>> =
    std::sync::LazyLock::new(|| primes(80).into_iter().map(cube_root_fraction).collect());

fn sha2_32(input: &[u8], mut state: [u32; 8]) -> [u8; 32] {
    for block in padded(input, 64, true).chunks_exact(64) {
        let mut w = [0u32; 64];
        for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ w[i - 15] >> 3;
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        for i in 0..64 {
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let k = (ROUND_CONSTANTS[i] >> 32) as u32;
            let t1 = h.wrapping_add(s1).wrapping_add(e & f ^ !e & g).wrapping_add(k).wrapping_add(w[i]);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let t2 = s0.wrapping_add(a & b ^ a & c ^ b & c);
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
        }
        for (s, v) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *s = s.wrapping_add(v);
        }
    }
    let mut out = [0; 32];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}

fn sha2_64(input: &[u8], mut state: [u64; 8]) -> [u8; 64] {
    for block in padded(input, 128, true).chunks_exact(128) {
        let mut w = [0u64; 80];
        for (word, bytes) in w.iter_mut().zip(block.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(bytes);
            *word = u64::from_be_bytes(eight);
        }
        for i in 16..80 {
            let s0 = w[i - 15].rotate_right(1) ^ w[i - 15].rotate_right(8) ^ w[i - 15] >> 7;
            let s1 = w[i - 2].rotate_right(19) ^ w[i - 2].rotate_right(61) ^ w[i - 2] >> 6;
            w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        for i in 0..80 {
            let s1 = e.rotate_right(14) ^ e.rotate_right(18) ^ e.rotate_right(41);
            let t1 = h.wrapping_add(s1).wrapping_add(e & f ^ !e & g).wrapping_add(ROUND_CONSTANTS[i]).wrapping_add(w[i]);
            let s0 = a.rotate_right(28) ^ a.rotate_right(34) ^ a.rotate_right(39);
            let t2 = s0.wrapping_add(a & b ^ a & c ^ b & c);
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
        }
        for (s, v) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *s = s.wrapping_add(v);
        }
    }
    let mut out = [0; 64];
    for (bytes, word) in out.chunks_exact_mut(8).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}

fn initial(skip: usize) -> [u64; 8] {
    let mut state = [0; 8];
    for (s, p) in state.iter_mut().zip(primes(8 + skip).into_iter().skip(skip)) {
        *s = square_root_fraction(p);
    }
    state
}

pub fn sha256(input: &[u8]) -> [u8; 32] {
    sha2_32(input, initial(0).map(|s| (s >> 32) as u32))
}

/// SHA-224 begins with the lower halves of SHA-384's state.
pub fn sha224(input: &[u8]) -> Vec<u8> {
    sha2_32(input, initial(8).map(|s| s as u32))[..28].to_vec()
}

pub fn sha512(input: &[u8]) -> [u8; 64] {
    sha2_64(input, initial(0))
}

pub fn sha384(input: &[u8]) -> Vec<u8> {
    sha2_64(input, initial(8))[..48].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn digests_of_abc_are_the_published_ones() {
        assert_eq!(hex(&md5(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex(&sha224(b"abc")), "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7");
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(hex(&sha384(b"abc")).starts_with("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded163"));
        assert!(hex(&sha512(b"abc")).starts_with("ddaf35a193617abacc417349ae204131"));
    }
}
