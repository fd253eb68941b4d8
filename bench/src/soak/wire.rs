//! A connection that speaks RESP2: requests are queued, flushed, and answered in order.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A simple or a bulk string.
    Text(Vec<u8>),
    /// An error's text.
    Error(String),
    /// A number.
    Integer(i64),
    /// Nothing.
    Nil,
    /// Several.
    List(Vec<Self>),
}

/// A connection.
pub struct Wire {
    stream: TcpStream,
    input: Vec<u8>,
    /// What of `input` was taken already.
    taken: usize,
    output: Vec<u8>,
}

const READ_BYTES: usize = 64 << 10;

impl Wire {
    /// Connects; with a receive buffer of that size if one is named.
    pub async fn connect(address: SocketAddr, receive_bytes: Option<u32>) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
        })
    }

    /// The socket itself.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Adds a request.
    pub fn queue(&mut self, args: &[&[u8]]) {
        self.output
            .extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
        for arg in args {
            self.output
                .extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            self.output.extend_from_slice(arg);
            self.output.extend_from_slice(b"\r\n");
        }
    }

    /// Forgets the last bytes that were queued: the node is to wait for them in vain.
    pub fn cut(&mut self, bytes: usize) {
        self.output.truncate(self.output.len().saturating_sub(bytes));
    }

    /// Sends what was queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        self.output.shrink_to(READ_BYTES);
        Ok(())
    }

    /// The next reply.
    pub async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            if let Some((reply, len)) = parse(&self.input[self.taken..])? {
                self.taken += len;
                if self.taken == self.input.len() {
                    self.input.clear();
                    self.input.shrink_to(READ_BYTES);
                    self.taken = 0;
                }
                return Ok(reply);
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// One request and its reply.
    pub async fn ask(&mut self, args: &[&[u8]]) -> io::Result<Reply> {
        self.queue(args);
        self.flush().await?;
        self.reply().await
    }
}

fn malformed(line: &[u8]) -> io::Error {
    io::Error::other(format!("not a reply: {}", line.escape_ascii()))
}

/// The first reply and its length; `None` when more must be read.
fn parse(bytes: &[u8]) -> io::Result<Option<(Reply, usize)>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let (line, mut at) = (&bytes[..end], end + 2);
    let (Some(kind), text) = (line.first(), line.get(1..).unwrap_or_default()) else {
        return Err(malformed(line));
    };
    let number = || {
        let text = std::str::from_utf8(text).ok();
        text.and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| malformed(line))
    };
    let reply = match kind {
        b'+' => Reply::Text(text.to_vec()),
        b'-' => Reply::Error(String::from_utf8_lossy(text).into_owned()),
        b':' => Reply::Integer(number()?),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(len) => {
                let Some(content) = bytes.get(at..at + len + 2) else {
                    return Ok(None);
                };
                at += len + 2;
                Reply::Text(content[..len].to_vec())
            }
        },
        b'*' => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(len) => {
                let mut list = Vec::new();
                for _ in 0..len {
                    let Some((element, len)) = parse(&bytes[at..])? else {
                        return Ok(None);
                    };
                    list.push(element);
                    at += len;
                }
                Reply::List(list)
            }
        },
        _ => return Err(malformed(line)),
    };
    Ok(Some((reply, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a [u8], Option<(Reply, usize)>);

    #[test]
    fn replies_are_parsed() {
        let text = |text: &str| Reply::Text(text.into());
        let rows: [Row<'_>; 8] = [
            (b"+OK\r\n+", Some((text("OK"), 5))),
            (b"-ERR no\r\n", Some((Reply::Error("ERR no".to_owned()), 9))),
            (b":-7\r\n", Some((Reply::Integer(-7), 5))),
            (b"$-1\r\n", Some((Reply::Nil, 5))),
            (b"$3\r\na\r\n\r\n", Some((text("a\r\n"), 9))),
            (b"$3\r\nab", None),
            (
                b"*2\r\n$1\r\na\r\n:1\r\n",
                Some((Reply::List(vec![text("a"), Reply::Integer(1)]), 15)),
            ),
            (b"*2\r\n$1\r\na\r\n", None),
        ];
        for (bytes, expected) in rows {
            assert_eq!(parse(bytes).unwrap(), expected, "{}", bytes.escape_ascii());
        }
        assert!(parse(b"?\r\n").is_err());
    }
}
