//! The body of a request, on its way in.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use tokio::time::{Instant, timeout_at};

use super::problem::Problem;

/// A body may take so long, and a second more for each so many bytes.
const PATIENCE: Duration = Duration::from_secs(10);
const BYTES_PER_SECOND: usize = 64 << 10;

/// What nobody wants is read up to so many bytes, so that the connection can go on.
const UNWANTED_BYTES_MAX: u64 = 64 << 10;

/// A body that may not have come yet.
pub(super) struct Upload {
    body: Incoming,
    begun: Instant,
    patience: Duration,
    received: usize,
    is_over: bool,
}

impl Upload {
    pub(super) fn new(body: Incoming) -> Self {
        Self::with_patience(body, PATIENCE)
    }

    /// One that may take so long, and more the more of it comes.
    pub(super) fn with_patience(body: Incoming, patience: Duration) -> Self {
        Self {
            patience,
            is_over: body.is_end_stream(),
            body,
            begun: Instant::now(),
            received: 0,
        }
    }

    /// It has at least so many bytes that haven't come yet.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.body.size_hint().lower()
    }

    /// It has so many bytes that haven't come yet, as far as anybody says.
    pub(super) fn expected_bytes(&self) -> u64 {
        self.body.size_hint().upper().unwrap_or(u64::MAX)
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        while !self.is_over {
            let patience = self.patience + Duration::from_secs((self.received / BYTES_PER_SECOND) as u64);
            match timeout_at(self.begun + patience, self.body.frame()).await {
                Ok(None) => self.is_over = true,
                Ok(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        self.received += piece.len();
                        return Ok(Some(piece));
                    }
                }
                Ok(Some(Err(error))) => {
                    return Err(Problem::bad_request(format!("the body broke off: {error}")).and_end());
                }
                Err(_) => return Err(Problem::timeout()),
            }
        }
        Ok(None)
    }

    /// Reads what is left of it, if that is little and on its way. Whether another request can follow.
    pub(super) async fn discard(&mut self, waits_to_be_asked: bool) -> bool {
        if self.is_over {
            return true;
        }
        let is_little = self
            .body
            .size_hint()
            .upper()
            .is_some_and(|bytes| bytes <= UNWANTED_BYTES_MAX);
        if !is_little || (waits_to_be_asked && self.received == 0) {
            return false;
        }
        while let Ok(piece) = self.next().await {
            if piece.is_none() {
                return true;
            }
        }
        false
    }
}
