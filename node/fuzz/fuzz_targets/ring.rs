//! Ring documents from any bytes: as the operator pushes them, as a file has them, and drawn so that most are valid. What
//! is not valid is refused; by what is, the node serves, and says so in whole replies. `cargo +nightly fuzz run ring`

#![no_main]

use annulus_node::fuzzing;
use annulus_proto::{Sender, v1};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else {
        return;
    };
    match how % 4 {
        0 => {
            if let Ok(request) = v1::PushRingRequest::decode(bytes)
                && Sender::try_from(request.sender).is_ok()
            {
                fuzzing::ring_document(&request.document);
            }
        }
        1 => fuzzing::ring_document(bytes),
        _ => fuzzing::ring_documents(bytes),
    }
});
