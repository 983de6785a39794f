//! Processes of a benchmark: started pinned to a core, asked by lines, measured by the kernel's
//! own books.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
};

use serde_json::Value;

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
        Self::spawn(core, command)
    }

    /// Starts any program, pinned to one core where `taskset` is there.
    pub fn spawn(core: usize, command: Command) -> Self {
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
            .stderr(Stdio::null())
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

    pub fn ask(&mut self) {
        self.stdin.write_all(b"now\n").expect("the process lives");
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
