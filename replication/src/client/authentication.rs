//! Proving who we are: SCRAM-SHA-256, md5, or the password itself.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;

use super::connection::{Connection, ConnectionConfig, take_text, unexpected};
use crate::error::{Error, Result};

const OK: i32 = 0;
const CLEARTEXT_PASSWORD: i32 = 3;
const MD5_PASSWORD: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Answers the server's requests until it says that we are in.
pub(super) async fn authenticate(connection: &mut Connection, config: &ConnectionConfig) -> Result<()> {
    let (method, mut body) = request(connection).await?;
    let mut out = BytesMut::new();
    match method {
        OK => return Ok(()),
        CLEARTEXT_PASSWORD => frontend::password_message(password(config)?.as_bytes(), &mut out).map_err(unusable_password)?,
        MD5_PASSWORD => {
            if body.len() < 4 {
                return Err(Error::Protocol("an md5 request without a salt".into()));
            }
            let mut salt = [0; 4];
            body.copy_to_slice(&mut salt);
            let hash = md5_hash(config.user.as_bytes(), password(config)?.as_bytes(), salt);
            frontend::password_message(hash.as_bytes(), &mut out).map_err(unusable_password)?;
        }
        SASL => return scram(connection, config, body).await,
        other => return Err(Error::Setup(format!("the primary asks for authentication method {other}, which is not supported"))),
    }
    connection.send(&out).await?;
    match request(connection).await? {
        (OK, _) => Ok(()),
        (other, _) => Err(Error::Protocol(format!("authentication request {other} after the password"))),
    }
}

async fn scram(connection: &mut Connection, config: &ConnectionConfig, mut mechanisms: Bytes) -> Result<()> {
    let mut offered = Vec::new();
    while let Some(mechanism) = take_text(&mut mechanisms).filter(|m| !m.is_empty()) {
        offered.push(mechanism);
    }
    if !offered.iter().any(|m| m == sasl::SCRAM_SHA_256) {
        return Err(Error::Setup(format!("the primary offers only the authentication mechanisms {}", offered.join(", "))));
    }
    let refused = |e: std::io::Error| Error::Protocol(format!("authentication failed: {e}"));
    let mut exchange = sasl::ScramSha256::new(password(config)?.as_bytes(), sasl::ChannelBinding::unsupported());
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(sasl::SCRAM_SHA_256, exchange.message(), &mut out).map_err(refused)?;
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

async fn request(connection: &mut Connection) -> Result<(i32, Bytes)> {
    let frame = connection.frame().await?;
    if frame.tag != b'R' || frame.body.len() < 4 {
        return Err(unexpected(&frame, "authenticating"));
    }
    let mut body = frame.body;
    Ok((body.get_i32(), body))
}

fn password(config: &ConnectionConfig) -> Result<&str> {
    config
        .password
        .as_deref()
        .filter(|p| !p.is_empty())
        .ok_or_else(|| Error::Setup(format!("the primary asks for a password for user \"{}\" and none is configured", config.user)))
}

fn unusable_password(_: std::io::Error) -> Error {
    Error::Setup("the password for the primary contains a zero byte".into())
}
