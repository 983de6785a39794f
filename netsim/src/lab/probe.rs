//! How far off the lab itself is: datagrams between two hosts of known distance, all the while.
//!
//! Owns the two threads that send and receive them. What they show holds for every packet: the
//! kernel, the hub's reading, waiting and writing.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::netns::Namespace;

/// Where the two are.
pub const FROM: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 1);
/// See [`FROM`].
pub const TO: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 2);
const PORT: u16 = 4_000;
/// One every so often.
const EVERY: Duration = Duration::from_millis(20);
/// The time it is on its way by the model, in microseconds: twice 25 ms and a short line.
const WAY_US: u64 = 50_000;

/// A probe at work.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<Vec<u64>>; 2],
}

impl Probe {
    /// Starts to send from one namespace to the other.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn start(from: &Namespace, to: &Namespace, began: Instant) -> anyhow::Result<Self> {
        let sender = from.inside(|| UdpSocket::bind((FROM, PORT)))?;
        let receiver = to.inside(|| UdpSocket::bind((TO, PORT)))?;
        receiver.set_read_timeout(Some(EVERY))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (first, second) = (stop.clone(), stop.clone());
        let now = move || began.elapsed().as_micros() as u64;
        let sending = std::thread::spawn(move || {
            while !first.load(Ordering::Relaxed) {
                // A full queue costs one measurement.
                let _ = sender.send_to(&now().to_be_bytes(), (TO, PORT));
                std::thread::park_timeout(EVERY);
            }
            Vec::new()
        });
        let receiving = std::thread::spawn(move || {
            let mut late = Vec::new();
            let mut datagram = [0; 8];
            while !second.load(Ordering::Relaxed) {
                if let Ok((8, _)) = receiver.recv_from(&mut datagram) {
                    let took = now().saturating_sub(u64::from_be_bytes(datagram));
                    late.push(took.saturating_sub(WAY_US));
                }
            }
            late
        });
        Ok(Self { stop, threads: [sending, receiving] })
    }

    /// Ends it; gives by how much each datagram was too late, in microseconds.
    #[must_use]
    pub fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
    }
}
