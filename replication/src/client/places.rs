//! Where the primary may be: one server or several, of which the first that will do is taken, as libpq does.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Where Debian's PostgreSQL puts its sockets.
pub const SOCKET_FOLDER: &str = "/var/run/postgresql";

/// One server.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name or address; a path is the folder of its Unix-domain socket.
    pub host: String,
    /// Where to find it without looking up its name, which then only stands in its certificate.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub password: Option<String>,
}

impl Place {
    pub fn new(host: impl Into<String>, port: u16, password: Option<String>) -> Self {
        Place { host: host.into(), address: None, port, password }
    }

    /// The folder of its socket; `None`: it is reached by TCP.
    pub fn socket_folder(&self) -> Option<&Path> {
        Some(Path::new(&self.host)).filter(|path| path.is_absolute() && self.address.is_none())
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        self.socket_folder().map(|folder| folder.join(format!(".s.PGSQL.{}", self.port)))
    }

    /// Where to connect by TCP.
    pub(crate) fn tcp(&self) -> (String, u16) {
        (self.address.map_or_else(|| self.host.clone(), |address| address.to_string()), self.port)
    }
}

/// As libpq names it in its errors.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket() {
            Some(socket) => write!(f, "socket \"{}\"", socket.display()),
            None => write!(f, "\"{}\", port {}", self.host, self.port),
        }
    }
}

/// Not the password.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the server must be (libpq's `target_session_attrs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionAttributes {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    /// A standby if one of the servers is one, else the first that will do at all.
    PreferStandby,
}

impl std::str::FromStr for SessionAttributes {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "any" => SessionAttributes::Any,
            "read-write" => SessionAttributes::ReadWrite,
            "read-only" => SessionAttributes::ReadOnly,
            "primary" => SessionAttributes::Primary,
            "standby" => SessionAttributes::Standby,
            "prefer-standby" => SessionAttributes::PreferStandby,
            _ => return Err(()),
        })
    }
}

impl SessionAttributes {
    /// Asks for what [`SessionAttributes::check`] wants: whether the server is a standby, and whether its transactions are read-only.
    pub(crate) const QUERY: &str = "SELECT pg_catalog.pg_is_in_recovery()::text, pg_catalog.current_setting('transaction_read_only')";

    /// # Errors
    /// `Connection`, in libpq's words, so that the next server is tried, and all of them again later.
    pub(crate) fn check(self, in_recovery: bool, read_only: bool) -> Result<()> {
        let why = match self {
            SessionAttributes::ReadWrite if read_only || in_recovery => "session is read-only",
            SessionAttributes::ReadOnly if !read_only && !in_recovery => "session is not read-only",
            SessionAttributes::Primary if in_recovery => "server is in hot standby mode",
            SessionAttributes::Standby | SessionAttributes::PreferStandby if !in_recovery => "server is not in hot standby mode",
            _ => return Ok(()),
        };
        Err(Error::Connection { action: "connect to the primary", source: std::io::Error::other(why) })
    }
}

const NONE: usize = usize::MAX;

/// The servers, in the order in which they are tried. Clones share which of them was taken last, so that every connection of a replicator goes to the
/// server that its stream comes from.
#[derive(Clone, Debug)]
pub struct Places {
    list: Arc<[Place]>,
    taken: Arc<AtomicUsize>,
    wanted: SessionAttributes,
}

impl Places {
    /// # Panics
    /// Without any place.
    pub fn new(list: Vec<Place>, wanted: SessionAttributes) -> Self {
        assert!(!list.is_empty(), "BUG: nowhere to connect to");
        Places { list: list.into(), taken: Arc::new(AtomicUsize::new(NONE)), wanted }
    }

    pub fn one(place: Place) -> Self {
        Places::new(vec![place], SessionAttributes::Any)
    }

    /// The same servers with this password for each.
    #[must_use]
    pub fn with_password(&self, password: &str) -> Self {
        let list = self.list.iter().map(|place| Place { password: Some(password.to_owned()), ..place.clone() });
        Places::new(list.collect(), self.wanted)
    }

