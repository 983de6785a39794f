//! What the operating system says of this process.
//!
//! Owns reading `/proc` on Linux, under the names that Prometheus' own client libraries use; other
//! systems have no such figures here.

use std::fs;

use super::{count, exact, sheet::Sheet};

/// Linux counts processor time in hundredths of a second for every program.
const TICKS_PER_S: f64 = 100.0;

/// Adds what can be read.
pub(super) fn add(sheet: &mut Sheet) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = field(&status, "VmRSS:") {
        let help = "Memory in use";
        sheet.gauge("process_resident_memory_bytes", help, &[], exact(kib.saturating_mul(1_024)));
    }
    if let Some(threads) = field(&status, "Threads:") {
        sheet.gauge("process_threads", "Threads", &[], exact(threads));
    }
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(ticks) = cpu_ticks(&stat) {
        let seconds = exact(ticks) / TICKS_PER_S;
        sheet.gauge("process_cpu_seconds", "Processor time since the start", &[], seconds);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        sheet.gauge("process_open_fds", "Open files and sockets", &[], count(open.count()));
    }
}

/// The number after `name` in the lines of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/self/stat`, whose second field may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_whatever_the_program_is_called() {
        let stat = "42 (as) (tral) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("nonsense"), None);
        let status = "Name:\tastral\nVmRSS:\t  51200 kB\nThreads:\t9\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "Threads:")), (Some(51_200), Some(9)));
        assert_eq!(field(status, "VmSwap:"), None);
    }
}
