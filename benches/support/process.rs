//! Processes of a benchmark: started pinned to a core, asked by lines, measured by the kernel's
//! own books.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

/// Between the last receiver's first picture and the measurement: joiners begin at the last
/// keyframe, and what they catch up on is not delay; more than a keyframe interval.
const SETTLE: Duration = Duration::from_secs(4);

/// A child of this benchmark; ends when its stdin closes.
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Process {
    /// Starts this very program, pinned to one core where `taskset` is there.
    pub fn start(core: usize, args: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command.args(args);
        Self::pinned(core, command, Stdio::inherit())
    }

    /// Starts any program, pinned to one core where `taskset` is there; what it logs is not shown.
    pub fn spawn(core: usize, command: Command) -> Self {
        Self::pinned(core, command, Stdio::null())
    }

    fn pinned(core: usize, command: Command, stderr: Stdio) -> Self {
        let pinned = Command::new("taskset").arg("-V").stdout(Stdio::null()).status().is_ok();
        let mut command = if pinned {
            let mut pinning = Command::new("taskset");
            pinning.args(["-c", &core.to_string()]).arg(command.get_program());
            pinning.args(command.get_args());
            pinning
        } else {
            command
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("a process of the benchmark");
        let stdin = child.stdin.take().expect("stdin");
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        Self { child, stdin, stdout }
    }

    /// The next JSON line that it says.
    pub fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("'{line}': {e}"))
    }

    /// Asks for a line, or tells one.
    pub fn ask(&mut self, line: &str) {
        let written = self.stdin.write_all(line.as_bytes());
        written.and_then(|()| self.stdin.write_all(b"\n")).expect("the process lives");
    }

    /// What this process spends while `receivers` get their bytes for as long as `window`.
    pub fn measure(&self, server: &str, n: usize, receivers: &mut Self, window: Duration) -> Value {
        assert_eq!(receivers.line()["playing"], json!(n), "every receiver plays");
        std::thread::park_timeout(SETTLE);
        receivers.ask("now");
        let begin = receivers.line();
        let cpu = self.cpu_seconds();
        std::thread::park_timeout(window);
        receivers.ask("now");
        let end = receivers.line();
        let cpu = self.cpu_seconds() - cpu;
        let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or(0.0);
        let gbit = (number(&end, "bytes") - number(&begin, "bytes")) * 8.0 / 1e9;
        let seconds = number(&end, "at") - number(&begin, "at");
        json!({
            "server": server, "n": n, "cpu_s": cpu, "gbit": gbit, "s_per_gbit": cpu / gbit,
            "mbps": gbit * 1_000.0 / seconds, "p50_ms": end["p50_ms"], "p99_ms": end["p99_ms"],
            "resident_kb": self.resident_kb(),
        })
    }

    /// Memory in use, from the kernel's own books.
    pub fn resident_kb(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    }

    /// User and system time so far, from the kernel's own books.
    pub fn cpu_seconds(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("stat");
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks = |i: usize| fields[i].parse::<f64>().expect("ticks");
        // utime and stime are fields 14 and 15; a tick is 10 ms on Linux.
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn text(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

pub fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("?").to_owned()
}

pub fn say(line: &Value) {
    println!("{line}");
    std::io::stdout().flush().expect("stdout");
}

/// Runs what a process of a benchmark does.
pub fn run(what: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(what);
    runtime.shutdown_background();
}

/// A list of numbers from the environment.
pub fn numbers(name: &str, default: &str) -> Vec<usize> {
    let list = std::env::var(name).unwrap_or_else(|_| default.into());
    list.split(',').map(|n| n.parse().unwrap_or_else(|_| panic!("{name}: {n}"))).collect()
}

/// A duration from the environment, in seconds.
pub fn seconds(name: &str, default: u64) -> Duration {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_string());
    Duration::from_secs(text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}
