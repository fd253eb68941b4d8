//! A connection's bytes, counted, and a limit to how long a client may take nothing of what it asked for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::clients::Client;
use crate::stats::ThreadStats;

/// A client that takes nothing for so long has its connection closed: what it was to be sent takes memory.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// A client's connection.
pub(super) struct Socket<S> {
    stream: S,
    client: Arc<Client>,
    stats: Arc<ThreadStats>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Socket<S> {
    pub(super) fn new(stream: S, client: Arc<Client>, stats: Arc<ThreadStats>) -> Self {
        Self::with_patience(stream, client, stats, WRITE_PATIENCE)
    }

    /// One whose client may take nothing for so long.
    pub(super) fn with_patience(
        stream: S,
        client: Arc<Client>,
        stats: Arc<ThreadStats>,
        patience: Duration,
    ) -> Self {
        Self {
            patience,
            stream,
            client,
            stats,
            stalled: None,
        }
    }

    fn note_written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(done)) => {
                self.stalled = None;
                let bytes = bytes(&done) as u64;
                self.stats.net_output_bytes.add(bytes);
                self.client.usage.sent_bytes.add(bytes);
                Poll::Ready(Ok(done))
            }
            Poll::Pending => {
                let patience = self.patience;
                let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
                match timer.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    Poll::Pending => Poll::Pending,
                }
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = (buffer.filled().len() - before) as u64;
        if bytes > 0 {
            self.stats.net_input_bytes.add(bytes);
            self.client.usage.received_bytes.add(bytes);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_written(context, written, |len| *len)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_written(context, written, |len| *len)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.note_written(context, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
