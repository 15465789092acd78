//! The decoder against bytes that real servers sent, and against bytes that nobody should send.

use std::path::Path;

use proptest::prelude::*;
use strandline_replication::pgoutput::{DecodeError, Message, OldTuple, ReplicaIdentity, Tuple, TupleValue};
use strandline_storage::Lsn;

fn messages_of(scenario: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{scenario}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().filter(|l| !l.is_empty()).map(from_hex).collect()
}

fn from_hex(line: &str) -> Vec<u8> {
    (0..line.len() / 2).map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn all_scenarios() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".hex").map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn show_tuple(tuple: Tuple<'_>) -> String {
    assert_eq!(tuple.values().count(), tuple.column_count());
    let values: Vec<String> = tuple
        .values()
        .map(|value| match value {
            TupleValue::Null => "null".into(),
            TupleValue::Unchanged => "unchanged".into(),
            TupleValue::Text(text) if text.len() > 40 => format!("<{} bytes>", text.len()),
            TupleValue::Text(text) => format!("'{}'", std::str::from_utf8(text).unwrap()),
            TupleValue::Binary(bytes) => format!("<{} binary bytes>", bytes.len()),
        })
        .collect();
    format!("({})", values.join(", "))
}

fn show_old(old: OldTuple<'_>) -> String {
    match old {
        OldTuple::Key(tuple) => format!("key {}", show_tuple(tuple)),
        OldTuple::Full(tuple) => format!("full {}", show_tuple(tuple)),
    }
}

