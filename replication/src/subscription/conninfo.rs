//! libpq's connection strings: `host=a port=5432 dbname='my db'`, or `postgresql://user@host:5432/db?sslmode=require`.
//!
//! The rules and the texts of errors are libpq's (PostgreSQL's manual, "Connection Strings"). What libpq knows and we do not do is refused by name.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::client::{ConnectionConfig, PasswordFile, TlsOptions};

/// Options of libpq 15.
const KNOWN: [&str; 37] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "requirepeer",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslmode",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "tty",
    "user",
];

/// What of them is done here.
const SUPPORTED: [&str; 13] = [
    "application_name",
    "channel_binding",
    "dbname",
    "fallback_application_name",
    "host",
    "passfile",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Options with a value at which they ask for nothing.
const HARMLESS: [(&str, &[&str]); 5] = [
    ("client_encoding", &["", "UTF8", "utf8", "UTF-8", "utf-8"]),
    ("gssencmode", &["", "disable", "prefer"]),
    ("target_session_attrs", &["", "any"]),
    ("keepalives", &["", "1"]),
    ("sslcompression", &["", "0"]),
];

/// A parsed connection string: options in the order in which they were given.
#[derive(Clone, PartialEq, Eq)]
pub struct Conninfo {
    options: Vec<(String, String)>,
}

/// Why a connection string cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConninfoError {
    /// It is none. Never shows a value.
    Syntax(String),
    /// It asks for something that is not done here.
    Unsupported(String),
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.options.iter().map(|(name, _)| name)).finish()
    }
}

impl Conninfo {
    /// # Errors
    /// What libpq refuses, and what is not supported.
    pub fn parse(text: &str) -> Result<Conninfo, ConninfoError> {
        let uri = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let options = match uri {
            Some(rest) => parse_uri(rest)?,
            None => parse_keywords(text)?,
        };
        let mut conninfo = Conninfo { options: Vec::new() };
        for (name, value) in options {
            if !KNOWN.contains(&name.as_str()) {
                return Err(ConninfoError::Syntax(format!("invalid connection option \"{name}\"")));
            }
            let harmless = HARMLESS.iter().any(|(harmless, values)| *harmless == name && values.contains(&value.as_str()));
            if harmless {
                continue;
            }
            if !SUPPORTED.contains(&name.as_str()) {
                return Err(ConninfoError::Unsupported(format!("connection option \"{name}\"")));
            }
            // The last one counts.
            conninfo.options.retain(|(other, _)| *other != name);
            conninfo.options.push((name, value));
        }
        conninfo.check()?;
        Ok(conninfo)
    }

    fn check(&self) -> Result<(), ConninfoError> {
        let host = self.get("host").unwrap_or_default();
        if host.contains(',') || self.get("port").is_some_and(|port| port.contains(',')) {
            return Err(ConninfoError::Unsupported("a connection string with several hosts".into()));
        }
        if host.starts_with(['/', '@']) {
            return Err(ConninfoError::Unsupported("a connection over a Unix-domain socket".into()));
        }
        match self.get("port").filter(|port| !port.is_empty()) {
            Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => syntax(format!("invalid port number: \"{port}\"")),
            _ => Ok(()),
        }
    }

    /// An option's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }

