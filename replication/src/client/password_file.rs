//! libpq's password file: a line for each place, `host:port:database:user:password`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The largest file that is read.
const SIZE_MAX: u64 = 1 << 20;

/// A password file that need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordFile(pub PathBuf);

impl PasswordFile {
    /// The password of the first line that matches. A file that others may read is not used, as in libpq.
    pub fn password(&self, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
        let path = &self.0;
        let metadata = fs::metadata(path).ok().filter(|metadata| metadata.is_file())?;
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "the password file may be read by others and is not used; its permissions should be 0600");
            return None;
        }
        if metadata.len() > SIZE_MAX {
            tracing::warn!(path = %path.display(), "the password file is larger than {SIZE_MAX} bytes and is not used");
            return None;
        }
        let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
        find(&text, [host, &port.to_string(), database, user])
    }

    /// Where libpq looks for it.
    pub fn of_home(home: &Path) -> Self {
        PasswordFile(home.join(".pgpass"))
    }
}

fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = Fields { rest: line };
        for wanted in wanted {
            let (field, is_any) = fields.next_field()?;
            if !is_any && field != wanted {
                return None;
            }
        }
        // Colons in the password need no backslash.
        Some(unescape(fields.rest)).filter(|password| !password.is_empty())
    })
}

/// What is left of a line.
struct Fields<'a> {
    rest: &'a str,
}

impl Fields<'_> {
    /// Takes a field with its colon; `true` for one that matches anything.
    fn next_field(&mut self) -> Option<(String, bool)> {
        let mut escaped = false;
        let end = self.rest.bytes().position(|byte| {
            let ends = byte == b':' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let (field, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some((unescape(field), field == "*"))
    }
}

/// Takes the backslashes out that stand before another character.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.push(characters.next().unwrap_or('\\')),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_matches_counts() {
        let text = "# comment:5432:*:*:no\nother:5432:db:ann:other\nhost:5432:db:ann:first\n*:*:*:ann:any:colon\\\\x\nh\\:o:1:*:*:es\\:caped\nshort:1\n";
        let password = |host, port, database, user| find(text, [host, port, database, user]);
        assert_eq!(password("host", "5432", "db", "ann").as_deref(), Some("first"));
        assert_eq!(password("host", "5433", "db", "ann").as_deref(), Some("any:colon\\x"));
        assert_eq!(password("h:o", "1", "db", "bob").as_deref(), Some("es:caped"));
        assert_eq!(password("host", "5432", "db", "bob"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = PasswordFile::of_home(folder.path());
        assert_eq!(file.password("h", 1, "d", "u"), None);
        fs::write(&file.0, "*:*:*:*:secret\n").unwrap();
        fs::set_permissions(&file.0, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file.password("h", 1, "d", "u").as_deref(), Some("secret"));
        fs::set_permissions(&file.0, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(file.password("h", 1, "d", "u"), None);
    }
}