/// A line per message without what differs from run to run.
fn show(bytes: &[u8]) -> String {
    match Message::decode(bytes).unwrap() {
        Message::Begin(begin) => {
            assert!(begin.commit_lsn > Lsn(0) && begin.xid > 0 && begin.commit_time.0 > 0);
            "begin".into()
        }
        Message::Commit(commit) => {
            assert!(commit.end_lsn > commit.commit_lsn);
            "commit".into()
        }
        Message::Origin(origin) => format!("origin {}", origin.name),
        Message::Relation(relation) => {
            let identity = match relation.identity {
                ReplicaIdentity::Default => "default",
                ReplicaIdentity::Nothing => "nothing",
                ReplicaIdentity::Full => "full",
                ReplicaIdentity::Index => "index",
            };
            let columns: Vec<String> =
                relation.columns.iter().map(|c| format!("{}{}:{}", if c.key { "*" } else { "" }, c.name, c.type_oid)).collect();
            format!("relation {}.{} {identity} ({})", relation.schema, relation.name, columns.join(", "))
        }
        Message::Type(r#type) => format!("type {}.{}", r#type.schema, r#type.name),
        Message::Insert(insert) => format!("insert {}", show_tuple(insert.new)),
        Message::Update(update) => match update.old {
            Some(old) => format!("update {} to {}", show_old(old), show_tuple(update.new)),
            None => format!("update {}", show_tuple(update.new)),
        },
        Message::Delete(delete) => format!("delete {}", show_old(delete.old)),
        Message::Truncate(truncate) => {
            format!("truncate {} cascade={} restart={}", truncate.relations.len(), truncate.cascade, truncate.restart_identity)
        }
        Message::Logical(message) => {
            format!("message {} {}={}", message.transactional, message.prefix, String::from_utf8_lossy(message.content))
        }
    }
}

fn shown(scenario: &str) -> Vec<String> {
    messages_of(scenario).iter().map(|m| show(m)).filter(|line| line != "begin" && line != "commit").collect()
}

#[test]
fn every_capture_of_protocol_1_decodes() {
    let mut count = 0;
    for scenario in all_scenarios().iter().filter(|s| !s.contains("stream_v2")) {
        for message in messages_of(scenario) {
            show(&message);
            count += 1;
        }
    }
    assert!(count > 200, "only {count} messages");
}

#[test]
fn default_identity_sends_the_old_key_only_when_it_changes() {
    assert_eq!(
        shown("pg15.default_identity"),
        [
            "relation public.t1 default (*id:23, a:25, b:23)",
            "insert ('1', 'x', '1')",
            "insert ('2', null, '2')",
            "update ('1', 'x', '5')",
            "update key ('2', null, null) to ('9', null, '2')",
            "delete key ('1', null, null)",
        ]
    );
}

#[test]
fn full_identity_sends_whole_old_rows() {
    assert_eq!(
        shown("pg15.full_identity"),
        [
            "relation public.t2 full (*id:23, *a:25)",
            "insert ('1', 'x')",
            "insert ('1', 'x')",
            "update full ('1', 'x') to ('1', 'y')",
            "delete full ('1', 'x')",
        ]
    );
}

#[test]
fn identity_by_index_says_nothing_of_a_changed_primary_key() {
    assert_eq!(
        shown("pg15.index_identity"),
        [
            "relation public.t3 index (id:23, *u:23, a:25)",
            "insert ('1', '10', 'x')",
            "update ('1', '10', 'y')",
            "update ('2', '10', 'y')",
            "update key (null, '10', null) to ('2', '11', 'y')",
            "delete key (null, '11', null)",
        ]
    );
}

#[test]
fn out_of_line_values_that_did_not_change_are_not_sent() {
    assert_eq!(
        shown("pg15.toast_default"),
        [
            "relation public.t5 default (*id:23, big:25, n:23)",
            "insert ('1', <12800 bytes>, '0')",
            "update ('1', unchanged, '1')",
            "update key ('1', null, null) to ('2', unchanged, '1')",
            "update ('2', 'short', '1')",
            "delete key ('2', null, null)",
        ]
    );
    assert_eq!(shown("pg15.toast_full")[2], "update full ('1', <12800 bytes>, '0') to ('1', unchanged, '1')");
}

#[test]
fn truncate_carries_its_tables_and_flags() {
    let lines = shown("pg15.truncate");
    assert!(lines.contains(&"truncate 3 cascade=true restart=true".to_string()), "{lines:?}");
    assert!(shown("pg15.nothing_identity").contains(&"truncate 1 cascade=false restart=false".to_string()));
}

#[test]
fn types_that_are_not_built_in_are_named_and_domains_carry_their_base() {
    let lines = shown("pg15.types");
    assert_eq!(lines[..4], ["type pg_catalog.int4", "type public.mood", "type public.comp", "type public._mood"]);
    assert!(shown("pg15.types_binary").last().unwrap().contains("binary bytes"));
}

#[test]
fn origins_and_logical_messages_decode() {
    assert!(shown("pg15.origin").iter().any(|line| line.starts_with("origin ")));
    let lines = shown("pg15.messages");
    assert!(lines.contains(&"message true myprefix=tx msg".to_string()), "{lines:?}");
    assert!(lines.contains(&"message false other=nontx".to_string()), "{lines:?}");
}

#[test]
fn messages_of_protocol_2_are_refused_by_name() {
    let first = &messages_of("pg15.stream_v2")[0];
    assert_eq!(Message::decode(first), Err(DecodeError::Unsupported { tag: b'S' }));
    assert_eq!(Message::decode(first).unwrap_err().to_string(), "message type \"S\" (Stream Start) is not supported");
}

#[test]
fn every_shortened_message_is_an_error() {
    for scenario in all_scenarios().iter().filter(|s| !s.contains("stream_v2")) {
        for message in messages_of(scenario) {
            // Long values are cut at their ends and in steps; every length of the rest.
            for size in (0..message.len()).filter(|size| message.len() < 2000 || size % 97 == 0) {
                assert!(Message::decode(&message[..size]).is_err(), "{scenario}: {size} of {} bytes decoded", message.len());
            }
            let mut longer = message.clone();
            longer.push(0);
            assert_eq!(Message::decode(&longer), Err(DecodeError::Trailing { count: 1 }), "{scenario}");
        }
    }
}

/// Decodes and walks everything that came out.
fn exercise(bytes: &[u8]) {
    if Message::decode(bytes).is_ok() {
        // Text that is not UTF-8 is legal in a tuple until a type reads it.
        match Message::decode(bytes).unwrap() {
            Message::Insert(insert) => assert_eq!(insert.new.values().count(), insert.new.column_count()),
            Message::Update(update) => assert_eq!(update.new.values().count(), update.new.column_count()),
            Message::Delete(delete) => assert_eq!(delete.old.tuple().values().count(), delete.old.tuple().column_count()),
            _ => {}
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    all_scenarios().iter().flat_map(|s| messages_of(s)).filter(|m| m.len() < 2000).collect()
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
