//! Rows of COPY in its binary and its text format, of every kind of type.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strandline_replication::decode_copied_rows(bytes));
