//! `astral demo`: a whole network on this machine, one process a node.
//!
//! Owns starting the five nodes, the table that shows them, the kill and the comparison at the end.
//! Does not own any part of a node: each is this same binary.

use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{folders::Ephemeral, signals::Stop, terminal};

/// Nodes that forward in the demo.
const FORWARDERS: [&str; 2] = ["forwarder 1", "forwarder 2"];
/// Longest wait for one node to be ready or one step to happen; a cold GStreamer registry takes
/// seconds.
const STEP: Duration = Duration::from_secs(60);
/// Events kept from all nodes together until the table takes them.
const EVENTS_QUEUE: usize = 1_024;
/// When `--kill` strikes, counted from the viewer's first picture.
const KILL_AFTER: Duration = Duration::from_secs(6);

/// Flags of `astral demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Kill (-9) the viewer's parent once the picture runs, and compare what was played with what
    /// was sent
    #[arg(long)]
    kill: bool,
    /// Stop after this long [default: run until Ctrl-C; 20s with --kill]
    #[arg(long, value_parser = super::duration::parse)]
    duration: Option<Duration>,
    /// Where the viewer plays: auto opens a window when there is a display
    #[arg(long, default_value = "auto", value_parser = ["auto", "window", "fake"])]
    sink: String,
    /// Address of the viewer's page and HTTP-FLV; port 0 takes any free port
    #[arg(long, default_value = "127.0.0.1:0")]
    api: String,
}

/// One node of the demo, as a process of its own.
struct Member {
    name: &'static str,
    child: Child,
    ready: Value,
    /// The last `status` event.
    status: Value,
}

type Event = (&'static str, Value);

/// Runs the demo to its end.
///
/// # Errors
/// When a node does not start, or, with `--kill`, when a byte was lost.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let folder = Ephemeral::new()?;
    let mut stop = Stop::listen();
    let (events, mut inbox) = mpsc::channel(EVENTS_QUEUE);
    let mut network = tokio::select! {
        network = start(&args, folder.path(), &events, &mut inbox) => network?,
        () = stop.asked() => return Ok(()),
    };
    println!("{}", network.invitation());
    let outcome = tokio::select! {
        outcome = network.show(&args, &mut inbox) => outcome,
        () = stop.asked() => Ok(()),
    };
    network.stop().await;
    outcome?;
    if args.kill { network.report(folder.path()) } else { Ok(()) }
}

struct Network {
    members: Vec<Member>,
    link: String,
    media_url: String,
    /// The viewer's page, by a link that works once.
    page: Option<String>,
    killed: Option<(&'static str, Vec<Value>)>,
    skipped: usize,
    lines_drawn: usize,
    table: bool,
}

async fn start(
    args: &DemoArgs,
    folder: &Path,
    events: &mpsc::Sender<Event>,
    inbox: &mut mpsc::Receiver<Event>,
) -> anyhow::Result<Network> {
    let supernode =
        spawn("supernode", folder, &["run", "--role", "supernode"], events, inbox).await?;
    let bootstrap = text(&supernode.ready["listen"][0]);
    let join = ["--bootstrap", bootstrap.as_str(), "--role", "member"];
    let tee = folder.join("cut.flv");
    let tee = tee.to_string_lossy();
    // One copy is about 1.15 Mbit/s: the source can feed one node in all, never the viewer too.
    let publish = [
        "publish",
        "demo",
        "--test",
        "--size",
        "640x360",
        "--bitrate",
        "1Mbit",
        "--stripes",
        "4",
        "--uplink",
        "1600kbit",
        "--tee",
        &tee,
    ];
    let source =
        spawn("source", folder, &[&publish[..], &join[..]].concat(), events, inbox).await?;
    let link = text(&source.ready["stream"]);
    let mut members = vec![supernode, source];
    for name in FORWARDERS {
        let seed = ["seed", link.as_str(), "--uplink", "3Mbit"];
        members.push(spawn(name, folder, &[&seed[..], &join[..]].concat(), events, inbox).await?);
    }
    let played = folder.join("played.flv");
    let file_sink = format!("file:{}", played.to_string_lossy());
    let play = [
        "play",
        link.as_str(),
        "--sink",
        &args.sink,
        "--sink",
        &file_sink,
        "--uplink",
        "900kbit",
        "--api",
        &args.api,
    ];
    let viewer = spawn("viewer", folder, &[&play[..], &join[..]].concat(), events, inbox).await?;
    let media_url = text(&viewer.ready["media"]["http_flv"]);
    let page = viewer.ready["web"].as_str().map(String::from);
    members.push(viewer);
    Ok(Network {
        members,
        link,
        media_url,
        page,
        killed: None,
        skipped: 0,
        lines_drawn: 0,
        table: std::io::stdout().is_terminal(),
    })
}

impl Network {
    fn invitation(&self) -> String {
        let page = self.page.as_deref().unwrap_or("none: no link could be made");
        format!(
            "\nAstral is live on this machine: a source, a supernode, two forwarders, a viewer.\n\
             The viewer's page:   {page}   (opens once)\n\
             Open in VLC or mpv:  {}\nThe stream's link:   {}\nCtrl-C stops everything.\n",
            self.media_url, self.link
        )
    }

