//! See `sim/tests/decoders/targets.rs`.
#![no_main]

#[path = "../../tests/decoders/targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run("journal_file", bytes));
