//! The wire protocol of Redis clients: commands come in as arrays of bulk strings or as plain lines, replies go
//! out in RESP2 or RESP3.
//!
//! Sources: the Redis serialization protocol specification, and the limits and error texts of Redis 7.
//! Deviation: the CR LF behind every length and every bulk string is checked, where Redis skips two bytes
//! unseen.

mod inline;
pub mod number;
pub mod parser;
pub mod reply;

pub use parser::{Args, Kept, Limits, OwnedArgs, Parser, ProtocolError};
pub use reply::Reply;