    /// Where and as whom to connect; `variable` looks into the environment, as libpq does for what is not given.
    /// # Errors
    /// A value that its option does not take, and the lack of a host.
    pub fn resolve(&self, application_name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<ConnectionConfig, ConninfoError> {
        let given = |name: &str, environment: &str| {
            self.get(name).filter(|value| !value.is_empty()).map(str::to_owned).or_else(|| variable(environment))
        };
        let wrong = |name: &str, value: &str| ConninfoError::Syntax(format!("invalid {name} value: \"{value}\""));
        let host = given("host", "PGHOST").filter(|host| !host.starts_with(['/', '@']));
        let host = host.ok_or_else(|| ConninfoError::Unsupported("a connection without a host (over a Unix-domain socket)".into()))?;
        let port = match given("port", "PGPORT") {
            Some(port) => port.parse().map_err(|_| ConninfoError::Syntax(format!("invalid port number: \"{port}\"")))?,
            None => 5432,
        };
        let user = given("user", "PGUSER").or_else(|| variable("USER")).unwrap_or_else(|| "postgres".to_owned());
        let database = given("dbname", "PGDATABASE").unwrap_or_else(|| user.clone());
        let path = |name: &str, environment: &str| given(name, environment).map(PathBuf::from);
        let mut tls = TlsOptions {
            root_certificate: path("sslrootcert", "PGSSLROOTCERT"),
            certificate: path("sslcert", "PGSSLCERT"),
            key: path("sslkey", "PGSSLKEY"),
            ..TlsOptions::default()
        };
        if let Some(mode) = given("sslmode", "PGSSLMODE") {
            tls.mode = mode.parse().map_err(|()| wrong("sslmode", &mode))?;
        }
        if let Some(wish) = given("channel_binding", "PGCHANNELBINDING") {
            tls.channel_binding = wish.parse().map_err(|()| wrong("channel_binding", &wish))?;
        }
        let password = given("password", "PGPASSWORD").or_else(|| {
            let named = path("passfile", "PGPASSFILE").map(PasswordFile);
            let file = named.or_else(|| variable("HOME").map(|home| PasswordFile::of_home(Path::new(&home))))?;
            file.password(&host, port, &database, &user)
        });
        let name = self.get("application_name").or_else(|| self.get("fallback_application_name")).filter(|name| !name.is_empty());
        let application_name = name.unwrap_or(application_name).to_owned();
        Ok(ConnectionConfig { host, port, user, password, database, application_name, tls })
    }
}

fn syntax<T>(what: impl Into<String>) -> Result<T, ConninfoError> {
    Err(ConninfoError::Syntax(what.into()))
}

fn parse_keywords(text: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let mut options = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(options);
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
            name.push(c);
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.next_if_eq(&'=').is_none() {
            return syntax(format!("missing \"=\" after \"{name}\" in connection info string"));
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                None if quoted => return syntax("unterminated quoted string in connection info string"),
                None => break,
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_ascii_whitespace() => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
            }
        }
        options.push((name, value));
    }
}

/// What follows the scheme of a URI.
fn parse_uri(rest: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let mut options = Vec::new();
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, database) = rest.split_once('/').map_or((rest, None), |(authority, database)| (authority, Some(database)));
    let (user, places) = authority.rsplit_once('@').map_or((None, authority), |(user, places)| (Some(user), places));
    if let Some(user) = user {
        let (user, password) = user.split_once(':').map_or((user, None), |(user, password)| (user, Some(password)));
        options.push(("user".to_owned(), percent_decode(user)?));
        if let Some(password) = password {
            options.push(("password".to_owned(), percent_decode(password)?));
        }
    }
    if places.contains(',') {
        return Err(ConninfoError::Unsupported("a connection string with several hosts".into()));
    }
    let (host, port) = match places.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            None => return syntax("end of string reached when looking for matching \"]\" in IPv6 host address in URI"),
            Some(("", _)) => return syntax("IPv6 host address may not be empty in URI"),
            Some((host, "")) => (host, None),
            Some((host, after)) => match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return syntax("unexpected character after the IPv6 host address in URI (expected \":\" or \"/\")"),
            },
        },
        None => places.split_once(':').map_or((places, None), |(host, port)| (host, Some(port))),
    };
    for (name, value) in [("host", Some(host)), ("port", port), ("dbname", database)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            options.push((name.to_owned(), percent_decode(value)?));
        }
    }
    for parameter in query.into_iter().flat_map(|query| query.split('&')).filter(|parameter| !parameter.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return syntax(format!("missing key/value separator \"=\" in URI query parameter: \"{parameter}\""));
        };
        let name = percent_decode(name)?;
        if value.contains('=') {
            return syntax(format!("extra key/value separator \"=\" in URI query parameter: \"{name}\""));
        }
        let value = percent_decode(value)?;
        match name.as_str() {
            "ssl" if value == "true" => options.push(("sslmode".into(), "require".into())),
            name if !KNOWN.contains(&name) => return syntax(format!("invalid URI query parameter: \"{name}\"")),
            _ => options.push((name, value)),
        }
    }
    Ok(options)
}