    /// Draws the table until the duration is over.
    async fn show(
        &mut self,
        args: &DemoArgs,
        inbox: &mut mpsc::Receiver<Event>,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        let length = args.duration.or(args.kill.then_some(Duration::from_secs(20)));
        let end = length.map(|length| started + length);
        let mut strike: Option<Instant> = None;
        let mut draw = Instant::now();
        loop {
            let far = started + Duration::from_secs(86_400 * 365);
            tokio::select! {
                event = inbox.recv() => {
                    let Some((name, event)) = event else { bail!("every node has ended") };
                    if name == "viewer" && event["event"] == "playing" && args.kill && strike.is_none() {
                        strike = Some(Instant::now() + KILL_AFTER);
                    }
                    self.take(name, event)?;
                }
                () = sleep_until(strike.filter(|_| self.killed.is_none()).unwrap_or(far)) => {
                    self.kill_a_parent().await?;
                }
                () = sleep_until(draw) => {
                    self.draw()?;
                    draw = Instant::now() + Duration::from_secs(if self.table { 1 } else { 5 });
                }
                () = sleep_until(end.unwrap_or(far)) => return Ok(()),
            }
        }
    }

    fn take(&mut self, name: &'static str, event: Value) -> anyhow::Result<()> {
        let killed = self.killed.as_ref().map(|(name, _)| *name);
        match event["event"].as_str() {
            Some("status") => {
                if let Some(member) = self.members.iter_mut().find(|m| m.name == name) {
                    member.status = event;
                }
            }
            Some("closed") if Some(name) != killed => bail!("the {name} ended unexpectedly"),
            Some("parent_changed") if name == "viewer" => {
                if let Some((_, changes)) = &mut self.killed {
                    changes.push(event);
                }
            }
            Some("skipped") if name == "viewer" => self.skipped += 1,
            _ => {}
        }
        Ok(())
    }

    async fn kill_a_parent(&mut self) -> anyhow::Result<()> {
        let names = self.names();
        let viewer = self.member("viewer")?;
        let parents =
            viewer.status["streams"][0]["parents"].as_array().cloned().unwrap_or_default();
        let forwarder = parents
            .iter()
            .filter_map(|parent| names.get(parent.as_str()?))
            .find(|name| FORWARDERS.contains(*name))
            .copied()
            .context("the viewer is fed by no forwarder yet; run the demo again")?;
        let member = self.members.iter_mut().find(|m| m.name == forwarder);
        member.context("a forwarder of the demo")?.child.kill().await?;
        self.killed = Some((forwarder, Vec::new()));
        self.say(&format!("kill -9 {forwarder}, a parent of the viewer"))?;
        Ok(())
    }

    fn member(&self, name: &str) -> anyhow::Result<&Member> {
        self.members.iter().find(|m| m.name == name).context("a node of the demo")
    }

    /// Node ids to names.
    fn names(&self) -> BTreeMap<String, &'static str> {
        self.members.iter().map(|m| (text(&m.ready["node_id"]), m.name)).collect()
    }

    fn say(&mut self, line: &str) -> anyhow::Result<()> {
        self.lines_drawn = 0;
        writeln!(std::io::stdout(), ">> {line}")?;
        Ok(())
    }

    /// Writes the table over the last one on a terminal, below it elsewhere.
    fn draw(&mut self) -> anyhow::Result<()> {
        let names = self.names();
        let killed = self.killed.as_ref().map(|(name, _)| *name);
        let columns = if self.table { terminal::stdout_columns() } else { None };
        let layout = Layout::within(columns);
        let heading = ["node", "fed by (stripes)", "in kb/s", "out kb/s", "hops", "delay ms"];
        let mut lines = vec![layout.line(heading)];
        for member in &self.members {
            let row = if Some(member.name) == killed {
                format!("{:<11} killed", member.name)
            } else {
                row(member, &names, layout)
            };
            lines.push(row);
        }
        let mut out = std::io::stdout().lock();
        if self.table && self.lines_drawn > 0 {
            write!(out, "\x1b[{}A", self.lines_drawn)?;
        }
        for line in &lines {
            let clear = if self.table { "\x1b[2K" } else { "" };
            writeln!(out, "{clear}{}", terminal::fit(line, columns))?;
        }
        if !self.table {
            writeln!(out)?;
        }
        self.lines_drawn = lines.len();
        out.flush()?;
        Ok(())
    }

    /// Lets every node leave politely (its stdin closes), then makes sure.
    async fn stop(&mut self) {
        for member in &mut self.members {
            drop(member.child.stdin.take());
        }
        for member in &mut self.members {
            if tokio::time::timeout(Duration::from_secs(6), member.child.wait()).await.is_err() {
                // Killing a process that has just ended is no fault.
                let _ = member.child.kill().await;
            }
        }
    }

