//! `netsim lab`: a scenario with real `astral` processes, each in a network namespace of its own,
//! beside what the simulator predicts for the same file and seed.
//!
//! Owns the order in which a lab is built, run and taken down. Does not own the model of the network
//! (see [`hub`]), which is the simulator's. It needs root and `/dev/net/tun`, touches nothing outside
//! its own namespaces, and leaves nothing behind, also when it is killed.

mod hub;
mod meter;
mod netns;
mod packet;
mod probe;
mod process;
mod report;
mod router;
mod script;
mod wire;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use astral_core::units::Bitrate;
use astral_netsim::{
    random::Dice,
    run::run as simulate,
    scenario::{Nat, Scenario},
    world::{Kind, Planned, World},
};
use rustix::process::Signal;
use serde_json::Value;

use self::{
    hub::{Hub, Line},
    meter::{Meter, Pipe},
    netns::Namespace,
    probe::Probe,
    process::Node,
    report::{Accuracy, Lived, Report},
    script::{Alive, Script, Step},
    wire::Wire,
};
use super::LabArgs;

/// Nodes of one lab; a process each.
const NODES_MAX: usize = 100;
/// A node that starts on a busy machine needs so long at most until it is ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// The source publishes at this second of a scenario, in microseconds.
const PUBLISHED_US: u64 = 1_500_000;
/// Where nodes listen, in their own namespaces.
const LISTEN: &str = "/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1";
/// Line of the two hosts that measure the lab itself.
const PROBE_RATE: Bitrate = Bitrate::from_mbps(1_000);
/// Sound of the published stream, as `astral publish` encodes it.
const AUDIO: Bitrate = Bitrate::from_kbps(128);
/// Snow: no encoder gets it smaller than it was told.
const PICTURE: &str = "videotestsrc is-live=true pattern=snow
  ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1
  ! queue max-size-buffers=2 leaky=downstream
  ! {encoder} ! h264parse ! queue ! mux.
audiotestsrc is-live=true wave=ticks samplesperbuffer=1024
  ! audio/x-raw,rate=48000,channels=2
  ! audioconvert ! voaacenc bitrate={audio_bps} ! aacparse ! queue ! mux.
flvmux name=mux streamable=true latency=40000000
  ! appsink name=out sync=false max-buffers=200 drop=false
";

/// The folder of one lab; it goes with it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next lab.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A lab under way.
#[derive(Debug)]
struct Lab<'a> {
    args: &'a LabArgs,
    scenario: &'a Scenario,
    program: PathBuf,
    plan: Vec<Planned>,
    spaces: Vec<Namespace>,
    pipes: Vec<Option<PathBuf>>,
    nodes: Vec<Option<Node>>,
    lived: Vec<Lived>,
    wire: Wire,
    folder: PathBuf,
    began: Instant,
    link: String,
}

/// Runs a scenario with real processes and then in the simulator; prints both.
///
/// # Errors
/// What is missing on this machine, what the scenario asks that real nodes can't do, or which node
/// did not start.
pub fn run(args: &LabArgs, scenario: &Scenario) -> anyhow::Result<bool> {
    script::check(scenario)?;
    let plan = World::new(scenario.clone(), args.seed).plan();
    ensure!(plan.len() <= NODES_MAX, "a lab has {NODES_MAX} nodes at most");
    ensure!(scenario.stream.rate > AUDIO, "stream.rate is above 128kbit, which the sound takes");
    netns::check()?;
    let program = program(args.astral.as_deref())?;
    if let Some(logs) = &args.logs {
        std::fs::create_dir_all(logs)?;
    }
    let folder = Folder(meter::folder()?);
    let began = Instant::now();
    let (mut spaces, mut devices) = (Vec::new(), Vec::new());
    let mut hub = Hub::new(scenario.network.clone(), Dice::new(args.seed));
    eprintln!("{} namespaces", plan.len() + 2);
    for planned in &plan {
        let inside = if planned.nat == Nat::Public { planned.addr } else { router::INSIDE };
        let (space, device) = Namespace::new(inside)?;
        spaces.push(space);
        devices.push(device);
        let nat = (planned.nat, planned.addr);
        let line = Line::new(planned.uplink, planned.downlink, Some(planned.place), nat);
        hub.add(planned.addr, line);
    }
    let mut ends = Vec::new();
    for addr in [probe::FROM, probe::TO] {
        let (space, device) = Namespace::new(addr)?;
        ends.push(space);
        devices.push(device);
        hub.add(addr, Line::new(PROBE_RATE, None, None, (Nat::Public, addr)));
    }
    let wire = Wire::start(hub, devices, began)?;
    let probe = Probe::start(&ends[0], &ends[1], began)?;
    let (pipes, meter) = pipes(&plan, &folder.0, began)?;
    let mut lab = Lab {
        args,
        scenario,
        program,
        lived: vec![Lived::default(); plan.len()],
        nodes: plan.iter().map(|_| None).collect(),
        plan,
        spaces,
        pipes,
        wire,
        folder: folder.0.clone(),
        began,
        link: String::new(),
    };
    let zero = lab.found()?;
    lab.play(zero)?;
    let seen = meter.stop();
    let (plan, lived, counts, late) = lab.end();
    let accuracy = Accuracy { counts, late, probe: probe.stop() };
    eprintln!("the same in the simulator");
    let predicted = simulate(scenario.clone(), args.seed, |_| {});
    let report = Report::new(&plan, &lived, &seen, accuracy, &predicted);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.ok)
}

