//! One client's connection: a loop over its messages, with the session as plain state.
//!
//! Work of the session blocks, so it runs on a blocking thread while this task waits; rows come back as a stream of
//! batches, and this task turns them into DataRows and watches for a cancel request. An error in the simple protocol
//! ends its batch, in the extended protocol everything up to the next Sync.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures::StreamExt;
use strandline_sql::error::{ErrorCode, SqlError};
use strandline_sql::session::{CancelHandle, CopyIn, CopyOut, Outcome, ParameterValue, Rows, RowsTag, Session, TransactionStatus};
use strandline_sql::wire::{Format, RowEncoder};
use tokio::sync::mpsc;

use crate::pg::Shared;
use crate::pg::frontend::Frontend;
use crate::pg::reply::{self, Severity};
use crate::pg::wire::{End, Wire, malformed_error};

/// CopyData messages that may wait for the statement to take them.
const COPY_CHUNKS_MAX: usize = 16;

/// Why a message was not carried out.
enum Failure {
    Sql(Box<SqlError>),
    End(End),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Failure::Sql(Box::new(error))
    }
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        Failure::End(end)
    }
}

/// Runs blocking work beside the sockets' threads.
/// # Errors
/// `End::Fatal` when the work panicked: the session's state is lost then, the server is not.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, End> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        End::fatal(SqlError::new(ErrorCode::InternalError, "a statement failed in an unforeseen way; the connection is closed"))
    })
}

/// How a statement's rows ended.
enum Sent {
    Complete(String),
    Suspended,
}

/// See the module.
pub struct Connection {
    wire: Wire,
    /// `None` while a blocking thread has it.
    session: Option<Box<Session>>,
    cancel: CancelHandle,
    shared: Arc<Shared>,
    /// After an error in the extended protocol.
    skip_to_sync: bool,
}

impl Connection {
    pub fn new(wire: Wire, session: Box<Session>, shared: Arc<Shared>) -> Self {
        let cancel = session.cancel_handle();
        Connection { wire, session: Some(session), cancel, shared, skip_to_sync: false }
    }

    /// Serves the client until either side ends the connection.
    pub async fn run(mut self) {
        let end = loop {
            match self.next_message().await {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        if let End::Fatal(error) = end {
            reply::error(&mut self.wire.out, Severity::Fatal, &error);
            self.wire.shutdown().await;
        }
        // Ending the session rolls back: not on the sockets' threads.
        if let Some(session) = self.session.take() {
            let _ = blocking(move || drop(session)).await;
        }
    }

    fn session(&mut self) -> Result<&mut Session, End> {
        self.session.as_deref_mut().ok_or(End::Closed)
    }

    /// Has the session do something that may block.
    async fn work<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Session) -> T + Send + 'static) -> Result<T, End> {
        let mut session = self.session.take().ok_or(End::Closed)?;
        let (session, result) = blocking(move || {
            let result = work(&mut session);
            (session, result)
        })
        .await?;
        self.session = Some(session);
        Ok(result)
    }

    async fn next_message(&mut self) -> Result<(), End> {
        let timeout = match self.session()?.status() {
            TransactionStatus::Idle => ("idle_session_timeout", ErrorCode::IdleSessionTimeout, "idle-session timeout"),
            _ => ("idle_in_transaction_session_timeout", ErrorCode::IdleInTransactionSessionTimeout, "idle-in-transaction timeout"),
        };
        let limit = self.session()?.milliseconds(timeout.0);
        let shared = self.shared.clone();
        let message = tokio::select! {
            message = self.wire.try_message(true) => message?,
            () = shared.shutdown() => {
                return Err(shut_down());
            }
            () = tokio::time::sleep(Duration::from_millis(limit)), if limit > 0 => {
                return Err(End::fatal(SqlError::new(timeout.1, format!("terminating connection due to {}", timeout.2))));
            }
        };
        let message = match message {
            Ok(message) => message,
            Err(malformed) => {
                // The message's boundaries are known, so the session can go on after the error.
                return self.failed(malformed_error(&malformed).into(), true).await;
            }
        };
        if self.skip_to_sync && !matches!(message, Frontend::Sync | Frontend::Terminate) {
            return Ok(());
        }
        match message {
            Frontend::Query(text) => {
                if let Err(failure) = self.simple_query(text).await {
                    self.failed(failure, false).await?;
                }
                self.ready().await
            }
            Frontend::Sync => {
                if !std::mem::take(&mut self.skip_to_sync)
                    && let Err(error) = self.work(Session::finish).await?
                {
                    self.work(Session::fail).await?;
                    reply::error(&mut self.wire.out, Severity::Error, &error);
                }
                self.ready().await
            }
            Frontend::Flush => self.wire.flush().await,
            Frontend::Terminate => Err(End::Closed),
            // Left over from a COPY that failed.
            Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => Ok(()),
            Frontend::FunctionCall => {
                self.failed(SqlError::unsupported("the function call message").into(), false).await?;
                self.ready().await
            }
            Frontend::Password(_) => Err(End::fatal(SqlError::new(ErrorCode::ProtocolViolation, "invalid frontend message type 112"))),
            extended => match self.extended(extended).await {
                Ok(()) => self.wire.flush_if_full().await,
                Err(failure) => self.failed(failure, true).await,
            },
        }
    }

