//! Any program with any arguments: the node never panics and stays within its limits, every reply is well formed, and
//! the next script finds nothing of it. `cargo +nightly fuzz run script`

#![no_main]

use annulus_node::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzzing::script(data));
