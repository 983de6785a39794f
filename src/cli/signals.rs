//! Ctrl-C, SIGTERM, a closed terminal and a reader that is gone, heard as one wish: leave politely.

#[cfg(unix)]
use std::task::Poll;

use super::output;

/// The wish to stop, heard from the moment this is made: whoever is told that this process is ready
/// may ask it to leave at once.
pub struct Stop {
    #[cfg(unix)]
    signals: Vec<tokio::signal::unix::Signal>,
}

impl Stop {
    /// Listens from here on. From then on a signal ends nothing by itself.
    #[cfg(unix)]
    pub fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        // Whoever started this with `nohup` wants it to outlive the terminal.
        let hangup = (!is_hangup_ignored()).then(SignalKind::hangup);
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()].into_iter().chain(hangup);
        // Without a handler there is nothing to wait for but the other signals.
        Self { signals: kinds.filter_map(|kind| signal(kind).ok()).collect() }
    }

    /// Listens once somebody waits.
    #[cfg(not(unix))]
    pub fn listen() -> Self {
        Self {}
    }

    /// Returns when the user, the system or the program that reads the events asked this process to
    /// stop.
    pub async fn asked(&mut self) {
        tokio::select! {
            () = self.signalled() => {}
            () = output::reader_gone().cancelled() => {}
        }
    }

    #[cfg(unix)]
    async fn signalled(&mut self) {
        std::future::poll_fn(|cx| {
            let heard = self.signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if heard { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[cfg(not(unix))]
    async fn signalled(&mut self) {
        // Without a handler there is nothing to wait for but Ctrl-C itself.
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Whether this process was started with SIGHUP ignored; `false` where the system does not say.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    static AT_START: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
        std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
    });
    *AT_START
}

/// Reads the mask of ignored signals, in hexadecimal, whose lowest bit is signal 1, SIGHUP.
#[cfg(unix)]
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_known_by_the_mask_of_ignored_signals() {
        assert!(ignores_hangup("Name:\tastral\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("Name:\tastral\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup("no such line"));
    }
}
