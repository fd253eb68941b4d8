//! Just enough of the protocol to send prepared bytes and to count simple replies.

use std::net::SocketAddr;

use annulus_tests::Binding;
pub use annulus_tests::wire::command;
use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection of that tenant.
pub async fn connect(node: SocketAddr, binding: &Binding) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(node).await?;
    stream.set_nodelay(true)?;
    let words = [b"AUTH", binding.username.as_bytes(), binding.password.as_bytes()];
    stream.write_all(&command(&words)).await?;
    let mut reply = [0; 256];
    let len = stream.read(&mut reply).await?;
    let reply = String::from_utf8_lossy(&reply[..len]);
    ensure!(reply == "+OK\r\n", "AUTH: {reply}");
    Ok(stream)
}

/// A small, fast source of numbers that need not be good: xorshift64*, Vigna 2016.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % end
    }
}
