//! A message of the primary's stream, within a block of a streamed transaction and outside.
#![no_main]

use strandline_replication::pgoutput::{Message, Tuple};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    walk(Message::decode(bytes).ok());
    walk(Message::decode_streamed(bytes).ok().map(|(_, message)| message));
});

fn walk(message: Option<Message<'_>>) {
    let check = |tuple: Tuple<'_>| assert_eq!(tuple.values().count(), tuple.column_count());
    match message {
        Some(Message::Insert(insert)) => check(insert.new),
        Some(Message::Update(update)) => {
            check(update.new);
            if let Some(old) = update.old {
                check(old.tuple());
            }
        }
        Some(Message::Delete(delete)) => check(delete.old.tuple()),
        _ => {}
    }
}
