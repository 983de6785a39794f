//! Starts `astral` processes, reads their events, compares what was cut with what was played.
//!
//! Owns processes, deadlines and byte comparison. Does not own what a test asserts.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long a test waits for something that should take a second or two. Three times what is
/// promised, and then some for a loaded machine.
pub const SOON: Duration = Duration::from_secs(30);

/// What is kept of a process's stderr.
const STDERR_BYTES_MAX: usize = 1 << 20;

/// A scratch folder that goes with its test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("astral-e2e-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[derive(Default)]
struct Log {
    events: Mutex<Events>,
    news: Condvar,
}

#[derive(Default)]
struct Events {
    lines: Vec<Value>,
    stderr: String,
    closed: bool,
}

/// One running `astral` process.
pub struct Node {
    name: String,
    child: Child,
    log: Arc<Log>,
    /// For its temporary files: a node that is killed leaves them behind.
    _temporary: Scratch,
    /// The `ready` event.
    pub ready: Value,
}

impl Node {
    /// Starts `astral ARGS` with JSON events, alone on loopback with free ports, and waits for
    /// `ready`.
    pub fn start(name: &str, args: &[&str]) -> Self {
        let mut node = Self::spawn(name, args);
        node.ready = node.wait("ready", SOON, |_| true);
        node
    }

    /// Starts the process without waiting for anything.
    pub fn spawn(name: &str, args: &[&str]) -> Self {
        Self::spawn_under(name, &[], args)
    }

    /// The same with another program before it, such as one that enters a namespace.
    pub fn spawn_under(name: &str, wrapper: &[String], args: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_astral").to_owned();
        let whole: Vec<String> = wrapper.iter().cloned().chain([program]).collect();
        let mut command = Command::new(&whole[0]);
        command.args(&whole[1..]);
        // A node leaves when this process is gone, however it went.
        command.args(args).args(["--json", "--mdns", "false", "--leave-with-stdin"]);
        command.stdin(Stdio::piped());
        let has = |flag: &str| args.contains(&flag);
        if !has("--data-dir") && !has("--ephemeral") {
            command.arg("--ephemeral");
        }
        if !has("--listen") {
            command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        }
        if !has("--api") {
            command.args(["--api", "127.0.0.1:0"]);
        }
        if !has("--rtmp") {
            command.args(["--rtmp", "127.0.0.1:0"]);
        }
        Self::from_command(name, command)
    }

