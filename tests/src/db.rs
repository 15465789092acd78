//! A blocking client for either server, on tokio-postgres.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// One connection. Values come as the text that the server sends, NULL as `None`.
pub struct Db {
    runtime: Runtime,
    client: Client,
}

pub type TextRow = Vec<Option<String>>;

impl Db {
    /// Connects with a libpq-style string.
    ///
    /// # Errors
    /// As tokio-postgres.
    pub fn connect(conninfo: &str) -> Result<Db, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut config: tokio_postgres::Config = conninfo.parse()?;
        config.connect_timeout(Duration::from_secs(10));
        let client = runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Db { runtime, client })
    }

    /// Runs statements by the simple protocol.
    ///
    /// # Errors
    /// The server's error.
    pub fn try_execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(sql))
    }

    /// Runs statements that must succeed.
    pub fn execute(&self, sql: &str) {
        if let Err(error) = self.try_execute(sql) {
            panic!("{}\n{sql}", explain(&error));
        }
    }

    /// How many rows a portal gives each time that it is asked for `page_rows`, as drivers with a fetch size ask, until it has no more.
    ///
    /// # Errors
    /// The server's error.
    pub fn pages(&mut self, sql: &str, page_rows: i32) -> Result<Vec<usize>, tokio_postgres::Error> {
        let client = &mut self.client;
        self.runtime.block_on(async {
            let transaction = client.transaction().await?;
            let portal = transaction.bind(sql, &[]).await?;
            let mut pages = Vec::new();
            loop {
                let rows = transaction.query_portal(&portal, page_rows).await?.len();
                pages.push(rows);
                if rows == 0 {
                    return Ok(pages);
                }
            }
        })
    }

    /// The rows of a query by the simple protocol.
    ///
    /// # Errors
    /// The server's error.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<TextRow>, tokio_postgres::Error> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    pub fn rows(&self, sql: &str) -> Vec<TextRow> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{}\n{sql}", explain(&error)))
    }

    /// The only value of the only row.
    pub fn value(&self, sql: &str) -> String {
        let rows = self.rows(sql);
        match &rows[..] {
            [row] if row.len() == 1 => row[0].clone().unwrap_or_else(|| panic!("NULL from {sql}")),
            _ => panic!("not one value from {sql}: {rows:?}"),
        }
    }

    /// The rows, each as one line with `|` between values, as `psql -At` prints them.
    pub fn lines(&self, sql: &str) -> Vec<String> {
        self.rows(sql).iter().map(|row| row.iter().map(|v| v.as_deref().unwrap_or("")).collect::<Vec<_>>().join("|")).collect()
    }

    /// The names and type oids that the server describes for a statement.
    pub fn describe(&self, sql: &str) -> Vec<(String, u32)> {
        self.try_describe(sql).unwrap_or_else(|error| panic!("{}\n{sql}", explain(&error)))
    }

    /// As [`Db::describe`].
    ///
    /// # Errors
    /// The server's error.
    pub fn try_describe(&self, sql: &str) -> Result<Vec<(String, u32)>, tokio_postgres::Error> {
        let statement = self.runtime.block_on(self.client.prepare(sql))?;
        Ok(statement.columns().iter().map(|c| (c.name().to_owned(), c.type_().oid())).collect())
    }

    /// The SQLSTATE of a statement that must fail.
    pub fn sqlstate(&self, sql: &str) -> String {
        match self.try_execute(sql) {
            Ok(()) => panic!("must fail: {sql}"),
            Err(error) => error.code().map(|c| c.code().to_owned()).unwrap_or_else(|| panic!("no SQLSTATE: {error}")),
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// The server's message with its SQLSTATE, or the client's own.
pub fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(e) => {
            format!("{} {}: {}{}", e.severity(), e.code().code(), e.message(), e.detail().map(|d| format!(" ({d})")).unwrap_or_default())
        }
        None => format!("{error:?}"),
    }
}
