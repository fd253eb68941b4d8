//! Leaves an origin in peace that fails: a circuit breaker (Nygard, Release It!, 2007).
//!
//! Closed, it counts failures in a row. Open, it lets nothing through until its time is over. Then one request after the
//! other is let through as a probe: a success closes it, a failure opens it again. Its times are on a clock that is never set
//! back.

/// The breaker of one group on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Everything goes through; so many failures in a row were seen.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// Nothing goes through before that moment.
    Open {
        /// In milliseconds.
        until_ms: u64,
    },
    /// One request goes through.
    HalfOpen {
        /// Since when one is under way, if one is.
        probing_since_ms: Option<u64>,
    },
}

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// After so many failures in a row.
    pub failures: u32,
    /// For so long.
    pub open_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a request would go through now.
    pub fn allows(&self, rules: Rules, now_ms: u64) -> bool {
        match *self {
            Self::Closed { .. } => true,
            Self::Open { until_ms } => now_ms >= until_ms,
            // A probe of which nobody has told how it ended is no probe for ever.
            Self::HalfOpen { probing_since_ms } => {
                probing_since_ms.is_none_or(|since_ms| now_ms >= since_ms.saturating_add(rules.open_ms))
            }
        }
    }

    /// Whether the next request that is allowed is a probe.
    pub fn wants_probe(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    /// A request that is allowed begins, as the probe.
    pub fn probe(&mut self, now_ms: u64) {
        *self = Self::HalfOpen {
            probing_since_ms: Some(now_ms),
        };
    }

    /// The probe has asked nothing after all: another may.
    pub fn give_up_probe(&mut self) {
        if matches!(self, Self::HalfOpen { .. }) {
            *self = Self::HalfOpen {
                probing_since_ms: None,
            };
        }
    }

    /// A request was answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A request failed.
    pub fn failed(&mut self, rules: Rules, now_ms: u64) {
        let open = Self::Open {
            until_ms: now_ms.saturating_add(rules.open_ms),
        };
        *self = match *self {
            Self::Closed { failures } if failures + 1 < rules.failures => Self::Closed {
                failures: failures + 1,
            },
            Self::Closed { .. } | Self::HalfOpen { .. } => open,
            // Of a request from before: the time doesn't begin anew.
            Self::Open { until_ms } => Self::Open { until_ms },
        };
    }

    /// 0 for closed, 1 for half open, 2 for open.
    pub fn number(&self) -> u64 {
        match self {
            Self::Closed { .. } => 0,
            Self::HalfOpen { .. } => 1,
            Self::Open { .. } => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        failures: 3,
        open_ms: 1000,
    };

    #[test]
    fn it_opens_after_failures_in_a_row() {
        let mut breaker = Breaker::default();
        for now_ms in [0, 1] {
            breaker.failed(RULES, now_ms);
            assert!(breaker.allows(RULES, now_ms));
        }
        breaker.succeeded();
        for now_ms in [2, 3, 4] {
            assert!(breaker.allows(RULES, now_ms), "{now_ms}");
            breaker.failed(RULES, now_ms);
        }
        assert_eq!(breaker, Breaker::Open { until_ms: 1004 });
        assert!(!breaker.allows(RULES, 1003));
        // Requests that were under way still fail.
        breaker.failed(RULES, 900);
        assert!(breaker.allows(RULES, 1004));
    }

    #[test]
    fn one_probe_at_a_time_tells() {
        let mut breaker = Breaker::Open { until_ms: 1000 };
        breaker.probe(1000);
        assert!(!breaker.allows(RULES, 1500), "a probe is under way");
        assert!(breaker.allows(RULES, 2000), "nobody told how it ended");
        breaker.failed(RULES, 1600);
        assert_eq!(breaker, Breaker::Open { until_ms: 2600 });
        breaker.probe(2600);
        breaker.give_up_probe();
        assert!(breaker.allows(RULES, 2600) && breaker.wants_probe());
        breaker.probe(2600);
        breaker.succeeded();
        assert_eq!(breaker, Breaker::default());
        breaker.give_up_probe();
        assert!(breaker == Breaker::default() && !breaker.wants_probe());
    }
}
