//! Network addresses: `inet`, `cidr`, `macaddr`, `macaddr8`; kept as their canonical text.

use std::net::Ipv6Addr;

use crate::error::{Error, Result, ValueErrorCode};
use crate::value::is_space;

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 3;

/// An address and the number of bits of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inet {
    pub address: Address,
    pub bits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Address {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Address::V4(a) => a,
            Address::V6(a) => a,
        }
    }

    fn size(&self) -> u8 {
        self.bytes().len() as u8 * 8
    }
}

impl Inet {
    /// Reads an address with an optional `/bits`; `cidr` fills up missing octets and takes no bits right of the mask.
    /// # Errors
    /// `InvalidText`, `Value` (22P02).
    pub fn parse(text: &str, cidr: bool) -> Result<Inet> {
        let name = if cidr { "cidr" } else { "inet" };
        let inet = read(text, cidr).ok_or_else(|| Error::invalid_text(name, text))?;
        if cidr && !inet.is_network() {
            return Err(Error::value(ValueErrorCode::InvalidTextRepresentation, format!("invalid cidr value: \"{text}\""))
                .with_detail("Value has bits set to right of mask."));
        }
        Ok(inet)
    }

    /// Says whether all bits right of the mask are zero.
    pub fn is_network(&self) -> bool {
        self.address.bytes().iter().enumerate().all(|(i, b)| {
            let kept = (i32::from(self.bits) - i as i32 * 8).clamp(0, 8);
            u32::from(*b) << kept & 0xFF == 0
        })
    }

    /// The text; `cidr` always shows the bits, `inet` only where they are not all.
    pub fn to_text(&self, cidr: bool) -> String {
        let address = match self.address {
            Address::V4([a, b, c, d]) => format!("{a}.{b}.{c}.{d}"),
            Address::V6(bytes) => {
                let v6 = Ipv6Addr::from(bytes);
                let s = v6.segments();
                // The old form for addresses compatible with IPv4.
                if s[..6] == [0; 6] && s[6] != 0 {
                    format!("::{}.{}.{}.{}", bytes[12], bytes[13], bytes[14], bytes[15])
                } else {
                    v6.to_string()
                }
            }
        };
        if cidr || self.bits != self.address.size() { format!("{address}/{}", self.bits) } else { address }
    }

    /// # Errors
    /// `Value` (22P03).
    pub fn from_binary(bytes: &[u8], cidr: bool) -> Result<Inet> {
        let name = if cidr { "cidr" } else { "inet" };
        let invalid =
            |what: &str| Error::value(ValueErrorCode::InvalidBinaryRepresentation, format!("invalid {what} in external \"{name}\" value"));
        let [family, bits, _, size, address @ ..] = bytes else { return Err(invalid("length")) };
        if usize::from(*size) != address.len() {
            return Err(invalid("length"));
        }
        let address = match *family {
            FAMILY_V4 => Address::V4(address.try_into().map_err(|_| invalid("length"))?),
            FAMILY_V6 => Address::V6(address.try_into().map_err(|_| invalid("length"))?),
            _ => return Err(invalid("address family")),
        };
        let inet = Inet { address, bits: *bits };
        if inet.bits > address.size() {
            return Err(invalid("bits"));
        }
        if cidr && !inet.is_network() {
            return Err(Error::value(ValueErrorCode::InvalidBinaryRepresentation, "invalid external \"cidr\" value")
                .with_detail("Value has bits set to right of mask."));
        }
        Ok(inet)
    }

    pub fn to_binary(&self, cidr: bool, out: &mut Vec<u8>) {
        let bytes = self.address.bytes();
        out.extend([if bytes.len() == 4 { FAMILY_V4 } else { FAMILY_V6 }, self.bits, u8::from(cidr), bytes.len() as u8]);
        out.extend(bytes);
    }
}

fn read(text: &str, cidr: bool) -> Option<Inet> {
    let (address, bits) = match text.split_once('/') {
        Some((a, b)) => (a, Some(b)),
        None => (text, None),
    };
    let bits = match bits {
        Some(b) if !b.is_empty() && b.len() <= 3 && b.bytes().all(|c| c.is_ascii_digit()) => Some(b.parse::<u8>().ok()?),
        Some(_) => return None,
        None => None,
    };
    if address.contains(':') {
        let address = Address::V6(address.parse::<Ipv6Addr>().ok()?.octets());
        return Some(Inet { address, bits: bits.unwrap_or(128) }).filter(|i| i.bits <= 128);
    }
    let mut octets = [0u8; 4];
    let mut count = 0;
    for part in address.split('.') {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octets.get_mut(count)? = part.parse().ok()?;
        count += 1;
    }
    // An address that leaves octets out needs a mask to say that it does.
    if count < 4 && !cidr && bits.is_none() {
        return None;
    }
    // Without a mask, the class of the address decides, but never less than the octets written.
    let bits = bits.unwrap_or_else(|| {
        if !cidr {
            return 32;
        }
        let class = match octets[0] {
            240.. => 32,
            224 if count == 1 => 4,
            224..=239 => 8,
            192..=223 => 24,
            128..=191 => 16,
            _ => 8,
        };
        (count as u8 * 8).max(class)
    });
    Some(Inet { address: Address::V4(octets), bits }).filter(|i| i.bits <= 32)
}

/// Reads a hardware address of 6 bytes (`macaddr`) or 8 (`macaddr8`, which takes 6, too) as text `08:00:2b:01:02:03`.
/// # Errors
/// `InvalidText`.
pub fn parse_mac(text: &str, eight: bool) -> Result<Vec<u8>> {
    let name = if eight { "macaddr8" } else { "macaddr" };
    read_mac(text.trim_matches(is_space), eight).ok_or_else(|| Error::invalid_text(name, text))
}

fn read_mac(text: &str, eight: bool) -> Option<Vec<u8>> {
    let separator = text.chars().find(|c| matches!(c, ':' | '-' | '.'));
    let mut digits = String::new();
    match separator {
        None => digits.push_str(text),
        Some(s) => {
            let groups: Vec<&str> = text.split(s).collect();
            let width = match groups.len() {
                6 | 8 => 2,
                3 | 4 => 4,
                2 => groups[0].len(),
                _ => return None,
            };
            for group in groups {
                // Single digits stand for bytes below 16 where every byte is a group.
                let may_be_short = width == 2 && !eight && group.len() == 1;
                if group.len() != width && !may_be_short {
                    return None;
                }
                if may_be_short {
                    digits.push('0');
                }
                digits.push_str(group);
            }
        }
    }
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) || !(digits.len() == 12 || eight && digits.len() == 16) {
        return None;
    }
    let mut bytes: Vec<u8> = (0..digits.len()).step_by(2).filter_map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok()).collect();
    if eight && bytes.len() == 6 {
        bytes.splice(3..3, [0xFF, 0xFE]);
    }
    Some(bytes)
}

/// The text of a hardware address.
pub fn mac_text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}
