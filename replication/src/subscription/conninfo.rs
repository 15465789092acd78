//! libpq's connection strings: `host=a port=5432 dbname='my db'`, or `postgresql://user@host:5432/db?sslmode=require`.
//!
//! The rules and the texts of errors are libpq's (PostgreSQL's manual, "Connection Strings"). What libpq knows and we do not do is refused by name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::client::{CONNECT_TIMEOUT_DEFAULT, ConnectionConfig, PasswordFile, Place, Places, SOCKET_FOLDER, SessionAttributes, TlsOptions};

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
const SUPPORTED: [&str; 17] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "host",
    "hostaddr",
    "options",
    "passfile",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

/// Options with a value at which they ask for nothing.
const HARMLESS: [(&str, &[&str]); 4] = [
    ("client_encoding", &["", "UTF8", "utf8", "UTF-8", "utf-8"]),
    ("gssencmode", &["", "disable", "prefer"]),
    ("keepalives", &["", "1"]),
    ("sslcompression", &["", "0"]),
];

/// Longer than anybody waits.
const NO_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

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

    /// What is wrong whatever the environment says.
    fn check(&self) -> Result<(), ConninfoError> {
        let given = |name: &str| self.get(name).map(str::to_owned);
        places(given("host"), given("hostaddr"), given("port"))?;
        self.timeout()?;
        self.session_attributes().map(drop)
    }

    /// As libpq: one second counts as two, 0 and less as no limit.
    fn timeout(&self) -> Result<Duration, ConninfoError> {
        let Some(text) = self.get("connect_timeout").filter(|text| !text.is_empty()) else { return Ok(CONNECT_TIMEOUT_DEFAULT) };
        match text.trim().parse::<i32>() {
            Err(_) => syntax(format!("invalid integer value \"{text}\" for connection option \"connect_timeout\"")),
            Ok(seconds) => Ok(u64::try_from(seconds).ok().filter(|s| *s > 0).map_or(NO_TIMEOUT, |s| Duration::from_secs(s.max(2)))),
        }
    }

    fn session_attributes(&self) -> Result<SessionAttributes, ConninfoError> {
        match self.get("target_session_attrs").filter(|text| !text.is_empty()) {
            None => Ok(SessionAttributes::Any),
            Some(text) => text.parse().map_err(|()| ConninfoError::Syntax(format!("invalid target_session_attrs value: \"{text}\""))),
        }
    }

    /// An option's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }

    /// Where and as whom to connect; `variable` looks into the environment, as libpq does for what is not given.
    /// # Errors
    /// A value that its option does not take.
    pub fn resolve(&self, application_name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<ConnectionConfig, ConninfoError> {
        let given = |name: &str, environment: &str| {
            self.get(name).filter(|value| !value.is_empty()).map(str::to_owned).or_else(|| variable(environment))
        };
        let wrong = |name: &str, value: &str| ConninfoError::Syntax(format!("invalid {name} value: \"{value}\""));
        let mut places = places(given("host", "PGHOST"), given("hostaddr", "PGHOSTADDR"), given("port", "PGPORT"))?;
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
        let named = path("passfile", "PGPASSFILE").map(PasswordFile);
        let file = named.or_else(|| variable("HOME").map(|home| PasswordFile::of_home(Path::new(&home))));
        for place in &mut places {
            place.password = given("password", "PGPASSWORD").or_else(|| {
                // The usual socket is written as localhost there.
                let host = if place.host == SOCKET_FOLDER { "localhost" } else { &place.host };
                file.as_ref()?.password(host, place.port, &database, &user)
            });
        }
        let name = self.get("application_name").or_else(|| self.get("fallback_application_name")).filter(|name| !name.is_empty());
        let application_name = name.unwrap_or(application_name).to_owned();
        let places = Places::new(places, self.session_attributes()?);
        Ok(ConnectionConfig {
            places,
            user,
            database,
            application_name,
            tls,
            options: given("options", "PGOPTIONS"),
            connect_timeout: self.timeout()?,
        })
    }
}