fn percent_decode(text: &str) -> Result<String, ConninfoError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        match digit().zip(digit()) {
            None => return syntax("invalid percent-encoded token in the connection string"),
            Some((0, 0)) => return syntax("forbidden value %00 in percent-encoded value"),
            Some((high, low)) => out.push((high * 16 + low) as u8),
        }
    }
    String::from_utf8(out).or_else(|_| syntax("a percent-encoded value is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::SslMode;

    fn options(text: &str) -> Vec<(String, String)> {
        let mut options = Conninfo::parse(text).unwrap().options;
        options.sort();
        options
    }

    fn error(text: &str) -> ConninfoError {
        Conninfo::parse(text).unwrap_err()
    }

    fn syntax_error(text: &str) -> String {
        match error(text) {
            ConninfoError::Syntax(what) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keywords_are_read_with_quotes_and_backslashes() {
        let expected = |list: &[(&str, &str)]| list.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect::<Vec<_>>();
        assert_eq!(options(""), []);
        assert_eq!(
            options(r" host = 'a b'  password='it\'s \\' user=x\ y dbname=''"),
            expected(&[("dbname", ""), ("host", "a b"), ("password", r"it's \"), ("user", "x y")])
        );
        assert_eq!(options("host=a host=b port=1"), expected(&[("host", "b"), ("port", "1")]));
        assert_eq!(syntax_error("foobar"), "missing \"=\" after \"foobar\" in connection info string");
        assert_eq!(syntax_error("i_dont_exist=param"), "invalid connection option \"i_dont_exist\"");
        assert_eq!(syntax_error("host='a"), "unterminated quoted string in connection info string");
        assert_eq!(syntax_error("port=x"), "invalid port number: \"x\"");
        assert_eq!(syntax_error("port=0"), "invalid port number: \"0\"");
        assert_eq!(syntax_error("port=65536"), "invalid port number: \"65536\"");
    }

    #[test]
    fn uris_say_the_same() {
        let same = |uri: &str, keywords: &str| assert_eq!(options(uri), options(keywords), "{uri}");
        same("postgresql://", "");
        same("postgres://h", "host=h");
        same(
            "postgresql://u:p%40ss@h:5433/my%20db?sslmode=require",
            "user=u password=p@ss host=h port=5433 dbname='my db' sslmode=require",
        );
        same("postgresql://u@[::1]:1/d", "user=u host=::1 port=1 dbname=d");
        same("postgresql:///d?host=h&port=2&ssl=true", "dbname=d host=h port=2 sslmode=require");
        assert_eq!(syntax_error("postgresql://h/d?zzz=1"), "invalid URI query parameter: \"zzz\"");
        assert!(syntax_error("postgresql://h/d?host").starts_with("missing key/value separator"));
        assert!(syntax_error("postgresql://h/d?host=a=b").starts_with("extra key/value separator"));
        assert!(syntax_error("postgresql://[::1").contains("\"]\""));
        assert!(syntax_error("postgresql://u%zz@h").contains("percent-encoded"));
        assert!(syntax_error("postgresql://u%00@h").contains("%00"));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (text, named) in [
            ("host=a,b", "several hosts"),
            ("postgresql://a,b/", "several hosts"),
            ("host=/tmp", "Unix-domain"),
            ("host=a options='-c x=y'", "\"options\""),
            ("host=a connect_timeout=3", "\"connect_timeout\""),
            ("host=a gssencmode=require", "\"gssencmode\""),
        ] {
            assert!(matches!(error(text), ConninfoError::Unsupported(what) if what.contains(named)), "{text}");
        }
        assert!(Conninfo::parse("host=a gssencmode=prefer target_session_attrs=any").is_ok());
    }

    #[test]
    fn what_is_not_given_comes_from_the_environment_and_secrets_are_not_shown() {
        let environment = |name: &str| match name {
            "PGUSER" => Some("from env".to_owned()),
            "PGPASSWORD" => Some("env secret".to_owned()),
            "PGSSLMODE" => Some("disable".to_owned()),
            _ => None,
        };
        let conninfo = Conninfo::parse("host=h").unwrap();
        let config = conninfo.resolve("sub", &environment).unwrap();
        assert_eq!(
            (config.host.as_str(), config.port, config.user.as_str(), config.database.as_str()),
            ("h", 5432, "from env", "from env")
        );
        assert_eq!(
            (config.password.as_deref(), config.tls.mode, config.application_name.as_str()),
            (Some("env secret"), SslMode::Disable, "sub")
        );
        let conninfo = Conninfo::parse("host=h user=u password=hunter2 dbname=d application_name=a sslmode=require").unwrap();
        let config = conninfo.resolve("sub", &environment).unwrap();
        assert_eq!((config.user.as_str(), config.password.as_deref(), config.database.as_str()), ("u", Some("hunter2"), "d"));
        assert_eq!((config.tls.mode, config.application_name.as_str()), (SslMode::Require, "a"));
        assert!(!format!("{conninfo:?}").contains("hunter2"));
        assert!(matches!(Conninfo::parse("dbname=d").unwrap().resolve("s", &|_| None), Err(ConninfoError::Unsupported(_))));
        assert!(matches!(Conninfo::parse("host=h sslmode=maybe").unwrap().resolve("s", &|_| None), Err(ConninfoError::Syntax(_))));
    }
}
