//! From an accepted socket to a session: encryption is refused, the user proves who he is, the session opens.

use std::sync::Arc;

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{GssEncResponse, SslResponse};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, SecretKey};
use strandline_sql::error::{ErrorCode, SqlError};
use strandline_sql::session::{ConnectRequest, Session};

use crate::pg::connection::blocking;
use crate::pg::frontend::{Frontend, Opening};
use crate::pg::reply;
use crate::pg::scram;
use crate::pg::wire::{End, Wire};
use crate::pg::{Shared, Slot};

/// Encryption requests that one connection may make before it starts.
const NEGOTIATIONS_MAX: usize = 4;

/// What the first messages of a connection lead to.
pub enum Start {
    Session(Box<Session>, bytes::Bytes, Slot),
    /// A cancel request, already carried out.
    Canceled,
}

/// Runs the start of a connection. It counts as one of `connections_max` from its startup packet on, so that neither
/// sockets that say nothing nor cancel requests take a place.
/// # Errors
/// `End::Fatal` with what the client is to be told.
pub async fn start(wire: &mut Wire, shared: &Arc<Shared>, connections_max: usize) -> Result<Start, End> {
    let mut negotiations = 0;
    let (minor, parameters) = loop {
        match wire.opening().await? {
            Opening::Ssl => reply::put(&mut wire.out, PgWireBackendMessage::SslResponse(SslResponse::Refuse)),
            Opening::Gss => reply::put(&mut wire.out, PgWireBackendMessage::GssEncResponse(GssEncResponse::Refuse)),
            Opening::Cancel { pid, secret } => {
                shared.cancel(pid, &secret);
                return Ok(Start::Canceled);
            }
            Opening::Startup { major: 3, minor, parameters } => break (minor, parameters),
            Opening::Startup { major, minor, .. } => {
                return Err(fatal(
                    ErrorCode::FeatureNotSupported,
                    format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"),
                ));
            }
        }
        wire.flush().await?;
        negotiations += 1;
        if negotiations > NEGOTIATIONS_MAX {
            return Err(fatal(ErrorCode::ProtocolViolation, "too many negotiation requests"));
        }
    };
    let slot = Slot::take(shared, connections_max).ok_or_else(too_many)?;
    let mut request = ConnectRequest { client: wire.peer, ..ConnectRequest::default() };
    let mut unknown_options = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "user" => request.user = value,
            "database" => request.database = value,
            "options" => request.settings.extend(parse_options(&value)?),
            "replication" => {
                if !matches!(value.as_str(), "false" | "off" | "no" | "0") {
                    return Err(End::fatal(SqlError::unsupported("a replication connection")));
                }
            }
            option if option.starts_with("_pq_.") => unknown_options.push(name),
            _ => request.settings.push((name, value)),
        }
    }
    if request.user.is_empty() {
        return Err(fatal(ErrorCode::InvalidAuthorization, "no PostgreSQL user name specified in startup packet"));
    }
    if request.database.is_empty() {
        request.database = request.user.clone();
    }
    if minor > 0 || !unknown_options.is_empty() {
        reply::put(&mut wire.out, PgWireBackendMessage::NegotiateProtocolVersion(NegotiateProtocolVersion::new(0, unknown_options)));
    }
    authenticate(wire, shared, &request.user).await?;
    let engine = shared.engine.clone();
    let session = blocking(move || engine.connect(request)).await?.map_err(End::fatal)?;
    reply::put(&mut wire.out, PgWireBackendMessage::Authentication(Authentication::Ok));
    for (name, value) in session.take_reports() {
        reply::parameter_status(&mut wire.out, name, &value);
    }
    let secret: i32 = rand::random();
    reply::put(&mut wire.out, PgWireBackendMessage::BackendKeyData(BackendKeyData::new(session.pid(), SecretKey::I32(secret))));
    reply::ready(&mut wire.out, session.status());
    wire.flush().await?;
    Ok(Start::Session(Box::new(session), bytes::Bytes::copy_from_slice(&secret.to_be_bytes()), slot))
}

/// One more connection would be too many.
pub fn too_many() -> End {
    fatal(ErrorCode::TooManyConnections, "sorry, too many clients already")
}

fn fatal(code: ErrorCode, message: impl Into<String>) -> End {
    End::fatal(SqlError::new(code, message))
}

async fn authenticate(wire: &mut Wire, shared: &Arc<Shared>, user: &str) -> Result<(), End> {
    let refused = || fatal(ErrorCode::InvalidPassword, format!("password authentication failed for user \"{user}\""));
    let role = shared.engine.role(user).map_err(End::fatal)?;
    let secret = role.as_ref().and_then(|role| scram::parse_verifier(role.password.as_deref()?));
    let known = secret.is_some();
    let secret = secret.unwrap_or_else(|| scram::mock_secret(&shared.mock_seed, user));

    reply::put(&mut wire.out, PgWireBackendMessage::Authentication(Authentication::SASL(vec![scram::MECHANISM.into()])));
    wire.flush().await?;
    let initial = password_message(wire).await?;
    // SASLInitialResponse: mechanism, zero byte, length of the data, data.
    let end = initial.iter().position(|b| *b == 0).ok_or_else(malformed)?;
    if &initial[..end] != scram::MECHANISM.as_bytes() {
        return Err(fatal(ErrorCode::ProtocolViolation, "client selected an invalid SASL authentication mechanism"));
    }
    let client_first = initial.get(end + 5..).ok_or_else(malformed)?;
    let (server_first, waiting) = scram::first(client_first, secret).ok_or_else(malformed)?;
    reply::put(&mut wire.out, PgWireBackendMessage::Authentication(Authentication::SASLContinue(server_first.into())));
    wire.flush().await?;
    let client_final = password_message(wire).await?;
    let server_final = waiting.on_client_final_message(&client_final).map_err(|_| refused())?;
    if !known {
        return Err(refused());
    }
    if !role.is_some_and(|role| role.login) {
        return Err(fatal(ErrorCode::InvalidAuthorization, format!("role \"{user}\" is not permitted to log in")));
    }
    reply::put(&mut wire.out, PgWireBackendMessage::Authentication(Authentication::SASLFinal(server_final.into())));
    Ok(())
}

fn malformed() -> End {
    fatal(ErrorCode::ProtocolViolation, "malformed SCRAM message")
}

async fn password_message(wire: &mut Wire) -> Result<bytes::Bytes, End> {
    match wire.message(false).await? {
        Frontend::Password(bytes) => Ok(bytes),
        _ => Err(fatal(ErrorCode::ProtocolViolation, "expected SASL response")),
    }
}

/// The command-line options that libpq's `options` may hold: `-c name=value` and `--name=value`.
fn parse_options(text: &str) -> Result<Vec<(String, String)>, End> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment = match word.as_str() {
            "-c" => words.next(),
            w if w.starts_with("--") => Some(w[2..].to_owned()),
            w if w.starts_with("-c") => Some(w[2..].to_owned()),
            _ => None,
        };
        match assignment.as_deref().and_then(|a| a.split_once('=')) {
            Some((name, value)) => settings.push((name.replace('-', "_"), value.to_owned())),
            None => return Err(fatal(ErrorCode::SyntaxError, format!("invalid command-line argument for server process: {word}"))),
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_a_command_line() {
        let parsed = parse_options("-c search_path=a\\ b --statement-timeout=5s -cjit=off").ok().unwrap();
        assert_eq!(
            parsed,
            [("search_path", "a b"), ("statement_timeout", "5s"), ("jit", "off")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert!(parse_options("-x").is_err());
    }
}
