//! Proving who we are: SCRAM-SHA-256, md5, or the password itself.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;

use super::channel_binding::server_end_point;
use super::connection::{Connection, ConnectionConfig, take_text, unexpected};
use super::places::Place;
use super::tls::ChannelBinding;
use crate::error::{Error, Result};

const OK: i32 = 0;
const CLEARTEXT_PASSWORD: i32 = 3;
const MD5_PASSWORD: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Answers the server's requests until it says that we are in.
pub(super) async fn authenticate(connection: &mut Connection, place: &Place, config: &ConnectionConfig) -> Result<()> {
    let (method, mut body) = request(connection).await?;
    if config.tls.channel_binding == ChannelBinding::Require && method != SASL {
        return Err(Error::Setup("channel_binding is require, and the primary asks for no authentication that has it".into()));
    }
    let mut out = BytesMut::new();
    match method {
        OK => return Ok(()),
        CLEARTEXT_PASSWORD => frontend::password_message(password(place, config)?.as_bytes(), &mut out).map_err(unusable_password)?,
        MD5_PASSWORD => {
            if body.len() < 4 {
                return Err(Error::Protocol("an md5 request without a salt".into()));
            }
            let mut salt = [0; 4];
            body.copy_to_slice(&mut salt);
            let hash = md5_hash(config.user.as_bytes(), password(place, config)?.as_bytes(), salt);
            frontend::password_message(hash.as_bytes(), &mut out).map_err(unusable_password)?;
        }
        SASL => return scram(connection, place, config, body).await,
        other => return Err(Error::Setup(format!("the primary asks for authentication method {other}, which is not supported"))),
    }
    connection.send(&out).await?;
    match request(connection).await? {
        (OK, _) => Ok(()),
        (other, _) => Err(Error::Protocol(format!("authentication request {other} after the password"))),
    }
}

async fn scram(connection: &mut Connection, place: &Place, config: &ConnectionConfig, mut mechanisms: Bytes) -> Result<()> {
    let mut offered = Vec::new();
    while let Some(mechanism) = take_text(&mut mechanisms).filter(|m| !m.is_empty()) {
        offered.push(mechanism);
    }
    let refused = |e: std::io::Error| Error::Protocol(format!("authentication failed: {e}"));
    let end_point = connection.socket.server_certificate().and_then(server_end_point);
    let (mechanism, binding) = choose(&offered, connection.socket.is_tls(), end_point, config.tls.channel_binding)?;
    let mut exchange = sasl::ScramSha256::new(password(place, config)?.as_bytes(), binding);
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(mechanism, exchange.message(), &mut out).map_err(refused)?;
    connection.send(&out).await?;
    match request(connection).await? {
        (SASL_CONTINUE, body) => exchange.update(&body).map_err(refused)?,
        (other, _) => return Err(Error::Protocol(format!("authentication request {other} within SCRAM"))),
    }
    out.clear();
    frontend::sasl_response(exchange.message(), &mut out).map_err(refused)?;
    connection.send(&out).await?;
    // The server's signature shows that it knows the password, too.
    match request(connection).await? {
        (SASL_FINAL, body) => exchange.finish(&body).map_err(refused)?,
        (other, _) => return Err(Error::Protocol(format!("authentication request {other} within SCRAM"))),
    }
    match request(connection).await? {
        (OK, _) => Ok(()),
        (other, _) => Err(Error::Protocol(format!("authentication request {other} after SCRAM"))),
    }
}

/// The mechanism and what of the TLS connection it covers. Where we could and the server says that it cannot, the exchange tells the server so, who then notices
/// if somebody in between has taken its offer away.
fn choose(
    offered: &[String],
    is_tls: bool,
    end_point: Option<Vec<u8>>,
    wish: ChannelBinding,
) -> Result<(&'static str, sasl::ChannelBinding)> {
    let offers = |mechanism: &str| offered.iter().any(|m| m == mechanism);
    match end_point {
        Some(hash) if wish != ChannelBinding::Disable && offers(sasl::SCRAM_SHA_256_PLUS) => {
            Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)))
        }
        _ if wish == ChannelBinding::Require => {
            Err(Error::Setup("channel_binding is require, and the primary or its certificate does not allow it".into()))
        }
        _ if !offers(sasl::SCRAM_SHA_256) => {
            Err(Error::Setup(format!("the primary offers only the authentication mechanisms {}", offered.join(", "))))
        }
        Some(_) if is_tls && wish != ChannelBinding::Disable => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
        _ => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
    }
}

async fn request(connection: &mut Connection) -> Result<(i32, Bytes)> {
    let frame = connection.frame().await?;
    if frame.tag != b'R' || frame.body.len() < 4 {
        return Err(unexpected(&frame, "authenticating"));
    }
    let mut body = frame.body;
    Ok((body.get_i32(), body))
}

fn password<'a>(place: &'a Place, config: &ConnectionConfig) -> Result<&'a str> {
    place
        .password
        .as_deref()
        .filter(|p| !p.is_empty())
        .ok_or_else(|| Error::Setup(format!("the primary asks for a password for user \"{}\" and none is configured", config.user)))
}

fn unusable_password(_: std::io::Error) -> Error {
    Error::Setup("the password for the primary contains a zero byte".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_covers_the_connection_where_both_sides_can() {
        let both = ["SCRAM-SHA-256-PLUS".to_owned(), "SCRAM-SHA-256".to_owned()];
        let mechanism = |offered: &[String], tls: bool, hash: Option<Vec<u8>>, wish| choose(offered, tls, hash, wish).ok().map(|(m, _)| m);
        let hash = || Some(vec![1; 32]);
        use ChannelBinding::{Disable, Prefer, Require};
        assert_eq!(mechanism(&both, true, hash(), Prefer), Some("SCRAM-SHA-256-PLUS"));
        assert_eq!(mechanism(&both, true, hash(), Require), Some("SCRAM-SHA-256-PLUS"));
        assert_eq!(mechanism(&both, true, hash(), Disable), Some("SCRAM-SHA-256"));
        assert_eq!(mechanism(&both[1..], true, hash(), Prefer), Some("SCRAM-SHA-256"));
        assert_eq!(mechanism(&both[1..], true, hash(), Require), None);
        assert_eq!(mechanism(&both, false, None, Prefer), Some("SCRAM-SHA-256"));
        assert_eq!(mechanism(&both, true, None, Require), None);
        assert_eq!(mechanism(&["OTHER".to_owned()], false, None, Prefer), None);
    }
}
