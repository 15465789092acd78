//! The decoder against bytes that real servers sent, and against bytes that nobody should send.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use strandline_replication::pgoutput::{DecodeError, Message, OldTuple, Relation, ReplicaIdentity, Tuple, TupleValue};
use strandline_storage::{Lsn, Timestamp};

/// Values with more characters than this are shortened in the descriptions.
const SHOWN_MAX: usize = 40;

/// The first oid that is not built in.
const FIRST_USER_OID: u32 = 16384;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn messages_of(scenario: &str) -> Vec<Vec<u8>> {
    let path = folder().join(format!("{scenario}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().filter(|l| !l.is_empty()).map(from_hex).collect()
}

fn from_hex(line: &str) -> Vec<u8> {
    (0..line.len() / 2).map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn all_scenarios() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".hex").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// What `pgNN.txt` says of each scenario: the lines that describe messages.
fn descriptions(version: &str) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(folder().join(format!("{version}.txt"))).unwrap();
    let mut scenarios: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            scenarios.push((format!("{version}.{}", title.split(' ').next().unwrap()), Vec::new()));
        } else if let Some(message) = line.strip_prefix("   ")
            && !message.starts_with("-- ")
            && !message.starts_with("=> ")
            && message.trim_start() == message
        {
            scenarios.last_mut().unwrap().1.push(message.trim_end().to_owned());
        }
    }
    scenarios
}

/// As Python prints a text.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\");
    if escaped.contains('\'') && !escaped.contains('"') { format!("\"{escaped}\"") } else { format!("'{}'", escaped.replace('\'', "\\'")) }
}

fn show_tuple(tuple: Tuple<'_>) -> String {
    assert_eq!(tuple.values().count(), tuple.column_count());
    let show = |value| match value {
        TupleValue::Null => "('n',)".to_owned(),
        TupleValue::Unchanged => "('u',)".to_owned(),
        TupleValue::Text(text) => {
            let text = std::str::from_utf8(text).unwrap();
            if text.len() > SHOWN_MAX {
                format!("('t', {})", quoted(&format!("{}..{}", &text[..SHOWN_MAX], text.len())))
            } else {
                format!("('t', {})", quoted(text))
            }
        }
        // Shortened without a mark.
        TupleValue::Binary(bytes) => {
            format!("('b', '{}')", bytes.iter().take(SHOWN_MAX / 2).map(|b| format!("{b:02x}")).collect::<String>())
        }
    };
    format!("[{}]", tuple.values().map(show).collect::<Vec<_>>().join(", "))
}

fn show_old(old: OldTuple<'_>) -> String {
    match old {
        OldTuple::Key(tuple) => format!("old[K]={}", show_tuple(tuple)),
        OldTuple::Full(tuple) => format!("old[O]={}", show_tuple(tuple)),
    }
}

fn show_relation(relation: &Relation<'_>) -> String {
    let identity = match relation.identity {
        ReplicaIdentity::Default => "d",
        ReplicaIdentity::Nothing => "n",
        ReplicaIdentity::Full => "f",
        ReplicaIdentity::Index => "i",
    };
    let column = |c: &strandline_replication::pgoutput::RelationColumn<'_>| {
        format!("({}, {}, {}, '{}')", quoted(c.name), c.type_oid, c.typmod, if c.key { "key" } else { "" })
    };
    let columns: Vec<String> = relation.columns.iter().map(column).collect();
    format!("{}.{} ident={identity} cols=[{}]", quoted(relation.schema), relation.name, columns.join(", "))
}

/// Decodes the messages of one connection, of which some lie within blocks of streamed transactions.
struct Shower {
    block: Option<u32>,
}

