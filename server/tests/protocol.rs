//! The PostgreSQL protocol against an independent client: authentication, both query protocols, formats, COPY, cancel, errors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{SinkExt, TryStreamExt};
use strandline_server::pg;
use strandline_sql::session::{Engine, EngineOptions};
use strandline_storage::{CommitMeta, Store, StoreOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

struct Server {
    port: u16,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        store.create_database("db", CommitMeta::default()).unwrap();
        let engine = Engine::new(store, EngineOptions { hash_password: Arc::new(pg::hash_password), ..EngineOptions::default() });
        engine.ensure_superuser("postgres", &pg::hash_password("secret")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            pg::serve(listener, engine, pg::ServerOptions::default(), async {
                let _ = stopped.await;
            })
            .await
            .unwrap();
        });
        Server { port, stop: Some(stop), served: Some(served), _folder: folder }
    }

    async fn try_connect(&self, user: &str, password: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
        let settings = format!("host=127.0.0.1 port={} user={user} password={password} dbname={database}", self.port);
        let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn connect(&self) -> Client {
        self.try_connect("postgres", "secret", "db").await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_password_opens_a_session() {
    let server = Server::start().await;
    server.connect().await;
    let refused = |r: Result<Client, tokio_postgres::Error>| r.err().unwrap().code().cloned();
    assert_eq!(refused(server.try_connect("postgres", "wrong", "db").await), Some(SqlState::INVALID_PASSWORD));
    assert_eq!(refused(server.try_connect("nobody", "secret", "db").await), Some(SqlState::INVALID_PASSWORD));
    assert_eq!(refused(server.try_connect("postgres", "secret", "nodb").await), Some(SqlState::INVALID_CATALOG_NAME));
    let client = server.connect().await;
    client.batch_execute("CREATE ROLE other LOGIN PASSWORD 'pw'").await.unwrap();
    server.try_connect("other", "pw", "db").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_results_travel_in_binary() {
    let server = Server::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, a bigint, b text, c bool, d float8, e bytea)").await.unwrap();
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6) RETURNING id").await.unwrap();
    assert_eq!(insert.params(), [Type::INT4, Type::INT8, Type::TEXT, Type::BOOL, Type::FLOAT8, Type::BYTEA]);
    let row = client.query_one(&insert, &[&1i32, &5i64, &"ä", &true, &1.5f64, &vec![0u8, 255]]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
    client.execute(&insert, &[&2i32, &None::<i64>, &None::<&str>, &None::<bool>, &None::<f64>, &None::<Vec<u8>>]).await.unwrap();
    let rows = client.query("SELECT * FROM t WHERE id >= $1 ORDER BY id", &[&1i32]).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<_, &str>("b"), "ä");
    assert_eq!(rows[0].get::<_, Vec<u8>>("e"), [0, 255]);
    assert!(rows[0].columns()[0].table_oid().is_some());
    assert_eq!(rows[1].get::<_, Option<i64>>("a"), None);
    let error = client.query("SELECT * FROM t WHERE nope = $1", &[&1i32]).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_COLUMN));
    // The connection goes on after an error in the extended protocol.
    assert_eq!(client.query_one("SELECT $1::text || 'x'", &[&"y"]).await.unwrap().get::<_, &str>(0), "yx");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_gives_rows_in_portions() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT g FROM generate_series(1, 25) g", &[]).await.unwrap();
    let mut sizes = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 10).await.unwrap();
        sizes.push(rows.len());
        if rows.len() < 10 {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_transaction() {
    let server = Server::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int PRIMARY KEY)").await.unwrap();
    let error = client.batch_execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)").await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    let messages = client.simple_query("SELECT count(*) FROM t; SELECT 2").await.unwrap();
    let values: Vec<&str> = messages
        .iter()
        .filter_map(|m| match m {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    assert_eq!(values, ["0", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_goes_both_ways() {
    let server = Server::start().await;
    let client = server.connect().await;
    client.batch_execute("CREATE TABLE t (a int PRIMARY KEY, b text)").await.unwrap();
    let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    for i in 0..5000 {
        sink.send(bytes::Bytes::from(format!("{i}\trow {i}\n"))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 5000);
    let out: Vec<bytes::Bytes> = client.copy_out("COPY t TO STDOUT").await.unwrap().try_collect().await.unwrap();
    assert_eq!(out.len(), 5000);
    let sink = client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let _ = sink.send(bytes::Bytes::from_static(b"x\ty\n")).await;
    assert!(sink.finish().await.is_err());
    assert_eq!(client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_acts_at_once() {
    let server = Server::start().await;
    let client = server.connect().await;
    let token = client.cancel_token();
    let begun = Instant::now();
    let canceler = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await.unwrap();
    });
    let error =
        client.query_one("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b", &[]).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    canceler.await.unwrap();
    client.query_one("SELECT 1", &[]).await.unwrap();
    client.batch_execute("SET statement_timeout = 200").await.unwrap();
    let error =
        client.query_one("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b", &[]).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_without_harm() {
    let server = Server::start().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 8, 0, 9, 0, 0], &[0xff; 64], &[0, 0, 0, 3]] {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the server keeps a connection open that sent {garbage:?}");
    }
    server.connect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_ends_its_sessions() {
    let mut server = Server::start().await;
    let client = server.connect().await;
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), server.served.take().unwrap()).await.unwrap().unwrap();
    assert!(client.query_one("SELECT 1", &[]).await.is_err());
}
