//! What of the connection to the primary may come from the environment and the password file, as with every program of PostgreSQL's.
//!
//! The configuration file wins, then the environment, then libpq's default. Host, port, user and database are the configuration's alone.

use std::path::{Path, PathBuf};

use strandline_replication::client::{PasswordFile, TlsOptions};

use crate::config::PostgresReplication;

/// A variable of the environment; an empty one counts as absent.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's own environment.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How the connection is secured.
/// # Errors
/// A variable that holds what it cannot, by name.
pub fn tls_options(source: &PostgresReplication, variable: Variable<'_>) -> Result<TlsOptions, String> {
    let path = |key: &Option<PathBuf>, name: &str| key.clone().or_else(|| variable(name).map(PathBuf::from));
    let mut options = TlsOptions {
        root_certificate: path(&source.sslrootcert, "PGSSLROOTCERT"),
        certificate: path(&source.sslcert, "PGSSLCERT"),
        key: path(&source.sslkey, "PGSSLKEY"),
        ..TlsOptions::default()
    };
    let wrong = |name: &str, value: &str| format!("{name} has the value \"{value}\", which is not supported");
    if let Some(mode) = source.sslmode.clone().or_else(|| variable("PGSSLMODE")) {
        options.mode = mode.parse().map_err(|()| wrong("sslmode (or PGSSLMODE)", &mode))?;
    }
    if let Some(wish) = source.channel_binding.clone().or_else(|| variable("PGCHANNELBINDING")) {
        options.channel_binding = wish.parse().map_err(|()| wrong("channel_binding (or PGCHANNELBINDING)", &wish))?;
    }
    Ok(options)
}

/// The password: the configuration's, PGPASSWORD, or the password file's.
pub fn password(source: &PostgresReplication, variable: Variable<'_>) -> Option<String> {
    let configured = Some(source.postgres_password.0.clone()).filter(|password| !password.is_empty());
    configured.or_else(|| variable("PGPASSWORD")).or_else(|| {
        let named = source.passfile.clone().or_else(|| variable("PGPASSFILE").map(PathBuf::from)).map(PasswordFile);
        let file = named.or_else(|| variable("HOME").map(|home| PasswordFile::of_home(Path::new(&home))))?;
        file.password(&source.postgres_server_address, source.postgres_port, &source.postgres_database, &source.postgres_user)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use strandline_replication::client::SslMode;

    use super::*;
    use crate::config::Secret;

    fn of<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_file_wins_over_the_environment() {
        let environment = of(&[("PGSSLMODE", "require"), ("PGSSLROOTCERT", "/env/root"), ("PGCHANNELBINDING", "require")]);
        let mut source = PostgresReplication::default();
        let options = tls_options(&source, &environment).unwrap();
        assert_eq!((options.mode, options.root_certificate.as_deref()), (SslMode::Require, Some(Path::new("/env/root"))));
        source.sslmode = Some("verify-full".into());
        source.sslrootcert = Some("/file/root".into());
        let options = tls_options(&source, &environment).unwrap();
        assert_eq!((options.mode, options.root_certificate.as_deref()), (SslMode::VerifyFull, Some(Path::new("/file/root"))));
        assert_eq!(tls_options(&PostgresReplication::default(), &of(&[])).unwrap(), TlsOptions::default());
        assert!(tls_options(&PostgresReplication::default(), &of(&[("PGSSLMODE", "allow")])).unwrap_err().contains("PGSSLMODE"));
    }

    #[test]
    fn the_password_comes_from_the_first_place_that_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords");
        std::fs::write(&file, "127.0.0.1:5432:postgres:postgres:from file\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let file = file.to_str().unwrap();
        let mut source = PostgresReplication::default();
        assert_eq!(password(&source, &of(&[("HOME", "/nowhere")])), None);
        assert_eq!(password(&source, &of(&[("PGPASSFILE", file)])).as_deref(), Some("from file"));
        assert_eq!(password(&source, &of(&[("PGPASSFILE", file), ("PGPASSWORD", "from variable")])).as_deref(), Some("from variable"));
        source.postgres_password = Secret("configured".into());
        assert_eq!(password(&source, &of(&[("PGPASSWORD", "from variable")])).as_deref(), Some("configured"));
    }
}
