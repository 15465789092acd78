//! `uuid`.

use crate::error::{Error, Result};
use crate::value::bytea::push_hex;

/// Reads 32 hexadecimal digits, with hyphens after any group of four and braces around all.
/// # Errors
/// `InvalidText`.
pub fn parse(text: &str) -> Result<[u8; 16]> {
    read(text.as_bytes()).ok_or_else(|| Error::invalid_text("uuid", text))
}

fn read(text: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match text {
        [b'{', inner @ .., b'}'] => inner,
        [b'{', ..] => return None,
        _ => text,
    };
    let mut out = [0; 16];
    for (i, byte) in out.iter_mut().enumerate() {
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        rest = match tail {
            [b'-', tail @ ..] if i % 2 == 1 && i < 15 => tail,
            _ => tail,
        };
    }
    rest.is_empty().then_some(out)
}

/// Appends the text.
pub fn format(uuid: &[u8; 16], out: &mut Vec<u8>) {
    for (i, group) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if i > 0 {
            out.push(b'-');
        }
        push_hex(&uuid[group], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_input_forms_give_the_same_uuid() {
        for text in [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            let mut out = Vec::new();
            format(&parse(text).unwrap(), &mut out);
            assert_eq!(out, b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        }
        for text in [
            "",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a-0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11 ",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