    /// Wraps any command whose stdout speaks JSON lines.
    pub fn from_command(name: &str, mut command: Command) -> Self {
        let temporary = Scratch::new("tmp");
        let mut child = command
            .env("TMPDIR", &temporary.0)
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let to = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    to.events.lock().unwrap().lines.push(event);
                    to.news.notify_all();
                }
            }
            to.events.lock().unwrap().closed = true;
            to.news.notify_all();
        });
        let to = log.clone();
        std::thread::spawn(move || {
            // Media may come this way (`--sink fd:2`): bytes first, text as far as it is text.
            for line in BufReader::new(err).split(b'\n').map_while(Result::ok) {
                let mut events = to.events.lock().unwrap();
                if events.stderr.len() < STDERR_BYTES_MAX {
                    events.stderr.push_str(&String::from_utf8_lossy(&line));
                    events.stderr.push('\n');
                }
                drop(events);
                to.news.notify_all();
            }
        });
        Self { name: name.into(), child, log, _temporary: temporary, ready: Value::Null }
    }

    /// The first event of that kind that `accept`s, from the beginning on.
    ///
    /// Panics with the node's whole log after `within`.
    pub fn wait(&self, kind: &str, within: Duration, accept: impl Fn(&Value) -> bool) -> Value {
        self.wait_from(0, kind, within, accept).1
    }

    /// As [`Node::wait`] from event number `from` on; also says the number after the found one.
    pub fn wait_from(
        &self,
        from: usize,
        kind: &str,
        within: Duration,
        accept: impl Fn(&Value) -> bool,
    ) -> (usize, Value) {
        let deadline = Instant::now() + within;
        let mut events = self.log.events.lock().unwrap();
        loop {
            let found = events.lines.iter().enumerate().skip(from);
            let mut found = found.filter(|(_, event)| event["event"] == kind);
            if let Some((at, event)) = found.find(|(_, event)| accept(event)) {
                return (at + 1, event.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || events.closed {
                let recent: Vec<_> = events.lines.iter().rev().take(12).rev().collect();
                panic!(
                    "{}: no '{kind}' as wanted within {within:?} ({} events, closed: {})\nlast: \
                     {recent:#?}\nstderr:\n{}",
                    self.name,
                    events.lines.len(),
                    events.closed,
                    events.stderr
                );
            }
            events = self.log.news.wait_timeout(events, left).unwrap().0;
        }
    }

    /// How many events there are so far: where a later `wait_from` may begin.
    pub fn mark(&self) -> usize {
        self.log.events.lock().unwrap().lines.len()
    }

    /// Every event of that kind so far.
    pub fn all(&self, kind: &str) -> Vec<Value> {
        let events = self.log.events.lock().unwrap();
        events.lines.iter().filter(|event| event["event"] == kind).cloned().collect()
    }

    /// What the process wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.log.events.lock().unwrap().stderr.clone()
    }

    /// A text field of the `ready` event.
    pub fn ready(&self, field: &str) -> String {
        self.ready[field].as_str().unwrap_or_else(|| panic!("no {field} in {}", self.ready)).into()
    }

    /// The first address others reach this node at.
    pub fn addr(&self) -> String {
        self.ready["listen"][0].as_str().expect("a listen address").into()
    }

    /// The node's id as events of others name it.
    pub fn id(&self) -> String {
        self.ready("node_id")
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `KILL`, `STOP`, `TERM`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "kill -{signal} {}", self.name);
    }

    /// Kills without warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether the process ends by itself in that time.
    pub fn ended_within(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        false
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end within {within:?}", self.name);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Asks the local API with the node's token.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let token = fs::read_to_string(self.ready("token_file")).unwrap();
        let (status, text) =
            http(&self.ready("api"), method, path, Some(token.trim()), body.map(Value::to_string));
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let events = self.log.events.lock().unwrap_or_else(PoisonError::into_inner);
            let told = events.lines.iter().enumerate().filter(|(_, e)| e["event"] != "status");
            for (at, event) in told.collect::<Vec<_>>().iter().rev().take(40).rev() {
                eprintln!("{} [{at}] {event}", self.name);
            }
            let tail: Vec<_> = events.stderr.lines().rev().take(15).collect();
            eprintln!("--- {} (last lines first)\n{}", self.name, tail.join("\n"));
        }
    }
}

/// One HTTP request on loopback; the body is read to its end.
pub fn http(
    base: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<String>,
) -> (u16, String) {
    use std::io::Write;
    let host = base.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let auth = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
    let body = body.unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{auth}Content-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { dechunk(body) } else { body.into() })
}

fn dechunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || size > rest.len() {
            break;
        }
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}

/// How a viewer's file compares with what the source cut.
#[derive(Debug)]
pub struct Identity {
    /// Bytes at the end of what the source cut that the viewer does not have (yet).
    pub behind: usize,
}

/// Checks that the viewer's file is the source's, byte for byte, from the viewer's first keyframe
/// on.
///
/// Panics with the place of the first difference.
pub fn assert_identical(tee: &Path, played: &Path) -> Identity {
    let cut = fs::read(tee).unwrap();
    let played = fs::read(played).unwrap();
    let start = media_start(&played);
    let media = &played[start..];
    assert!(media.len() > 1_000, "{} bytes of media were played", media.len());
    let probe = &media[..media.len().min(600)];
    let at = cut
        .windows(probe.len())
        .position(|window| window == probe)
        .expect("the viewer's first frame is one that the source cut");
    let both = media.len().min(cut.len() - at);
    if media[..both] != cut[at..at + both] {
        let first = (0..both).find(|i| media[*i] != cut[at + i]).unwrap();
        panic!("byte {first} of {both} differs (source offset {})", at + first);
    }
    assert!(media.len() <= cut.len() - at, "the viewer has bytes that the source never cut");
    Identity { behind: cut.len() - at - both }
}