/// The servers that `host`, `hostaddr` and `port` name, each a list with commas; one port counts for all. Without a host it is the usual socket of this machine.
fn places(hosts: Option<String>, addresses: Option<String>, ports: Option<String>) -> Result<Vec<Place>, ConninfoError> {
    let list = |text: &Option<String>| -> Vec<String> {
        text.iter().filter(|text| !text.is_empty()).flat_map(|text| text.split(',')).map(|item| item.trim().to_owned()).collect()
    };
    let (hosts, addresses, ports) = (list(&hosts), list(&addresses), list(&ports));
    let count = if addresses.is_empty() { hosts.len().max(1) } else { addresses.len() };
    if !addresses.is_empty() && !hosts.is_empty() && hosts.len() != count {
        return syntax(format!("could not match {} host names to {count} hostaddr values", hosts.len()));
    }
    if ports.len() > 1 && ports.len() != count {
        return syntax(format!("could not match {} port numbers to {count} hosts", ports.len()));
    }
    let place = |i: usize| {
        let host = hosts.get(i).filter(|host| !host.is_empty());
        let address = match addresses.get(i).filter(|address| !address.is_empty()) {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| ConninfoError::Syntax(format!("could not parse network address \"{text}\"")))?),
        };
        let host = host.or_else(|| addresses.get(i)).cloned().unwrap_or_else(|| SOCKET_FOLDER.to_owned());
        if host.starts_with('@') {
            return Err(ConninfoError::Unsupported("a socket in the abstract namespace".into()));
        }
        let port = match ports.get(if ports.len() == 1 { 0 } else { i }).filter(|port| !port.is_empty()) {
            None => 5432,
            Some(text) => match text.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return syntax(format!("invalid port number: \"{text}\"")),
            },
        };
        Ok(Place { address, ..Place::new(host, port, None) })
    };
    (0..count).map(place).collect()
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
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in places.split(',') {
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => match bracketed.split_once(']') {
                None => return syntax("end of string reached when looking for matching \"]\" in IPv6 host address in URI"),
                Some(("", _)) => return syntax("IPv6 host address may not be empty in URI"),
                Some((host, "")) => (host, ""),
                Some((host, after)) => match after.strip_prefix(':') {
                    Some(port) => (host, port),
                    None => return syntax("unexpected character after the IPv6 host address in URI (expected \":\" or \"/\")"),
                },
            },
            None => place.split_once(':').unwrap_or((place, "")),
        };
        hosts.push(percent_decode(host)?);
        ports.push(percent_decode(port)?);
    }
    let has_any = |list: &[String]| list.iter().any(|item| !item.is_empty());
    for (name, list) in [("host", hosts), ("port", ports)] {
        if has_any(&list) {
            options.push((name.to_owned(), list.join(",")));
        }
    }
    if let Some(database) = database.filter(|database| !database.is_empty()) {
        options.push(("dbname".to_owned(), percent_decode(database)?));
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
            ("host=@a", "abstract namespace"),
            ("host=a tcp_user_timeout=3", "\"tcp_user_timeout\""),
            ("host=a gssencmode=require", "\"gssencmode\""),
        ] {
            assert!(matches!(error(text), ConninfoError::Unsupported(what) if what.contains(named)), "{text}");
        }
        assert!(Conninfo::parse("host=a gssencmode=prefer target_session_attrs=any").is_ok());
        assert!(Conninfo::parse("host=a target_session_attrs=prefer-standby").unwrap().resolve("s", &|_| None).is_ok());
    }

    #[test]
    fn several_servers_are_named_in_order() {
        let list = |text: &str| {
            let config = Conninfo::parse(text).unwrap().resolve("s", &|_| None).unwrap();
            config.places.all().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(list("host=a,b"), ["\"a\", port 5432", "\"b\", port 5432"]);
        assert_eq!(list("host=a,b port=1"), ["\"a\", port 1", "\"b\", port 1"]);
        assert_eq!(list("host=a,b port=1,"), ["\"a\", port 1", "\"b\", port 5432"]);
        assert_eq!(list("postgresql://u@a:1,[::1],b:3/d"), ["\"a\", port 1", "\"::1\", port 5432", "\"b\", port 3"]);
        assert_eq!(list("host=/tmp port=7"), ["socket \"/tmp/.s.PGSQL.7\""]);
        assert_eq!(list("postgresql://%2Ftmp/d"), ["socket \"/tmp/.s.PGSQL.5432\""]);
        assert_eq!(list("dbname=d"), ["socket \"/var/run/postgresql/.s.PGSQL.5432\""]);
        assert_eq!(list("hostaddr=127.0.0.1,::1 port=1,2"), ["\"127.0.0.1\", port 1", "\"::1\", port 2"]);
        assert_eq!(syntax_error("host=a,b port=1,2,3"), "could not match 3 port numbers to 2 hosts");
        assert_eq!(syntax_error("host=a,b hostaddr=::1"), "could not match 2 host names to 1 hostaddr values");
        assert_eq!(syntax_error("hostaddr=here"), "could not parse network address \"here\"");
        assert_eq!(syntax_error("host=a connect_timeout=x"), "invalid integer value \"x\" for connection option \"connect_timeout\"");
        assert_eq!(syntax_error("host=a target_session_attrs=best"), "invalid target_session_attrs value: \"best\"");
        let timeout = |text: &str| Conninfo::parse(text).unwrap().resolve("s", &|_| None).unwrap().connect_timeout;
        assert_eq!(timeout("host=a connect_timeout=1"), Duration::from_secs(2));
        assert_eq!(timeout("host=a connect_timeout=7"), Duration::from_secs(7));
        assert_eq!(timeout("host=a connect_timeout=0"), NO_TIMEOUT);
        let config = Conninfo::parse("host=a options='-c work_mem=1MB'").unwrap().resolve("s", &|_| None).unwrap();
        assert_eq!(config.options.as_deref(), Some("-c work_mem=1MB"));
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
        let place = config.places.current();
        assert_eq!((place.host.as_str(), place.port, config.user.as_str(), config.database.as_str()), ("h", 5432, "from env", "from env"));
        assert_eq!(
            (place.password.as_deref(), config.tls.mode, config.application_name.as_str()),
            (Some("env secret"), SslMode::Disable, "sub")
        );
        let conninfo = Conninfo::parse("host=h user=u password=hunter2 dbname=d application_name=a sslmode=require").unwrap();
        let config = conninfo.resolve("sub", &environment).unwrap();
        let place = config.places.current();
        assert_eq!((config.user.as_str(), place.password.as_deref(), config.database.as_str()), ("u", Some("hunter2"), "d"));
        assert_eq!((config.tls.mode, config.application_name.as_str()), (SslMode::Require, "a"));
        assert!(!format!("{conninfo:?}").contains("hunter2"));
        assert!(matches!(Conninfo::parse("host=h sslmode=maybe").unwrap().resolve("s", &|_| None), Err(ConninfoError::Syntax(_))));
    }
}