    /// Tells an error and undoes; `extended`: the messages up to Sync are skipped.
    async fn failed(&mut self, failure: Failure, extended: bool) -> Result<(), End> {
        let error = match failure {
            Failure::Sql(error) => error,
            Failure::End(end) => return Err(end),
        };
        self.work(Session::fail).await?;
        self.beside()?;
        reply::error(&mut self.wire.out, Severity::Error, &error);
        if extended {
            self.skip_to_sync = true;
            self.wire.flush().await?;
        }
        Ok(())
    }

    async fn ready(&mut self) -> Result<(), End> {
        self.beside()?;
        let status = self.session()?.status();
        reply::ready(&mut self.wire.out, status);
        self.wire.flush().await
    }

    /// Notices and changed settings.
    fn beside(&mut self) -> Result<(), End> {
        let session = self.session.as_deref_mut().ok_or(End::Closed)?;
        for notice in session.take_notices() {
            reply::notice(&mut self.wire.out, &notice);
        }
        for (name, value) in session.take_reports() {
            reply::parameter_status(&mut self.wire.out, name, &value);
        }
        Ok(())
    }

    async fn simple_query(&mut self, text: String) -> Result<(), Failure> {
        let statements = self.work(move |session| session.split(&text)).await??;
        if statements.is_empty() {
            reply::empty_query(&mut self.wire.out);
            self.work(Session::finish).await??;
            return Ok(());
        }
        let count = statements.len();
        for (i, statement) in statements.into_iter().enumerate() {
            let outcome = self.work_watched(move |session| session.execute(&statement)).await?;
            self.beside()?;
            let tag = match outcome {
                Outcome::Empty => None,
                Outcome::Done { tag } => Some(tag),
                Outcome::Rows(mut rows) => {
                    reply::row_description(&mut self.wire.out, &rows.columns, &[]);
                    match self.send_rows(&mut rows, &[], 0).await? {
                        Sent::Complete(tag) => Some(tag),
                        Sent::Suspended => None,
                    }
                }
                Outcome::CopyIn(copy) => Some(self.copy_in(copy).await?),
                Outcome::CopyOut(copy) => Some(self.copy_out(copy).await?),
            };
            if i + 1 == count {
                self.work(Session::finish).await??;
            }
            self.beside()?;
            match tag {
                Some(tag) => reply::complete(&mut self.wire.out, &tag),
                None => reply::empty_query(&mut self.wire.out),
            }
            self.wire.flush_if_full().await?;
        }
        Ok(())
    }

