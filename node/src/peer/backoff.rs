//! How long to leave somebody in peace after a failure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
const DOUBLINGS_MAX: u32 = 7;

/// Delays that double up to 2.56 s, each drawn from its upper half so that nodes don't come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    state: u64,
}

impl Backoff {
    /// Starts at the shortest delay. The seed is what makes this node's delays differ from the others'.
    #[expect(clippy::cast_possible_truncation, reason = "any bits of it will do")]
    pub fn new(seed: u128) -> Self {
        Self {
            failures: 0,
            state: seed as u64 | 1,
        }
    }

    /// The delay after one more failure.
    pub fn next(&mut self) -> Duration {
        let whole = FIRST * (1 << self.failures.min(DOUBLINGS_MAX));
        self.failures += 1;
        // Xorshift (Marsaglia 2003); never 0 from an odd seed.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let per_mille = u32::try_from(self.state % 1000).unwrap_or(0);
        whole / 2 + whole / 2 * per_mille / 1000
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_start_again() {
        let mut backoff = Backoff::new(42);
        for doublings in [0, 1, 2, 3, 4, 5, 6, 7, 7, 7] {
            let whole = FIRST * (1 << doublings);
            let delay = backoff.next();
            assert!((whole / 2..whole).contains(&delay), "{delay:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.next() < FIRST);
    }

    #[test]
    fn two_nodes_draw_different_delays() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed);
            std::array::from_fn::<_, 8, _>(|_| backoff.next())
        };
        assert_ne!(delays(1), delays(u128::MAX / 3));
    }
}
