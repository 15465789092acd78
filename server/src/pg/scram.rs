//! SCRAM-SHA-256 with the verifier that a role has; the exchange itself is pgwire's.

use pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal};

/// What the server tells a client about mechanisms.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Reads `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
pub fn parse_verifier(verifier: &str) -> Option<ScramSecret> {
    let rest = verifier.strip_prefix("SCRAM-SHA-256$")?;
    let (parameters, keys) = rest.split_once('$')?;
    let (iterations, salt) = parameters.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    Some(ScramSecret::Verifier {
        salt: decode_base64(salt)?,
        iterations: iterations.parse().ok()?,
        stored_key: decode_base64(stored_key)?,
        server_key: decode_base64(server_key)?,
    })
}

/// A secret that no password matches: the exchange runs to its end for a role that does not exist, too, so that a client
/// cannot find out which roles there are. The salt is the same each time it asks for a name.
pub fn mock_secret(seed: &[u8], user: &str) -> ScramSecret {
    let mut bytes = seed.to_vec();
    bytes.extend_from_slice(user.as_bytes());
    let salt = blake(&bytes)[..16].to_vec();
    ScramSecret::Verifier { salt, iterations: SCRAM_ITERATIONS, stored_key: rand::random::<[u8; 32]>().to_vec(), server_key: vec![0; 32] }
}

fn blake(bytes: &[u8]) -> [u8; 32] {
    strandline_storage::ChunkAddress::of(bytes).0
}

/// The first step: (server-first message, what waits for the client's proof). `None`: not a SCRAM message.
pub fn first(client_first: &[u8], secret: ScramSecret) -> Option<(String, ScramServerAuthWaitingForClientFinal)> {
    ScramServerAuth::new().on_client_first_message_with_secret(client_first, secret).ok()
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_made_by_us_parses() {
        let verifier = crate::pg::hash_password("secret");
        match parse_verifier(&verifier) {
            Some(ScramSecret::Verifier { salt, iterations, stored_key, server_key }) => {
                assert_eq!((salt.len(), iterations, stored_key.len(), server_key.len()), (16, 4096, 32, 32));
            }
            _ => panic!("{verifier}"),
        }
        assert!(parse_verifier("md5abc").is_none());
    }
}