    pub fn all(&self) -> &[Place] {
        &self.list
    }

    /// The server that was taken last, or the first one.
    pub fn current(&self) -> &Place {
        self.list.get(self.taken.load(Ordering::Relaxed)).unwrap_or(&self.list[0])
    }

    /// To try one after the other, from the first, until one will do.
    pub(crate) fn search(&self) -> Search<'_> {
        Search { places: self, next: 0, end: self.list.len(), wanted: self.wanted, failure: None }
    }

    /// As `search`, but where one was taken, that one alone.
    pub(crate) fn search_again(&self) -> Search<'_> {
        match self.taken.load(Ordering::Relaxed) {
            NONE => self.search(),
            taken => {
                // It was what could be had.
                let wanted = if self.wanted == SessionAttributes::PreferStandby { SessionAttributes::Any } else { self.wanted };
                Search { next: taken, end: taken + 1, wanted, ..self.search() }
            }
        }
    }
}

/// Servers under trial.
pub(crate) struct Search<'a> {
    places: &'a Places,
    next: usize,
    end: usize,
    wanted: SessionAttributes,
    failure: Option<Error>,
}

impl<'a> Search<'a> {
    /// The next one to try; `None`: all have failed.
    pub(crate) fn next(&mut self) -> Option<&'a Place> {
        if self.next == self.end && self.wanted == SessionAttributes::PreferStandby {
            self.wanted = SessionAttributes::Any;
            self.next = 0;
        }
        let place = self.places.list[..self.end].get(self.next)?;
        self.next += 1;
        Some(place)
    }

    /// What it must be.
    pub(crate) fn wanted(&self) -> SessionAttributes {
        self.wanted
    }

    /// The last one will do.
    pub(crate) fn take(&self) {
        self.places.taken.store(self.next - 1, Ordering::Relaxed);
    }

    /// The last one failed.
    /// # Errors
    /// What another server would not answer otherwise, such as a wrong password.
    pub(crate) fn fail(&mut self, error: Error) -> Result<()> {
        if !is_of_this_server(&error) {
            return Err(error);
        }
        if self.next < self.end {
            tracing::debug!(place = %self.places.list[self.next - 1], %error, "the next server is tried");
        }
        self.failure = Some(error);
        Ok(())
    }

    /// Why all have failed: what the last one said.
    pub(crate) fn into_error(self) -> Error {
        self.failure.unwrap_or_else(|| Error::Setup("nowhere to connect to".into()))
    }
}

