#![no_main]

use strandline_storage::decoders::{Decoder, decode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decode(Decoder::PackedRecords, bytes);
});