    async fn extended(&mut self, message: Frontend) -> Result<(), Failure> {
        match message {
            Frontend::Parse { name, query, types } => {
                self.work(move |session| session.prepare(&name, &query, &types)).await??;
                reply::bare(&mut self.wire.out, b'1');
            }
            Frontend::Bind { portal, statement, formats, parameters, result_formats } => {
                if formats.len() > 1 && formats.len() != parameters.len() {
                    return Err(SqlError::new(
                        ErrorCode::ProtocolViolation,
                        format!("bind message has {} parameter formats but {} parameters", formats.len(), parameters.len()),
                    )
                    .into());
                }
                let values = parameters
                    .into_iter()
                    .enumerate()
                    .map(|(i, bytes)| match reply::format_of(&formats, i) {
                        0 => Ok(ParameterValue { binary: false, bytes }),
                        1 => Ok(ParameterValue { binary: true, bytes }),
                        other => Err(SqlError::new(ErrorCode::InvalidParameterValue, format!("unsupported format code: {other}"))),
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                self.work(move |session| session.bind(&portal, &statement, values, result_formats)).await??;
                reply::bare(&mut self.wire.out, b'2');
            }
            Frontend::Describe { portal: false, name } => {
                let prepared = self.session()?.prepared(&name)?.clone();
                reply::parameter_description(&mut self.wire.out, &prepared.parameters);
                match &prepared.columns {
                    Some(columns) => reply::row_description(&mut self.wire.out, columns, &[]),
                    None => reply::no_data(&mut self.wire.out),
                }
            }
            Frontend::Describe { portal: true, name } => {
                let portal = self.session()?.portal(&name)?;
                let (columns, formats) = (portal.prepared.columns.clone(), portal.formats.clone());
                match &columns {
                    Some(columns) => reply::row_description(&mut self.wire.out, columns, &formats),
                    None => reply::no_data(&mut self.wire.out),
                }
            }
            Frontend::Execute { portal, max_rows } => self.execute(portal, max_rows.max(0) as u64).await?,
            Frontend::Close { portal, name } => {
                if portal {
                    self.session()?.close_portal(&name);
                } else {
                    self.session()?.close_statement(&name);
                }
                reply::bare(&mut self.wire.out, b'3');
            }
            _ => return Err(SqlError::new(ErrorCode::ProtocolViolation, "unexpected message").into()),
        }
        Ok(())
    }

    async fn execute(&mut self, portal: String, max_rows: u64) -> Result<(), Failure> {
        let formats = self.session()?.portal(&portal)?.formats.clone();
        let name = portal.clone();
        let outcome = self.work_watched(move |session| session.execute_portal(&name)).await?;
        self.beside()?;
        let tag = match outcome {
            Outcome::Empty => {
                reply::empty_query(&mut self.wire.out);
                return Ok(());
            }
            Outcome::Done { tag } => tag,
            Outcome::Rows(mut rows) => match self.send_rows(&mut rows, &formats, max_rows).await? {
                Sent::Complete(tag) => tag,
                Sent::Suspended => {
                    self.session()?.suspend(&portal, rows);
                    reply::bare(&mut self.wire.out, b's');
                    return Ok(());
                }
            },
            Outcome::CopyIn(copy) => self.copy_in(copy).await?,
            Outcome::CopyOut(copy) => self.copy_out(copy).await?,
        };
        self.beside()?;
        reply::complete(&mut self.wire.out, &tag);
        Ok(())
    }

    /// As [`Self::work`]; `statement_timeout` cancels it, and so does a client that goes away: nobody could stop it later.
    async fn work_watched(
        &mut self,
        work: impl FnOnce(&mut Session) -> Result<Outcome, SqlError> + Send + 'static,
    ) -> Result<Outcome, Failure> {
        let limit = self.session()?.milliseconds("statement_timeout");
        let mut session = self.session.take().ok_or(End::Closed)?;
        let mut work = std::pin::pin!(blocking(move || {
            let result = work(&mut session);
            (session, result)
        }));
        let mut gone = false;
        let (session, result) = tokio::select! {
            biased;
            ended = &mut work => ended?,
            () = sleep_for(limit) => {
                self.cancel.cancel();
                let (session, result) = work.await?;
                (session, match result {
                    Err(error) if error.code == ErrorCode::QueryCanceled => Err(timed_out()),
                    other => other,
                })
            }
            () = self.wire.gone() => {
                gone = true;
                self.cancel.cancel();
                work.await?
            }
        };
        self.session = Some(session);
        if gone { Err(End::Closed.into()) } else { Ok(result?) }
    }

    /// When `statement_timeout` ends what begins now.
    fn deadline(&mut self) -> Result<Option<tokio::time::Instant>, End> {
        let limit = self.session()?.milliseconds("statement_timeout");
        Ok((limit > 0).then(|| tokio::time::Instant::now() + Duration::from_millis(limit)))
    }

    /// Sends rows until they end, `max_rows` (0: all) are sent or the client cancels.
    async fn send_rows(&mut self, rows: &mut Rows, formats: &[i16], max_rows: u64) -> Result<Sent, Failure> {
        let deadline = self.deadline()?;
        let types: Vec<_> = rows.columns.iter().map(|c| c.data_type.clone()).collect();
        let formats: Vec<Format> =
            (0..types.len()).map(|i| if reply::format_of(formats, i) == 1 { Format::Binary } else { Format::Text }).collect();
        let context = rows.context.clone();
        let mut scratch = Vec::new();
        let mut sent = 0;
        loop {
            let (batch, start) = match rows.pending.take() {
                Some(pending) => pending,
                None => {
                    let next = tokio::select! {
                        biased;
                        () = self.cancel.canceled() => return Err(canceled().into()),
                        next = rows.batches.next() => next,
                        () = sleep_until(deadline) => return Err(timed_out().into()),
                        () = self.wire.gone() => return Err(End::Closed.into()),
                    };
                    match next {
                        Some(batch) => (batch?, 0),
                        None => break,
                    }
                }
            };
            let encoder = RowEncoder::new(&context, &batch, &types, &formats)?;
            let mut rest = None;
            for row in start..batch.num_rows() {
                if max_rows > 0 && sent == max_rows {
                    rest = Some(row);
                    break;
                }
                let out = &mut self.wire.out;
                let at = out.len();
                out.put_u8(b'D');
                out.put_u32(0);
                out.put_u16(types.len() as u16);
                let encoded = encoder.row(row, &mut scratch, |field| match field {
                    None => out.put_i32(-1),
                    Some(bytes) => {
                        out.put_u32(bytes.len() as u32);
                        out.put_slice(bytes);
                    }
                });
                if let Err(error) = encoded {
                    self.wire.out.truncate(at);
                    return Err(error.into());
                }
                let length = (self.wire.out.len() - at - 1) as u32;
                self.wire.out[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
                sent += 1;
                if self.wire.is_full() {
                    self.wire.flush().await?;
                }
            }
            drop(encoder);
            if let Some(row) = rest {
                rows.pending = Some((batch, row));
                return Ok(Sent::Suspended);
            }
        }
        if max_rows > 0 && sent == max_rows {
            return Ok(Sent::Suspended);
        }
        Ok(Sent::Complete(match &rows.tag {
            RowsTag::Counted(words) => format!("{words} {sent}"),
            RowsTag::Fixed(tag) => tag.clone(),
        }))
    }

    async fn copy_in(&mut self, copy: CopyIn) -> Result<String, Failure> {
        reply::copy_response(&mut self.wire.out, b'G', copy.binary, copy.column_count);
        self.wire.flush().await?;
        let (sender, receiver) = mpsc::channel::<Result<Bytes, SqlError>>(COPY_CHUNKS_MAX);
        let load = copy.load;
        let mut load = std::pin::pin!(blocking(move || load(receiver)));
        let mut sender = Some(sender);
        let deadline = self.deadline()?;
        loop {
            let message = tokio::select! {
                biased;
                result = &mut load => return Ok(result??),
                () = self.cancel.canceled() => {
                    drop(sender.take());
                    let _ = load.await;
                    return Err(canceled().into());
                }
                () = sleep_until(deadline) => {
                    self.cancel.cancel();
                    drop(sender.take());
                    let _ = load.await;
                    return Err(timed_out().into());
                }
                message = self.wire.try_message(true), if sender.is_some() => message?,
            };
            let item = match message {
                Ok(Frontend::CopyData(bytes)) => Ok(bytes),
                Ok(Frontend::CopyDone) => {
                    sender = None;
                    continue;
                }
                Ok(Frontend::CopyFail(reason)) => Err(SqlError::new(ErrorCode::QueryCanceled, format!("COPY from stdin failed: {reason}"))),
                Ok(Frontend::Flush | Frontend::Sync) => continue,
                Ok(Frontend::Terminate) => return Err(End::Closed.into()),
                Ok(_) => Err(SqlError::new(ErrorCode::ProtocolViolation, "unexpected message type during COPY from stdin")),
                Err(malformed) => Err(malformed_error(&malformed)),
            };
            if let Some(open) = &sender {
                let failed = item.is_err();
                tokio::select! {
                    // A statement that has failed takes no more: its result says why.
                    result = &mut load => return Ok(result??),
                    _ = open.send(item) => {}
                }
                if failed {
                    sender = None;
                }
            }
        }
    }

    async fn copy_out(&mut self, mut copy: CopyOut) -> Result<String, Failure> {
        reply::copy_response(&mut self.wire.out, b'H', copy.binary, copy.column_count);
        let deadline = self.deadline()?;
        let mut count = 0;
        loop {
            let next = tokio::select! {
                biased;
                () = self.cancel.canceled() => return Err(canceled().into()),
                next = copy.chunks.next() => next,
                () = sleep_until(deadline) => return Err(timed_out().into()),
                () = self.wire.gone() => return Err(End::Closed.into()),
            };
            let Some(item) = next else { break };
            let (chunks, rows) = item?;
            for chunk in chunks {
                reply::copy_data(&mut self.wire.out, &chunk);
                self.wire.flush_if_full().await?;
            }
            count += rows;
        }
        reply::bare(&mut self.wire.out, b'c');
        Ok(format!("COPY {count}"))
    }
}

/// What a client is told when the server stops.
pub fn shut_down() -> End {
    End::fatal(SqlError::new(ErrorCode::AdminShutdown, "terminating connection due to administrator command"))
}

/// Completes after so many milliseconds; 0: never.
async fn sleep_for(ms: u64) {
    match ms {
        0 => std::future::pending().await,
        ms => tokio::time::sleep(Duration::from_millis(ms)).await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn canceled() -> SqlError {
    SqlError::new(ErrorCode::QueryCanceled, "canceling statement due to user request")
}

fn timed_out() -> SqlError {
    SqlError::new(ErrorCode::QueryCanceled, "canceling statement due to statement timeout")
}
