//! TLS to a real primary, with certificates made by openssl.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use strandline_replication::State;
use strandline_replication::client::{
    CONNECT_TIMEOUT_DEFAULT, ChannelBinding, Connection, ConnectionConfig, Place, Places, SslMode, TlsOptions,
};
use strandline_tests::{Primary, primary};
use support::{Replica, SLOT, utc};

/// A folder with certificates and their keys.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// An authority, a server's and a client's certificate of it, another authority, and a self-signed certificate.
    fn new() -> Certificates {
        let certificates = Certificates { folder: tempfile::tempdir().unwrap() };
        for authority in ["root", "other"] {
            certificates.openssl(&format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.crt"
            ));
        }
        certificates.openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=self -addext subjectAltName=DNS:localhost -keyout self.key -out self.crt",
        );
        // With a name that is right for localhost, and none for 127.0.0.1.
        for (name, subject, extension) in
            [("server", "server", "subjectAltName=DNS:localhost"), ("client", "postgres", "extendedKeyUsage=clientAuth")]
        {
            std::fs::write(certificates.path("ext"), format!("{extension}\n")).unwrap();
            certificates.openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={subject} -keyout {name}.key -out {name}.csr"));
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA root.crt -CAkey root.key -CAcreateserial -days 2 -sha384 -extfile ext -out {name}.crt"
            ));
        }
        certificates
    }

    fn openssl(&self, command: &str) {
        let output = Command::new("openssl").args(command.split(' ')).current_dir(self.folder.path()).output().expect("openssl");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A primary that shows this certificate.
    fn primary(&self, name: &str) -> Primary {
        let primary = Primary::start(&[]);
        for file in [format!("{name}.crt"), format!("{name}.key"), "root.crt".into()] {
            primary.put_file(&file, &std::fs::read(self.path(&file)).unwrap());
        }
        let db = primary.db();
        for setting in
            ["ssl = on", &format!("ssl_cert_file = '{name}.crt'"), &format!("ssl_key_file = '{name}.key'"), "ssl_ca_file = 'root.crt'"]
        {
            db.execute(&format!("ALTER SYSTEM SET {setting}"));
        }
        drop(db);
        primary.restart("fast");
        primary
    }
}

fn config(primary: &Primary, host: &str, tls: TlsOptions) -> ConnectionConfig {
    ConnectionConfig {
        places: Places::one(Place::new(host, primary.port(), Some(primary::PASSWORD.into()))),
        user: "postgres".into(),
        database: "postgres".into(),
        application_name: "test".into(),
        tls,
        options: None,
        connect_timeout: CONNECT_TIMEOUT_DEFAULT,
    }
}

/// Whether the connection is encrypted, or why there is none.
async fn connect(primary: &Primary, host: &str, tls: TlsOptions) -> Result<bool, String> {
    let mut connection = Connection::connect(&config(primary, host, tls)).await.map_err(|e| e.to_string())?;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let rows = connection.query(sql).await.map_err(|e| e.to_string())?;
    Ok(rows[0][0].as_deref() == Some("t"))
}