    /// Says what the kill cost, from the bytes themselves.
    fn report(&self, folder: &Path) -> anyhow::Result<()> {
        let Some((name, changes)) = &self.killed else {
            bail!("the picture never ran long enough to kill a parent");
        };
        println!("\nkilled: {name}");
        for change in changes {
            println!(
                "  stripe {} moved to another parent ({}), gap {} ms",
                change["stripe"],
                text(&change["cause"]),
                change["gap_ms"]
            );
        }
        let cut = fs::read(folder.join("cut.flv")).context("what the source cut")?;
        let played = fs::read(folder.join("played.flv")).context("what the viewer played")?;
        let compared = super::compare::identical_media(&cut, &played)?;
        println!("lost: 0 of {compared} bytes; skips: {}", self.skipped);
        Ok(())
    }
}

/// How wide the column of parents is; the others are as wide as what they ever hold.
#[derive(Clone, Copy, Debug)]
struct Layout {
    fed_by: usize,
}

impl Layout {
    /// Columns of everything but the parents, with the spaces between.
    const OTHERS: usize = 43;
    /// What four stripes by two nodes need, with their names.
    const FED_BY_MAX: usize = 44;
    /// Fewer say nothing; a terminal so narrow cuts the end of the line instead.
    const FED_BY_MIN: usize = 12;

    /// For a terminal of that many columns; `None` = as wide as wanted.
    fn within(columns: Option<usize>) -> Self {
        let room = columns.map_or(Self::FED_BY_MAX, |columns| columns.saturating_sub(Self::OTHERS));
        Self { fed_by: room.clamp(Self::FED_BY_MIN, Self::FED_BY_MAX) }
    }

    fn line(self, [node, fed_by, received, sent, hops, delay]: [&str; 6]) -> String {
        let fed_by = terminal::cell(fed_by, self.fed_by);
        format!("{node:<11} {fed_by} {received:>7} {sent:>8} {hops:>4} {delay:>8}")
    }
}

fn row(member: &Member, names: &BTreeMap<String, &'static str>, layout: Layout) -> String {
    let stream = &member.status["streams"][0];
    let mut fed_by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (stripe, parent) in stream["parents"].as_array().into_iter().flatten().enumerate() {
        if let Some(parent) = parent.as_str() {
            let name = names.get(parent).copied().unwrap_or("another node");
            fed_by.entry(name).or_default().push(stripe.to_string());
        }
    }
    let fed_by: Vec<String> = fed_by
        .into_iter()
        .map(|(name, stripes)| format!("{name} ({})", stripes.join(" ")))
        .collect();
    let fed_by = match member.name {
        "source" => "the test picture".to_owned(),
        _ => fed_by.join(", "),
    };
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
    layout.line([
        member.name,
        &fed_by,
        &number(&member.status["in_kbps"]),
        &number(&member.status["out_kbps"]),
        &number(&stream["hops"]),
        &number(&stream["delay_ms"]),
    ])
}

async fn spawn(
    name: &'static str,
    folder: &Path,
    args: &[&str],
    events: &mpsc::Sender<Event>,
    inbox: &mut mpsc::Receiver<Event>,
) -> anyhow::Result<Member> {
    eprintln!("starting the {name} ...");
    let binary = std::env::current_exe().context("the path of this program")?;
    let mut command = Command::new(binary);
    command.env("TMPDIR", folder).args(args).args([
        "--json",
        "--ephemeral",
        "--mdns",
        "false",
        "--leave-with-stdin",
    ]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--rtmp", "127.0.0.1:0"]);
    if !args.contains(&"--api") {
        command.args(["--api", "127.0.0.1:0"]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(if std::env::var_os("ASTRAL_LOG").is_some() {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting the {name}"))?;
    let stdout = child.stdout.take().context("the node's stdout")?;
    let to = events.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let event = serde_json::from_str(&line).unwrap_or(Value::Null);
            if to.send((name, event)).await.is_err() {
                return;
            }
        }
        // The table hears of the end by this event; nobody listens once the demo is over.
        let _ = to.send((name, serde_json::json!({"event": "closed"}))).await;
    });
    let ready = tokio::time::timeout(STEP, ready_of(name, inbox))
        .await
        .with_context(|| format!("the {name} was not ready within {STEP:?}"))??;
    Ok(Member { name, child, ready, status: Value::Null })
}

async fn ready_of(name: &'static str, inbox: &mut mpsc::Receiver<Event>) -> anyhow::Result<Value> {
    while let Some((from, event)) = inbox.recv().await {
        match event["event"].as_str() {
            Some("ready") if from == name => return Ok(event),
            Some("error") if from == name => bail!("the {name}: {}", text(&event["message"])),
            Some("closed") => {
                bail!("the {from} did not start; run it alone to see why, or set ASTRAL_LOG=info")
            }
            _ => {}
        }
    }
    bail!("the {name} ended before it was ready")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn the_table_fits_a_terminal_of_eighty_columns() {
        let fed_by = "forwarder 1 (0 1), forwarder 2 (2 3)".repeat(2);
        let cells = ["forwarder 1", &fed_by, "99999", "99999", "12", "10000"];
        assert!(Layout::within(Some(79)).line(cells).width() <= 79);
        assert!(Layout::within(None).line(cells).width() <= 92);
        assert!(Layout::within(Some(79)).line(["", "", "", "", "", ""]).width() > 70);
    }
}
