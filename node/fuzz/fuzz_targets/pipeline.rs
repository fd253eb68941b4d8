//! A connection without its socket: any bytes are received, executed and answered. The node never panics, stays
//! within its budget, and every reply is well formed. `cargo +nightly fuzz run pipeline`

#![no_main]

use annulus_node::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzzing::pipeline(data));