/// The program that is tested: as told, or beside this one, or in the path.
fn program(told: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(told) = told {
        ensure!(told.exists(), "there is no {}", told.display());
        return Ok(told.to_owned());
    }
    let here = std::env::current_exe()?;
    let beside = here.with_file_name("astral");
    let in_path = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("astral"))
        .find(|path| path.exists());
    Some(beside)
        .filter(|path| path.exists())
        .or(in_path)
        .context("there is no astral beside netsim: cargo build --bin astral, or --astral FILE")
}

type Ends = (Vec<Option<PathBuf>>, Meter);

/// A pipe for the source and for each viewer.
fn pipes(plan: &[Planned], folder: &Path, began: Instant) -> anyhow::Result<Ends> {
    let (mut paths, mut pipes) = (Vec::new(), Vec::new());
    for (number, planned) in plan.iter().enumerate() {
        if planned.kind == Kind::Supernode {
            paths.push(None);
            continue;
        }
        let pipe = Pipe::new(folder.join(format!("{number}.flv")))?;
        paths.push(Some(pipe.path.clone()));
        pipes.push(pipe);
    }
    Ok((paths, Meter::start(pipes, began)?))
}

impl Lab<'_> {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Starts the supernodes and the source; gives the moment that is the scenario's beginning.
    fn found(&mut self) -> anyhow::Result<u64> {
        let supernodes = self.scenario.supernode_count() as usize;
        for node in 1..=supernodes {
            self.start(node, &["run", "--role", "supernode"])?;
            self.ready(node)?;
        }
        let picture = self.folder.join("snow.launch");
        std::fs::write(&picture, PICTURE)?;
        let stream = &self.scenario.stream;
        let rate = Bitrate::from_bps(stream.rate.as_bps() - AUDIO.as_bps());
        let (fps, rate) = (stream.fps.to_string(), format!("{}kbit", rate.as_bps() / 1_000));
        let stripes = stream.stripes.to_string();
        let role = if supernodes == 0 { "supernode" } else { "auto" };
        let picture = picture.to_string_lossy();
        let tee = self.pipes[0].clone().context("the source has a pipe")?;
        let tee = tee.to_string_lossy();
        self.start(
            0,
            &[
                "publish",
                "lab",
                "--pipeline",
                &picture,
                "--size",
                "320x180",
                "--fps",
                &fps,
                "--bitrate",
                &rate,
                "--stripes",
                &stripes,
                "--tee",
                &tee,
                "--role",
                role,
            ],
        )?;
        let ready = self.ready(0)?;
        self.link = ready["stream"].as_str().context("no link of the stream")?.to_owned();
        Ok(self.now().saturating_sub(PUBLISHED_US))
    }

    /// Goes through the script in real time.
    fn play(&mut self, zero: u64) -> anyhow::Result<()> {
        let mut script = Script::new(self.scenario, &self.plan, Dice::new(self.args.seed));
        while let Some((at, step)) = script.next() {
            let due = zero + at;
            while self.now() < due {
                std::thread::park_timeout(Duration::from_micros(due - self.now().min(due)));
            }
            let second = at as f64 / 1e6;
            match step {
                Step::Fault(number) => {
                    let alive = self.alive();
                    script.fault(number, at, &self.plan, &alive);
                    continue;
                }
                Step::Join(_) => {}
                _ => eprintln!("{second:.1} s: {step:?}"),
            }
            if step == Step::End {
                break;
            }
            self.step(step)?;
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> anyhow::Result<()> {
        let now = self.now();
        let signal = |node: usize, signal: Signal| {
            if let Some(node) = &self.nodes[node] {
                node.signal(signal);
            }
        };
        match step {
            Step::Join(node) => {
                self.lived[node].wanted_at = Some(now);
                let sink = self.pipes[node].clone().context("a viewer has a pipe")?;
                let sink = format!("file:{}", sink.display());
                let link = self.link.clone();
                self.start(node, &["play", &link, "--sink", &sink, "--role", "auto"])?;
            }
            Step::Kill(node) => {
                self.lived[node].gone_at = Some(now);
                self.nodes[node].iter_mut().for_each(Node::kill);
            }
            Step::Vanish(node) => {
                self.lived[node].gone_at = Some(now);
                self.wire.hub().part(u64::MAX - node as u64, BTreeSet::from([node]), false);
                self.nodes[node].iter_mut().for_each(Node::kill);
            }
            Step::Freeze(node, true) => signal(node, Signal::STOP),
            Step::Freeze(node, false) => signal(node, Signal::CONT),
            Step::Leave(node) => {
                self.lived[node].gone_at = Some(now);
                signal(node, Signal::TERM);
            }
            Step::Part { name, members, .. } if members.is_empty() => self.wire.hub().heal(name),
            Step::Part { name, members, one_way } => self.wire.hub().part(name, members, one_way),
            Step::Throttle(node, percent) => self.wire.hub().throttle(node, percent),
            Step::Fault(_) | Step::End => {}
        }
        Ok(())
    }

    fn start(&mut self, node: usize, command: &[&str]) -> anyhow::Result<()> {
        let planned = &self.plan[node];
        let mut args: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        args.extend(["--listen", LISTEN, "--uplink"].map(str::to_owned));
        let told = self.scenario.network.uplink_told;
        let uplink = format!("{}kbit", planned.uplink.as_bps() / 1_000);
        args.push(if told { uplink } else { "auto".to_owned() });
        if let Some(copies) = planned.max_copies {
            args.extend(["--max-copies".to_owned(), copies.to_string()]);
        }
        if planned.kind == Kind::Supernode {
            let places = self.scenario.supernodes.capacity.to_string();
            args.extend(["--members-max".to_owned(), places]);
        }
        for known in &planned.bootstrap {
            let known = *known as usize;
            let said = self.nodes[known].as_ref().map(Node::said);
            let ready = said.as_ref().and_then(|said| said.ready.as_ref());
            let peer = ready.and_then(|ready| ready["peer_id"].as_str());
            let peer = peer.context("a node that others know is not there")?;
            let addr = self.plan[known].addr;
            args.extend(["--bootstrap".to_owned(), format!("/ip4/{addr}/tcp/4001/p2p/{peer}")]);
        }
        let log = self.args.logs.as_ref().map(|logs| logs.join(node.to_string()));
        let space = &self.spaces[node];
        self.nodes[node] = Some(Node::start(&self.program, space, &args, log.as_deref())?);
        Ok(())
    }

    fn ready(&self, node: usize) -> anyhow::Result<Value> {
        self.nodes[node].as_ref().context("it was started")?.wait_ready(READY_MAX)
    }

    fn alive(&self) -> Vec<Alive> {
        let of = |(node, lived): (&Option<Node>, &Lived)| {
            let said = node.as_ref().map(Node::said);
            let status = said.as_ref().and_then(|said| said.status.as_ref());
            let children = status.and_then(|status| status["streams"][0]["children"].as_array());
            Alive {
                is_up: node.is_some() && lived.gone_at.is_none(),
                feeds: children.is_some_and(|children| !children.is_empty()),
            }
        };
        self.nodes.iter().zip(&self.lived).map(of).collect()
    }

    /// Ends all nodes; gives what they were, what they told, and what became of their packets.
    fn end(mut self) -> (Vec<Planned>, Vec<Lived>, hub::Counts, astral_netsim::tally::Histogram) {
        let now = self.now();
        for (node, lived) in self.nodes.iter_mut().zip(&mut self.lived) {
            lived.until = lived.gone_at.unwrap_or(now);
            if let Some(node) = node {
                node.kill();
                lived.hear(&node.said());
            }
        }
        let counts = self.wire.hub().counts;
        (self.plan, self.lived, counts, self.wire.stop())
    }
}