/// Whether another server may answer otherwise: this one cannot be reached, is starting or stopping, or is not what is wanted.
fn is_of_this_server(error: &Error) -> bool {
    match error {
        Error::Connection { .. } => true,
        Error::Primary { code, .. } => code == "57P03",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(hosts: &[&str]) -> Places {
        Places::new(hosts.iter().map(|host| Place::new(*host, 1, None)).collect(), SessionAttributes::Any)
    }

    fn refused() -> Error {
        Error::Connection { action: "connect", source: std::io::Error::from(std::io::ErrorKind::ConnectionRefused) }
    }

    fn primary_error(code: &str) -> Error {
        Error::Primary { code: code.into(), message: String::new(), detail: None, hint: None }
    }

    /// What a search ends with, where each server answers as `answer` says.
    fn find(search: Search<'_>, answer: impl Fn(&Place) -> Result<()>) -> Result<String> {
        find_wanted(search, |place, _| answer(place))
    }

    fn find_wanted(mut search: Search<'_>, answer: impl Fn(&Place, SessionAttributes) -> Result<()>) -> Result<String> {
        while let Some(place) = search.next() {
            match answer(place, search.wanted()) {
                Ok(()) => {
                    search.take();
                    return Ok(place.host.clone());
                }
                Err(error) => search.fail(error)?,
            }
        }
        Err(search.into_error())
    }

    #[test]
    fn the_first_server_that_will_do_is_taken_and_remembered_by_clones() {
        let places = places(&["a", "b", "c"]);
        let clone = places.clone();
        assert_eq!(clone.current().host, "a");
        assert_eq!(find(places.search(), |place| if place.host == "a" { Err(refused()) } else { Ok(()) }).unwrap(), "b");
        assert_eq!(clone.current().host, "b");
        // Beside the stream, the same server and no other.
        assert!(find(clone.search_again(), |place| if place.host == "b" { Err(refused()) } else { Ok(()) }).is_err());
        // The stream begins with the first again.
        assert_eq!(find(clone.search(), |_| Ok(())).unwrap(), "a");
        assert_eq!(places.current().host, "a");
        assert!(find(places.search(), |_| Err(refused())).is_err());
    }

    #[test]
    fn what_no_other_server_changes_ends_the_search() {
        for (code, asked) in [("28P01", 1), ("57P03", 2)] {
            let count = AtomicUsize::new(0);
            let failing = |_: &Place| {
                count.fetch_add(1, Ordering::Relaxed);
                Err(primary_error(code))
            };
            assert!(find(places(&["a", "b"]).search(), failing).is_err());
            assert_eq!(count.load(Ordering::Relaxed), asked, "{code}");
        }
    }

    #[test]
    fn a_standby_is_preferred_and_another_server_taken_where_there_is_none() {
        let list =
            |hosts: &[&str]| Places::new(hosts.iter().map(|host| Place::new(*host, 1, None)).collect(), SessionAttributes::PreferStandby);
        let asked = std::cell::RefCell::new(Vec::new());
        // Standbys have names that begin with s, servers that do not answer those with x.
        let answer = |place: &Place, wanted: SessionAttributes| {
            asked.borrow_mut().push(place.host.clone());
            if place.host.starts_with('x') { Err(refused()) } else { wanted.check(place.host.starts_with('s'), false) }
        };
        let places = list(&["x", "a", "s1", "s2"]);
        assert_eq!(find_wanted(places.search(), answer).unwrap(), "s1");
        let places = list(&["x", "a", "b"]);
        asked.borrow_mut().clear();
        assert_eq!(find_wanted(places.search(), answer).unwrap(), "a");
        assert_eq!(*asked.borrow(), ["x", "a", "b", "x", "a"]);
        // Beside the stream, the same one, though it is no standby.
        assert_eq!(find_wanted(places.search_again(), answer).unwrap(), "a");
        // The stream begins with a standby again, if there is one now.
        assert_eq!(find_wanted(places.search(), |place, wanted| wanted.check(place.host == "b", false)).unwrap(), "b");
        let error = find_wanted(list(&["x"]).search(), answer).unwrap_err();
        assert!(error.is_passing() && error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn a_path_is_the_folder_of_a_socket() {
        let place = Place::new("/var/run/postgresql", 5433, Some("secret".into()));
        assert_eq!(place.to_string(), "socket \"/var/run/postgresql/.s.PGSQL.5433\"");
        assert_eq!(Place::new("h", 5432, None).to_string(), "\"h\", port 5432");
        assert!(!format!("{place:?}").contains("secret"));
        let by_address = Place { address: Some("::1".parse().unwrap()), ..Place::new("h", 5432, None) };
        assert_eq!((by_address.socket(), by_address.tcp()), (None, ("::1".to_owned(), 5432)));
    }

    #[test]
    fn servers_are_told_apart_by_what_they_allow() {
        let fits = |text: &str, in_recovery, read_only| text.parse::<SessionAttributes>().unwrap().check(in_recovery, read_only).is_ok();
        assert!(fits("any", true, true) && fits("read-write", false, false) && fits("primary", false, true) && fits("standby", true, true));
        assert!(fits("read-only", false, true) && !fits("read-only", false, false));
        assert!(
            !fits("read-write", true, true)
                && !fits("read-write", false, true)
                && !fits("primary", true, true)
                && !fits("standby", false, false)
        );
        assert!(fits("prefer-standby", true, true) && !fits("prefer-standby", false, false));
        assert!("best".parse::<SessionAttributes>().is_err());
    }
}
