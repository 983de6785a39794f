//! The thread that moves packets between devices, when the hub says so.
//!
//! Owns devices, waiting, and how late it was. Does not own a single decision (see [`super::hub`]).

use std::{
    num::NonZeroU64,
    os::fd::OwnedFd,
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use anyhow::Context;
use astral_netsim::tally::Histogram;
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};
use tun_rs::SyncDevice;

use super::hub::Hub;

/// Longest packet that is read.
const PACKET_BYTES: usize = 2_048;
/// Packets read from one device before the next has its turn.
const READS_MAX: usize = 64;
/// Devices reported at once.
const EVENTS: usize = 64;
/// It looks up so often at least, to see whether the lab is over.
const LOOK_US: u64 = 100_000;
/// Timers of the kernel fire so late at most, in nanoseconds.
const SLACK: NonZeroU64 = NonZeroU64::MIN;
/// Above all others: what the hub is late is an error of the whole lab.
const PRIORITY: &str = "10";

/// A hub at work.
#[derive(Debug)]
pub struct Wire {
    hub: Arc<Mutex<Hub>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Histogram>>,
}

impl Wire {
    /// Starts to move packets between these devices, in the order of the hub's lines.
    ///
    /// # Errors
    /// When the system refuses to watch them.
    pub fn start(hub: Hub, devices: Vec<SyncDevice>, began: Instant) -> anyhow::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, device) in (0..).zip(&devices) {
            let data = epoll::EventData::new_u64(number);
            epoll::add(&poll, device, data, epoll::EventFlags::IN)?;
        }
        let hub = Arc::new(Mutex::new(hub));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (hub.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("hub".into())
            .spawn(move || run(&shared, &devices, &poll, &stopped, began))
            .context("cannot start a thread")?;
        Ok(Self { hub, stop, thread: Some(thread) })
    }

    /// The hub, to change what is broken.
    pub fn hub(&self) -> MutexGuard<'_, Hub> {
        lock(&self.hub)
    }

    /// Ends it; gives how late packets were handed over, beyond what the model asks.
    pub fn stop(mut self) -> Histogram {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

fn run(
    hub: &Mutex<Hub>,
    devices: &[SyncDevice],
    poll: &OwnedFd,
    stop: &AtomicBool,
    began: Instant,
) -> Histogram {
    // Where they are refused the lateness says so.
    let _ = rustix::thread::set_current_timer_slack(Some(SLACK));
    let _ = Command::new("chrt")
        .args(["--fifo", "--pid", PRIORITY, &rustix::thread::gettid().to_string()])
        .status();
    let now = || began.elapsed().as_micros() as u64;
    let mut late = Histogram::default();
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = [0; PACKET_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let next = lock(hub).next_due().unwrap_or(u64::MAX);
        let wait = next.saturating_sub(now()).min(LOOK_US);
        let timeout = Timespec { tv_sec: 0, tv_nsec: (wait * 1_000) as _ };
        events.clear();
        match epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        let mut hub = lock(hub);
        for event in &events {
            let number = event.data.u64() as usize;
            let Some(device) = devices.get(number) else { continue };
            for _ in 0..READS_MAX {
                // Nothing more, or a device that is down.
                let Ok(length) = device.recv(&mut buffer) else { break };
                hub.send(number, buffer[..length].to_vec(), now());
            }
        }
        while let Some((to, packet, due)) = hub.pop(now()) {
            late.add(now().saturating_sub(due) * FINER);
            // A receiver that takes no more has a full queue, as a real one may have.
            let _ = devices[to].send(&packet);
        }
    }
    late
}

/// The histogram has buckets of a millisecond; times this, a bucket is 10 us.
pub const FINER: u64 = 100;

fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}