impl Shower {
    /// A line as the descriptions have it, and the message's transaction id if it carries one.
    fn show(&mut self, bytes: &[u8]) -> String {
        let (xid, message) = match self.block {
            None => (None, Message::decode(bytes).unwrap()),
            Some(_) => Message::decode_streamed(bytes).unwrap(),
        };
        let sub = match (self.block, xid) {
            (Some(block), Some(xid)) => {
                assert!(xid >= block, "a subtransaction's id is higher than its transaction's");
                "xid=sub "
            }
            _ => "",
        };
        let is_time = |time: Timestamp| time.0 > 0;
        match message {
            Message::Begin(begin) => {
                assert!(begin.commit_lsn > Lsn(0) && begin.xid > 0 && is_time(begin.commit_time));
                "BEGIN final_lsn,ts,xid".into()
            }
            Message::Commit(commit) => {
                assert!(commit.end_lsn > commit.commit_lsn && is_time(commit.commit_time));
                "COMMIT flags=0".into()
            }
            Message::Origin(origin) => format!("ORIGIN {}", origin.name),
            Message::Relation(relation) => format!("RELATION {sub}{}", show_relation(&relation)),
            Message::Type(r#type) => {
                // The descriptions show the schema as it was sent.
                let schema = if r#type.schema == "pg_catalog" { "" } else { r#type.schema };
                assert!(r#type.oid >= FIRST_USER_OID);
                format!("TYPE {sub}{schema}.{} (oid user)", r#type.name)
            }
            Message::Insert(insert) => format!("INSERT {sub}{}", show_tuple(insert.new)),
            Message::Update(update) => {
                let old = update.old.map(|old| format!("{} ", show_old(old))).unwrap_or_default();
                format!("UPDATE {sub}{old}new={}", show_tuple(update.new))
            }
            Message::Delete(delete) => format!("DELETE {sub}{}", show_old(delete.old)),
            Message::Truncate(truncate) => {
                let flags = u8::from(truncate.cascade) + 2 * u8::from(truncate.restart_identity);
                format!("TRUNCATE {sub}nrels={} flags={flags} (1=cascade 2=restart)", truncate.relations.len())
            }
            Message::Logical(message) => format!(
                "MESSAGE {sub}transactional={} prefix={} content=b{}",
                u8::from(message.transactional),
                message.prefix,
                quoted(std::str::from_utf8(message.content).unwrap())
            ),
            Message::StreamStart(start) => {
                assert!(self.block.replace(start.xid).is_none(), "a block within a block");
                format!("STREAM START first_segment={}", u8::from(start.first_segment))
            }
            Message::StreamStop => {
                assert!(self.block.take().is_some(), "the end of a block that did not begin");
                "STREAM STOP".into()
            }
            Message::StreamCommit(end) => {
                assert!(end.xid > 0 && end.commit.end_lsn > end.commit.commit_lsn && is_time(end.commit.commit_time));
                "STREAM COMMIT".into()
            }
            Message::StreamAbort(abort) => {
                assert!(abort.subxid >= abort.xid && abort.abort.is_none());
                format!("STREAM ABORT {} extra_bytes=0", if abort.subxid == abort.xid { "top" } else { "sub" })
            }
            Message::BeginPrepare(prepare) | Message::Prepare(prepare) | Message::StreamPrepare(prepare) => {
                assert!(prepare.prepare_lsn > Lsn(0) && prepare.end_lsn > prepare.prepare_lsn && is_time(prepare.prepare_time));
                assert!(prepare.xid > 0);
                let kind = match bytes[0] {
                    b'b' => "BEGIN PREPARE",
                    b'P' => "PREPARE",
                    _ => "STREAM PREPARE",
                };
                format!("{kind} gid=b{}", quoted(prepare.gid))
            }
            Message::CommitPrepared(end) => {
                assert!(end.xid > 0 && end.commit.end_lsn > end.commit.commit_lsn && is_time(end.commit.commit_time));
                format!("COMMIT PREPARED gid=b{}", quoted(end.gid))
            }
            Message::RollbackPrepared(end) => {
                assert!(end.xid > 0 && end.end_lsn > end.prepare_end_lsn && end.rollback_time > end.prepare_time);
                format!("ROLLBACK PREPARED gid=b{}", quoted(end.gid))
            }
        }
    }
}

fn shown(scenario: &str) -> Vec<String> {
    let mut shower = Shower { block: None };
    messages_of(scenario).iter().map(|m| shower.show(m)).collect()
}

/// Compares with a description that may leave runs of lines out.
fn assert_described(scenario: &str, actual: &[String], expected: &[String]) {
    let mut rest = actual;
    for line in expected {
        let count = match line.strip_prefix("... ") {
            Some(left_out) => left_out.split(' ').next().unwrap().parse().unwrap(),
            None => {
                assert_eq!(rest.first(), Some(line), "{scenario}: message {}", actual.len() - rest.len());
                1
            }
        };
        rest = rest.get(count..).unwrap_or_else(|| panic!("{scenario}: only {} messages", actual.len()));
    }
    assert!(rest.is_empty(), "{scenario}: {} messages more than described", rest.len());
}

#[test]
fn every_capture_says_what_its_description_says() {
    let mut described = Vec::new();
    let mut count = 0;
    for version in ["pg15", "pg18"] {
        for (scenario, expected) in descriptions(version) {
            let actual = shown(&scenario);
            assert_described(&scenario, &actual, &expected);
            count += actual.len();
            described.push(scenario);
        }
    }
    described.sort();
    assert_eq!(described, all_scenarios(), "captures and descriptions");
    assert!(count > 9000, "only {count} messages");
}

#[test]
fn blocks_of_two_transactions_alternate_and_carry_their_own_ids() {
    let mut block = None;
    let mut xids_of: std::collections::BTreeMap<u32, std::collections::BTreeSet<u32>> = Default::default();
    let (mut blocks, mut aborted, mut committed) = (Vec::new(), Vec::new(), Vec::new());
    for bytes in messages_of("pg15.stream_interleaved") {
        let (xid, message) = match block {
            None => (None, Message::decode(&bytes).unwrap()),
            Some(_) => Message::decode_streamed(&bytes).unwrap(),
        };
        match message {
            Message::StreamStart(start) => {
                assert_eq!(start.first_segment, !blocks.contains(&start.xid));
                block = Some(start.xid);
                blocks.push(start.xid);
            }
            Message::StreamStop => block = None,
            Message::StreamAbort(abort) => aborted.push((abort.xid, abort.subxid)),
            Message::StreamCommit(end) => committed.push(end.xid),
            _ => {
                xids_of.entry(block.unwrap()).or_default().insert(xid.unwrap());
            }
        }
    }
    let (a, b) = (0x2d5, 0x2d6);
    assert_eq!(blocks, [a, b, a, a, b, b, a]);
    assert_eq!(aborted, [(a, 0x2d7)]);
    assert_eq!(committed, [b, a]);
    assert_eq!(xids_of[&a].iter().copied().collect::<Vec<_>>(), [a, 0x2d7, 0x2d8, 0x2d9]);
    assert_eq!(xids_of[&b].iter().copied().collect::<Vec<_>>(), [b]);
}

#[test]
fn an_abort_of_protocol_4_tells_where_and_when() {
    let mut bytes = b"A\0\0\0\x07\0\0\0\x09".to_vec();
    let Ok(Message::StreamAbort(short)) = Message::decode(&bytes) else { panic!() };
    assert_eq!((short.xid, short.subxid, short.abort), (7, 9, None));
    bytes.extend(0x1_0000_0002_u64.to_be_bytes());
    bytes.extend(77_i64.to_be_bytes());
    let Ok(Message::StreamAbort(long)) = Message::decode(&bytes) else { panic!() };
    assert_eq!((long.xid, long.subxid, long.abort), (7, 9, Some((Lsn(0x1_0000_0002), Timestamp(77)))));
    for size in 10..bytes.len() {
        assert!(Message::decode(&bytes[..size]).is_err(), "{size}");
    }
}

#[test]
fn what_the_protocol_does_not_allow_is_refused() {
    let invalid = |bytes: &[u8]| assert!(matches!(Message::decode(bytes), Err(DecodeError::InvalidField { .. })), "{bytes:?}");
    invalid(b"S\0\0\0\0\x01");
    invalid(b"S\0\0\0\x01\x02");
    invalid(b"A\0\0\0\x01\0\0\0\0");
    invalid(b"c\0\0\0\x01\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03");
    invalid(b"P\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\x04g\0");
    assert!(Message::decode_streamed(b"I\0\0\0\0\0\0\x40\0N\0\0").is_err(), "a change of transaction 0");
    assert_eq!(Message::decode(b"?"), Err(DecodeError::Unknown { tag: b'?' }));
    assert_eq!(Message::decode(b""), Err(DecodeError::Empty));
}

/// Every message with whether it lies within a block.
fn with_places() -> Vec<(String, bool, Vec<u8>)> {
    let mut all = Vec::new();
    for scenario in all_scenarios() {
        let mut in_block = false;
        for message in messages_of(&scenario) {
            // Stream Start and Stream Stop themselves decode in either place.
            match message[0] {
                b'S' => in_block = true,
                b'E' => in_block = false,
                _ => {}
            }
            all.push((scenario.clone(), in_block, message));
        }
    }
    all
}

fn decode_in(in_block: bool, bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    if in_block { Message::decode_streamed(bytes).map(|(_, message)| message) } else { Message::decode(bytes) }
}

#[test]
fn every_shortened_message_is_an_error() {
    let mut seen = std::collections::BTreeSet::new();
    for (scenario, in_block, message) in with_places() {
        // Of the thousands of like rows a few say it all.
        if message[0] == b'I' && message.len() < 2000 && !seen.insert((scenario.clone(), message.len())) {
            continue;
        }
        // Long values are cut at their ends and in steps; every length of the rest.
        for size in (0..message.len()).filter(|size| message.len() < 2000 || size % 97 == 0) {
            assert!(decode_in(in_block, &message[..size]).is_err(), "{scenario}: {size} of {} bytes decoded", message.len());
        }
        let mut longer = message.clone();
        longer.push(0);
        match decode_in(in_block, &longer) {
            // One more byte of an abort is the beginning of its LSN.
            Err(DecodeError::Truncated { .. }) if message[0] == b'A' => {}
            other => assert_eq!(other, Err(DecodeError::Trailing { count: 1 }), "{scenario}"),
        }
    }
}

/// Decodes and walks everything that came out.
fn exercise(bytes: &[u8]) {
    for in_block in [false, true] {
        match decode_in(in_block, bytes) {
            // Text that is not UTF-8 is legal in a tuple until a type reads it.
            Ok(Message::Insert(insert)) => assert_eq!(insert.new.values().count(), insert.new.column_count()),
            Ok(Message::Update(update)) => assert_eq!(update.new.values().count(), update.new.column_count()),
            Ok(Message::Delete(delete)) => assert_eq!(delete.old.tuple().values().count(), delete.old.tuple().column_count()),
            _ => {}
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = with_places().into_iter().map(|(_, _, m)| m).filter(|m| m.len() < 2000).collect();
    // As many of each kind as there are, and not thousands of one.
    seeds.sort_by_key(|m| (m[0], m.len()));
    seeds.dedup_by_key(|m| (m[0], m.len()));
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn mutated_messages_never_panic(
        index in any::<prop::sample::Index>(),
        mutations in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        thread_local!(static SEEDS: Vec<Vec<u8>> = seeds());
        let mut bytes = SEEDS.with(|seeds| index.get(seeds).clone());
        for (at, byte) in mutations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        exercise(&bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        exercise(&bytes);
    }
}
