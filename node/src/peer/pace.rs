//! How fast entries go out to fill copies and to hand slots over, so that clients keep their share of the network.
//!
//! The generic cell rate algorithm (ITU-T I.371): one moment says up to when what was sent has been paid for. It is asked
//! before something is sent, and told afterwards how much that was; so a message that is larger than the allowance goes
//! out as well, and what follows waits the longer.

use parking_lot::Mutex;

/// What may be sent at once after a pause.
const BURST_MS: u64 = 250;

/// The pace of one node, for everything that it sends.
#[derive(Debug, Default)]
pub struct Pace {
    paid_until_us: Mutex<u64>,
}

impl Pace {
    /// Milliseconds to wait before anything more is sent; 0 for none.
    pub fn wait_ms(&self, now_ms: u64) -> u64 {
        let allowed_us = (now_ms + BURST_MS) * 1000;
        self.paid_until_us
            .lock()
            .saturating_sub(allowed_us)
            .div_ceil(1000)
    }

    /// That many bytes were sent; with 0 bytes a second allowed, there is no limit.
    pub fn spend(&self, bytes: u64, bytes_per_second: u64, now_ms: u64) {
        if bytes_per_second == 0 {
            return;
        }
        let cost_us = bytes.saturating_mul(1_000_000).div_ceil(bytes_per_second);
        let mut paid_until_us = self.paid_until_us.lock();
        *paid_until_us = (*paid_until_us).max(now_ms * 1000).saturating_add(cost_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_over_time_whatever_the_size_of_messages() {
        for (message_bytes, bytes_per_second) in
            [(1 << 10, 1 << 20), (128 << 10, 1 << 20), (4 << 20, 10 << 20)]
        {
            let pace = Pace::default();
            let (mut now_ms, mut sent_bytes) = (5_000, 0);
            while now_ms < 25_000 {
                let wait_ms = pace.wait_ms(now_ms);
                if wait_ms > 0 {
                    now_ms += wait_ms;
                    continue;
                }
                pace.spend(message_bytes, bytes_per_second, now_ms);
                sent_bytes += message_bytes;
            }
            let allowed_bytes = bytes_per_second * 20;
            let slack_bytes = bytes_per_second * BURST_MS / 1000 + message_bytes;
            assert!(
                sent_bytes.abs_diff(allowed_bytes) <= slack_bytes,
                "messages of {message_bytes} bytes: {sent_bytes} of {allowed_bytes}"
            );
        }
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let pace = Pace::default();
        pace.spend(u64::MAX, 0, 0);
        assert_eq!(pace.wait_ms(0), 0);
    }

    #[test]
    fn a_limit_that_is_lifted_leaves_what_was_owed() {
        let pace = Pace::default();
        pace.spend(1 << 20, 1 << 20, 0);
        pace.spend(1 << 30, 0, 0);
        assert_eq!(pace.wait_ms(0), 1000 - BURST_MS);
    }
}
