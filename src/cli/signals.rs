//! Ctrl-C, SIGTERM, a closed terminal and a reader that is gone, heard as one wish: leave politely.

use super::output;

/// Returns when the user, the system or the program that reads the events asks this process to stop.
pub async fn asked_to_stop() {
    tokio::select! {
        () = signalled() => {}
        () = output::reader_gone().cancelled() => {}
    }
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let heard = async |kind: Option<SignalKind>| {
        // Without a handler there is nothing to wait for but the other signals.
        match kind.and_then(|kind| signal(kind).ok()) {
            Some(mut signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    };
    // Whoever started this with `nohup` wants it to outlive the terminal.
    let hangup = (!is_hangup_ignored()).then(SignalKind::hangup);
    tokio::select! {
        () = heard(Some(SignalKind::interrupt())) => {}
        () = heard(Some(SignalKind::terminate())) => {}
        () = heard(hangup) => {}
    }
}

#[cfg(not(unix))]
async fn signalled() {
    // Without a handler there is nothing to wait for but Ctrl-C itself.
    let _ = tokio::signal::ctrl_c().await;
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
