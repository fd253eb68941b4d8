//! A client's connection, with TLS or without.
//!
//! Connections are compiled for each of the two: what has no TLS pays nothing for those that have it.

use std::io::{self, Read};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// What a connection's bytes come from and go to.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// What has been written is not necessarily sent: flushing may take time.
    const BUFFERS: bool;

    /// The connection underneath.
    fn socket(&self) -> &TcpStream;

    /// Receives past the runtime, which learns of new bytes only when it next asks the kernel.
    fn receive_now(&mut self, bytes: &mut [u8]) -> io::Result<usize>;
}

impl ClientStream for TcpStream {
    const BUFFERS: bool = false;

    #[inline]
    fn socket(&self) -> &TcpStream {
        self
    }

    fn receive_now(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(&*self)).read(bytes)
    }
}

impl ClientStream for TlsStream<TcpStream> {
    const BUFFERS: bool = true;

    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn receive_now(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (socket, session) = self.get_mut();
        session.read_tls(&mut &*SockRef::from(&*socket))?;
        session.process_new_packets().map_err(io::Error::other)?;
        session.reader().read(bytes)
    }
}
