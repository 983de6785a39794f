//! Real `astral` processes and what they say.
//!
//! Owns starting, signals, and the events that a report needs. Does not own where they run.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::netns::Namespace;

/// Moves, offences and other events kept of one node.
const EVENTS_MAX: usize = 10_000;
/// A longer line is no event of a node.
const LINE_MAX: usize = 1 << 20;

/// What a node said so far.
#[derive(Debug, Default)]
pub struct Said {
    /// The `ready` event.
    pub ready: Option<Value>,
    /// The last `status` event.
    pub status: Option<Value>,
    /// All `parent_changed`, `skipped`, `offence` and `no_capacity` events.
    pub events: Vec<Value>,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    said: Mutex<Said>,
    news: Condvar,
}

/// One running node.
#[derive(Debug)]
pub struct Node {
    child: Child,
    shared: Arc<Shared>,
}

impl Node {
    /// Starts `astral ARGS` in a namespace; with a folder, what it says is kept there.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(
        program: &Path,
        space: &Namespace,
        args: &[String],
        log: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let enter = space.enter();
        let stderr = log.map(|log| File::create(log.with_extension("err"))).transpose()?;
        let mut child = Command::new(&enter[0])
            .args(&enter[1..])
            .arg(program)
            .args(args)
            .args(["--json", "--ephemeral", "--mdns", "false", "--no-upnp", "--leave-with-stdin"])
            .args(["--api", "127.0.0.1:0", "--rtmp", "127.0.0.1:0"])
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.map_or_else(Stdio::null, Stdio::from))
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let shared = Arc::new(Shared::default());
        let output = child.stdout.take().context("no output")?;
        let copy = log.map(|log| File::create(log.with_extension("jsonl"))).transpose()?;
        let to = shared.clone();
        std::thread::Builder::new().name("events".into()).spawn(move || {
            listen(BufReader::new(output), copy, &to);
        })?;
        Ok(Self { child, shared })
    }

    /// Waits for the `ready` event.
    ///
    /// # Errors
    /// When the node ends before, or does not come up in time.
    pub fn wait_ready(&self, within: Duration) -> anyhow::Result<Value> {
        let deadline = Instant::now() + within;
        let mut said = self.said();
        loop {
            if let Some(ready) = &said.ready {
                return Ok(ready.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.is_over || left.is_zero() {
                bail!("a node did not come up within {within:?}; --logs DIR keeps what it says");
            }
            said = match self.shared.news.wait_timeout(said, left) {
                Ok((said, _)) => said,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// What it said so far.
    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.shared.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal; nothing happens when it is gone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may be gone; its number is ours until it is waited for.
            let _ = kill_process(pid, signal);
        }
    }

    /// `kill -9`, at once.
    pub fn kill(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listen(mut output: impl BufRead, mut copy: Option<File>, shared: &Shared) {
    let mut line = String::new();
    loop {
        line.clear();
        // Bytes that are no text, or the end.
        if !matches!(output.read_line(&mut line), Ok(1..=LINE_MAX)) {
            break;
        }
        if let Some(copy) = &mut copy {
            // Only the copy is lost.
            let _ = std::io::Write::write_all(copy, line.as_bytes());
        }
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        let mut said = shared.said.lock().unwrap_or_else(PoisonError::into_inner);
        match event["event"].as_str() {
            Some("ready") => said.ready = Some(event),
            Some("status") => said.status = Some(event),
            Some("parent_changed" | "skipped" | "offence" | "no_capacity")
                if said.events.len() < EVENTS_MAX =>
            {
                said.events.push(event);
            }
            _ => {}
        }
        drop(said);
        shared.news.notify_all();
    }
    shared.said.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
    shared.news.notify_all();
}
