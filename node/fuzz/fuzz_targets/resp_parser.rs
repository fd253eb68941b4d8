//! Any bytes, in any pieces: the parser never panics, never holds more than it was given, and finds the same
//! commands however the bytes are cut. `cargo +nightly fuzz run resp_parser`

#![no_main]

use annulus_node::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzzing::parser(data));
