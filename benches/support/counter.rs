//! Counts what all receivers of one process get, and tells the driver when it asks.

use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    sync::mpsc,
};

use crate::{picture::unix_nanos, process::say};
use serde_json::json;

/// What a receiver tells.
pub enum News {
    /// Its first picture is there.
    Playing,
    /// So many bytes, and when the newest frame in them was born.
    Bytes(usize, Option<u64>),
}

/// Says when all `n` play; then a line of figures since the last one for each line on stdin.
pub async fn count(n: usize, mut news: mpsc::Receiver<News>) {
    let (mut bytes, mut delays_us, mut playing) = (0_u64, Vec::<u32>::new(), 0);
    let mut lines = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            news = news.recv() => match news {
                Some(News::Playing) => {
                    playing += 1;
                    if playing == n {
                        say(&json!({"playing": n}));
                    }
                }
                Some(News::Bytes(more, born)) => {
                    bytes += more as u64;
                    let delay = born.map(|b| (unix_nanos().saturating_sub(b) / 1_000) as u32);
                    delays_us.extend(delay);
                }
                None => return,
            },
            asked = lines.next_line() => {
                if !matches!(asked, Ok(Some(_))) {
                    return;
                }
                let [p50, p99] = shares(&mut delays_us);
                say(&json!({
                    "bytes": bytes, "at": unix_nanos() as f64 / 1e9, "p50_ms": p50, "p99_ms": p99,
                }));
                delays_us.clear();
            }
        }
    }
}

/// The median and the 99th of a hundred, in milliseconds; nothing where nothing was measured.
pub fn shares(delays_us: &mut [u32]) -> [Option<f64>; 2] {
    delays_us.sort_unstable();
    [50, 99].map(|share| {
        let index = (delays_us.len().max(1) - 1) * share / 100;
        delays_us.get(index).map(|us| f64::from(*us) / 1_000.0)
    })
}