fn options(mode: SslMode, root: Option<&Path>) -> TlsOptions {
    TlsOptions { mode, root_certificate: root.map(Path::to_owned), ..TlsOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_mode_checks_what_it_says() {
    let certificates = Certificates::new();
    let (root, other) = (certificates.path("root.crt"), certificates.path("other.crt"));
    let primary = tokio::task::block_in_place(|| certificates.primary("server"));
    use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    assert_eq!(connect(&primary, "127.0.0.1", options(Disable, None)).await, Ok(false));
    assert_eq!(connect(&primary, "127.0.0.1", options(Prefer, None)).await, Ok(true));
    assert_eq!(connect(&primary, "127.0.0.1", options(Require, None)).await, Ok(true));
    assert_eq!(connect(&primary, "127.0.0.1", options(VerifyCa, Some(&root))).await, Ok(true));
    assert_eq!(connect(&primary, "localhost", options(VerifyFull, Some(&root))).await, Ok(true));
    let refused = |answer: Result<bool, String>| answer.expect_err("must be refused").contains("certificate");
    assert!(refused(connect(&primary, "127.0.0.1", options(VerifyFull, Some(&root))).await), "another name");
    for mode in [Require, VerifyCa, VerifyFull] {
        assert!(refused(connect(&primary, "localhost", options(mode, Some(&other))).await), "another authority with {mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_certificate_that_is_trusted_itself_and_a_server_without_tls() {
    let certificates = Certificates::new();
    let primary = tokio::task::block_in_place(|| certificates.primary("self"));
    let own = certificates.path("self.crt");
    assert_eq!(connect(&primary, "localhost", options(SslMode::VerifyFull, Some(&own))).await, Ok(true));
    assert!(connect(&primary, "127.0.0.1", options(SslMode::VerifyFull, Some(&own))).await.is_err());
    assert_eq!(connect(&primary, "127.0.0.1", options(SslMode::VerifyCa, Some(&own))).await, Ok(true));
    let plain = tokio::task::block_in_place(|| Primary::start(&[]));
    assert_eq!(connect(&plain, "127.0.0.1", options(SslMode::Prefer, None)).await, Ok(false));
    let error = connect(&plain, "127.0.0.1", options(SslMode::Require, None)).await.unwrap_err();
    assert_eq!(error, "the primary has no TLS, and sslmode is require");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_password_exchange_covers_the_connection() {
    let certificates = Certificates::new();
    let primary = tokio::task::block_in_place(|| certificates.primary("server"));
    let binding = |channel_binding, mode| TlsOptions { channel_binding, mode, ..TlsOptions::default() };
    // With a certificate signed with SHA-384, whose hash it takes; a wrong one would be refused by the server.
    assert_eq!(connect(&primary, "127.0.0.1", binding(ChannelBinding::Require, SslMode::Require)).await, Ok(true));
    assert_eq!(connect(&primary, "127.0.0.1", binding(ChannelBinding::Disable, SslMode::Require)).await, Ok(true));
    let error = connect(&primary, "127.0.0.1", binding(ChannelBinding::Require, SslMode::Disable)).await.unwrap_err();
    assert!(error.contains("channel_binding"), "{error}");
}

#[test]
fn a_replica_with_a_client_certificate_copies_and_streams_over_tls() {
    let certificates = Certificates::new();
    let primary = certificates.primary("server");
    // No password: the certificate is the proof, and nothing goes in plain text.
    primary.put_file("pg_hba.conf", b"hostssl all all 127.0.0.1/32 cert\nhost all all 127.0.0.1/32 scram-sha-256\n");
    let db = utc(&primary);
    db.execute("SELECT pg_reload_conf()");
    db.execute(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION {SLOT} FOR TABLE t"));
    db.execute("INSERT INTO t SELECT g, repeat('x', 100) || g FROM generate_series(1, 5000) g");
    static FOLDER: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    FOLDER.set(certificates.folder.path().to_owned()).unwrap();
    let mut replica = Replica::started(&primary, |config| {
        let path = |name: &str| Some(FOLDER.get().unwrap().join(name));
        config.connection.places = Places::one(Place::new("localhost", config.connection.places.current().port, None));
        config.connection.tls = TlsOptions {
            mode: SslMode::VerifyFull,
            root_certificate: path("root.crt"),
            certificate: path("client.crt"),
            key: path("client.key"),
            ..TlsOptions::default()
        };
    });
    replica.wait_for(State::Streaming);
    db.execute(
        "UPDATE t SET v = 'changed' WHERE id % 2 = 0; INSERT INTO t SELECT g, repeat('y', 300) FROM generate_series(10001, 60000) g",
    );
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
    let ssl = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    assert_eq!(db.value(ssl), "t");
    replica.restart();
    db.execute("DELETE FROM t WHERE id < 100");
    replica.wait_caught_up(&db);
    replica.assert_equal(&db, &["t"]);
}
