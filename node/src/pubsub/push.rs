//! A message that many clients get: encoded once for each protocol, and only for those that are spoken.

use std::cell::OnceCell;

use bytes::Bytes;
use std::sync::atomic::Ordering;

use crate::clients::Client;
use crate::resp::Reply;

/// What is to be posted to clients, by the function that writes it.
pub struct Push<W> {
    write: W,
    resp2: OnceCell<Bytes>,
    resp3: OnceCell<Bytes>,
}

impl<W: Fn(&mut Reply)> Push<W> {
    /// A push that nobody has got yet.
    pub fn new(write: W) -> Self {
        Self {
            write,
            resp2: OnceCell::new(),
            resp3: OnceCell::new(),
        }
    }

    /// Posts it in the client's protocol.
    pub fn post(&self, client: &Client) {
        client.post(self.encoded(client).clone());
    }

    /// Posts it unless the client already has it as its last one. Says whether it did.
    pub fn post_once(&self, client: &Client) -> bool {
        let letter = self.encoded(client);
        let is_new = !client.mailbox.ends_with(letter);
        if is_new {
            client.post(letter.clone());
        }
        is_new
    }

    fn encoded(&self, client: &Client) -> &Bytes {
        let is_resp3 = client.resp3.load(Ordering::Relaxed);
        let cell = if is_resp3 { &self.resp3 } else { &self.resp2 };
        cell.get_or_init(|| {
            let mut reply = Reply::new(usize::MAX);
            reply.set_resp3(is_resp3);
            (self.write)(&mut reply);
            reply.take_buffer().into()
        })
    }
}
