//! Which key comes next.

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0 to 1, 1 excluded.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How often keys are asked for.
#[derive(Debug, Clone)]
pub enum Popularity {
    /// Each as often as any other.
    Uniform {
        /// How many keys there are.
        keys: u64,
    },
    /// Zipf with exponent 0.99, the popular ones spread over all keys.
    Zipf(Zipf),
}

impl Popularity {
    /// The number of a key, less than the number of keys.
    pub fn draw(&self, random: &mut Random) -> u64 {
        match self {
            Self::Uniform { keys } => random.next() % keys,
            Self::Zipf(zipf) => mix(zipf.rank(random.unit())) % zipf.keys,
        }
    }
}

/// The Zipf distribution by the method of Gray et al., "Quickly Generating Billion-Record Synthetic Databases"
/// (SIGMOD 1994).
#[derive(Debug, Clone)]
pub struct Zipf {
    keys: u64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

#[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 keys")]
impl Zipf {
    /// For so many keys.
    pub fn new(keys: u64) -> Self {
        let theta = 0.99;
        let zeta_of = |keys: u64| (1..=keys).map(|rank| (rank as f64).powf(-theta)).sum::<f64>();
        let (zeta, zeta_two) = (zeta_of(keys), zeta_of(2));
        Self {
            keys,
            theta,
            alpha: 1.0 / (1.0 - theta),
            zeta,
            eta: (1.0 - (2.0 / keys as f64).powf(1.0 - theta)) / (1.0 - zeta_two / zeta),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to the number of keys"
    )]
    fn rank(&self, unit: f64) -> u64 {
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let rank = self.keys as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.keys - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_keys_are_most_of_zipf() {
        let zipf = Zipf::new(10_000);
        let mut random = Random::new(1);
        let top = (0..100_000).filter(|_| zipf.rank(random.unit()) < 100).count();
        // The sum of the first hundred of ten thousand terms, relative to all: 0.53.
        assert!((50_000..56_000).contains(&top), "{top}");
    }

    #[test]
    fn keys_are_in_range() {
        for popularity in [Popularity::Uniform { keys: 7 }, Popularity::Zipf(Zipf::new(7))] {
            let mut random = Random::new(2);
            assert!((0..1_000).all(|_| popularity.draw(&mut random) < 7));
        }
    }
}