/// Offset of the first media tag: after the FLV header, metadata and sequence headers.
fn media_start(flv: &[u8]) -> usize {
    assert_eq!(&flv[..3], b"FLV", "the file is FLV");
    let mut at = 13;
    while let Some(header) = flv.get(at..at + 13) {
        let body =
            usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        let sequence_header = match header[0] & 0x1f {
            18 => true,
            9 if header[11] & 0x80 != 0 => header[11] & 0x0f == 0,
            9 => header[12] == 0,
            8 if header[11] >> 4 == 9 => header[11] & 0x0f == 0,
            8 => header[11] >> 4 == 10 && header[12] == 0,
            _ => false,
        };
        if !sequence_header {
            return at;
        }
        at += 11 + body + 4;
    }
    panic!("no media in {} bytes of FLV", flv.len());
}

/// Waits until `done` says so, asking again as files grow.
pub fn wait_until(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Bytes in a file; zero while it is not there.
pub fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

/// A supernode on loopback that every other node of a test joins through.
pub struct Network {
    pub supernode: Node,
    listen: String,
}

/// A publishing node and its link.
pub struct Source {
    pub node: Node,
    pub link: String,
}

impl Network {
    pub fn found() -> Self {
        Self::found_on("/ip4/127.0.0.1/tcp/0")
    }

    /// A network whose nodes all listen on `listen` alone.
    pub fn found_on(listen: &str) -> Self {
        let args = ["run", "--role", "supernode", "--listen", listen];
        Self { supernode: Node::start("supernode", &args), listen: listen.into() }
    }

    /// The network of a supernode that was started in another way.
    pub fn around(supernode: Node) -> Self {
        Self { supernode, listen: "/ip4/127.0.0.1/tcp/0".into() }
    }

    /// Starts any node-running command as a member of this network.
    pub fn member(&self, name: &str, args: &[&str]) -> Node {
        let addr = self.supernode.addr();
        let mut all = args.to_vec();
        all.extend(["--bootstrap", &addr]);
        if !args.contains(&"--listen") {
            all.extend(["--listen", &self.listen]);
        }
        if !args.contains(&"--role") {
            all.extend(["--role", "member"]);
        }
        Node::start(name, &all)
    }

    /// Publishes the small test picture, writing what is cut to `tee`.
    pub fn publish(&self, name: &str, tee: &Path, args: &[&str]) -> Source {
        let tee = tee.to_str().unwrap();
        let mut all =
            vec!["publish", name, "--test", "--size", "320x180", "--fps", "15", "--tee", tee];
        all.extend(args);
        let node = self.member("source", &all);
        let link = node.ready("stream");
        Source { node, link }
    }

    /// Plays into a file with a `KeepAll` sink.
    pub fn play(&self, name: &str, link: &str, file: &Path, args: &[&str]) -> Node {
        let sink = format!("file:{}", file.to_str().unwrap());
        let mut all = vec!["play", link, "--sink", &sink];
        all.extend(args);
        self.member(name, &all)
    }

    /// Forwards without playing.
    pub fn seed(&self, name: &str, link: &str, args: &[&str]) -> Node {
        let mut all = vec!["seed", link];
        all.extend(args);
        self.member(name, &all)
    }
}

/// Whether every stripe of a status's first stream has a parent.
pub fn stream_is_whole(status: &Value) -> bool {
    let parents = status["streams"][0]["parents"].as_array();
    parents.is_some_and(|p| !p.is_empty() && p.iter().all(Value::is_string))
}

/// The newest status of a node.
pub fn status_of(node: &Node) -> Value {
    node.all("status").pop().unwrap_or(Value::Null)
}
