//! How often the API may be asked.
//!
//! Owns the buckets. Does not own what is asked. Whoever has the token has a bucket of their own, so
//! that nobody without it can keep them out.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Requests with the token, a second; a page that opens makes about twenty.
pub const TRUSTED_PER_S: u32 = 500;
/// Requests without it, a second.
pub const OTHERS_PER_S: u32 = 200;
/// Requests that were refused for want of the token or a code, a second: guessing is hopeless
/// anyway, and costs no more than this.
pub const REFUSED_PER_S: u32 = 20;
/// Seconds' worth of requests that may come at once.
const BURST_S: u32 = 4;

/// A bucket of tokens that fills steadily.
#[derive(Debug)]
struct Bucket {
    per_s: u32,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_s: u32) -> Self {
        Self { per_s, level: f64::from(per_s * BURST_S), at: Instant::now() }
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * f64::from(self.per_s);
        self.level = (self.level + earned).min(f64::from(self.per_s * BURST_S));
        self.at = now;
    }

    /// Takes one, or says how long until there is one.
    fn take(&mut self) -> Result<(), Duration> {
        self.fill();
        if self.level < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.level) / f64::from(self.per_s)));
        }
        self.level -= 1.0;
        Ok(())
    }
}

/// What a request is to the limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It carries the token.
    Trusted,
    /// It carries none.
    Other,
    /// It was refused for want of a secret.
    Refused,
}

/// The buckets of one listener. Clones share them.
#[derive(Clone, Debug)]
pub struct Rates {
    buckets: Arc<Mutex<[Bucket; 3]>>,
}

impl Default for Rates {
    fn default() -> Self {
        let buckets = [TRUSTED_PER_S, OTHERS_PER_S, REFUSED_PER_S].map(Bucket::new);
        Self { buckets: Arc::new(Mutex::new(buckets)) }
    }
}

impl Rates {
    /// Lets one request through.
    ///
    /// # Errors
    /// Until the next one may come.
    pub fn take(&self, kind: Kind) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let [trusted, others, refused] = &mut *buckets;
        match kind {
            Kind::Trusted => trusted.take(),
            Kind::Other => others.take(),
            Kind::Refused => refused.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_a_steady_rate_and_the_token_keeps_its_own() {
        let rates = Rates::default();
        let passed = (0..5_000).filter(|_| rates.take(Kind::Other).is_ok()).count();
        assert_eq!(passed, 800);
        let wait = rates.take(Kind::Other).unwrap_err();
        assert!(wait <= Duration::from_millis(5), "{wait:?}");
        assert!(rates.take(Kind::Trusted).is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        let passed = (0..5_000).filter(|_| rates.take(Kind::Other).is_ok()).count();
        assert_eq!(passed, 200);
    }
}
