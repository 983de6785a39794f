//! What the commands do.
//!
//! Owns loading by name, printing and the progress bar. Does not own runs and their figures (see the
//! library).

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use astral_core::overlay::journal;
use astral_netsim::{
    bars, export, gallery, queue_bench,
    run::{run as run_once, run_all},
    scenario::{Fidelity, Scenario, seconds},
    shrink as shrinking,
    summary::Summary,
    sweep as sweeping,
    trace::Log,
    world::{Progress, World},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    BarsArgs, CompareArgs, LabArgs, PlotArgs, ReplayArgs, RunArgs, ShrinkArgs, SwarmArgs, SweepArgs,
};

/// Events that wait in the benchmark of the queue, and operations with each.
const BENCH: [(usize, u64); 4] =
    [(10_000, 2_000_000), (100_000, 2_000_000), (1_000_000, 2_000_000), (10_000_000, 2_000_000)];

pub fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let mut scenario = changed(&args.scenario, &args.set)?;
    if let Some(nodes) = args.nodes {
        scenario.viewers.count = nodes;
        scenario.check()?;
    }
    if let Some(fidelity) = &args.fidelity {
        scenario = sweeping::with_field(&scenario, "engine.fidelity", fidelity)?;
    }
    let log = Log {
        nodes: args.log.iter().copied().collect(),
        from: seconds(args.log_from),
        to: seconds(args.log_to),
    };
    let mut world = World::new(scenario, args.seed).with_log(log);
    let mut journal_file = None;
    if let Some((node, file)) = args.journal.as_deref().and_then(|text| text.split_once('=')) {
        world = world.with_journal(node.parse().context("--journal takes NODE=FILE")?);
        journal_file = Some(PathBuf::from(file));
    } else if args.journal.is_some() {
        bail!("--journal takes NODE=FILE");
    }
    let started = Instant::now();
    let run = world.run(progress());
    told_rate(&run.summary, started.elapsed());
    if let Some(folder) = &args.csv {
        export::write(&run, folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
    }
    if let Some(file) = journal_file {
        let journal = run.journal.as_ref().context("that node was not there at the end")?;
        fs::write(&file, journal).with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(&run.summary, args.json, &args.scenario)?;
    Ok(run.summary.ok)
}

#[cfg(target_os = "linux")]
pub fn lab(args: &LabArgs) -> anyhow::Result<bool> {
    super::lab::run(args, &changed(&args.scenario, &args.set)?)
}

#[cfg(not(target_os = "linux"))]
pub fn lab(_: &LabArgs) -> anyhow::Result<bool> {
    bail!("the lab needs the network namespaces of Linux")
}

pub fn swarm(args: &SwarmArgs) -> anyhow::Result<bool> {
    let seeds: Vec<u64> = (args.from..args.from.saturating_add(args.seeds)).collect();
    let bar = bar_of(args.seeds, "seeds");
    let summaries = run_all(&seeds, args.threads, Scenario::drawn, |summary| {
        if !summary.ok {
            bar.suspend(|| eprintln!("seed {} FAILED", summary.seed));
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    let failed = summaries.iter().filter(|summary| !summary.ok).count();
    for summary in &summaries {
        if args.json || !summary.ok {
            print(summary, args.json, "swarm")?;
        }
    }
    eprintln!("{} of {} seeds failed", failed, summaries.len());
    Ok(failed == 0)
}

pub fn replay(args: &ReplayArgs) -> anyhow::Result<bool> {
    if let Some(path) = &args.journal {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let replayed = journal::replay(&bytes).context("the journal does not replay")?;
        let end = if replayed.whole { "to its end" } else { "up to where it breaks off" };
        println!("{} inputs, {} outputs, equal {end}", replayed.steps, replayed.outputs);
        return Ok(true);
    }
    let what = args.what.as_deref().context("what is to be replayed?")?;
    let (scenario, seed, name) = with_seed(what)?;
    let first = run_once(scenario.clone(), seed, progress());
    let second = run_once(scenario, seed, progress());
    print(&first, false, name)?;
    if first != second {
        bail!("two runs differ: {} and {}", first.trace_hash, second.trace_hash);
    }
    println!("the same run twice");
    Ok(first.ok)
}

pub fn shrink(args: &ShrinkArgs) -> anyhow::Result<bool> {
    let (scenario, seed, _) = with_seed(&args.what)?;
    let bar = bar_of(u64::from(args.runs), "runs");
    let shrunk = shrinking::shrink(scenario, seed, args.runs, |_, _| bar.inc(1));
    bar.finish_and_clear();
    let Some(shrunk) = shrunk else {
        println!("{} does not fail: there is nothing to shrink", args.what);
        return Ok(false);
    };
    let text = format!(
        "# {} shrunk in {} runs. It fails with seed {seed}: {}\n{}",
        args.what,
        shrunk.runs,
        shrunk.failure.as_str(),
        toml::to_string(&shrunk.scenario)?
    );
    fs::write(&args.out, text).with_context(|| format!("cannot write {}", args.out.display()))?;
    let left = shrunk.scenario.audience() as usize - shrunk.scenario.absent.len();
    println!(
        "{} viewers, {} faults, {} s are left; run it with: netsim run {} --seed {seed}",
        left,
        shrunk.scenario.faults.len(),
        shrunk.scenario.duration_s,
        args.out.display()
    );
    Ok(true)
}

/// Both fidelities of one scenario; they agree when continuity at 3 s is the same to 0.001 and the
/// median delay to a tenth.
pub fn compare(args: &CompareArgs) -> anyhow::Result<bool> {
    let mut exact = named(&args.scenario)?;
    exact.viewers.count = args.nodes.unwrap_or(exact.viewers.count);
    exact.engine.fidelity = Fidelity::Chunks;
    let mut coarse = exact.clone();
    coarse.engine.fidelity = Fidelity::Intervals;
    coarse.check()?;
    let exact = run_once(exact, args.seed, progress());
    let coarse = run_once(coarse, args.seed, progress());
    println!("{:<20} {:>12} {:>12} {:>12}", "", "chunks", "intervals", "apart");
    let row = |name: &str, a: Option<f64>, b: Option<f64>| {
        let (a, b) = (a.unwrap_or(f64::NAN), b.unwrap_or(f64::NAN));
        println!("{name:<20} {a:>12.5} {b:>12.5} {:>12.5}", b - a);
        (b - a).abs()
    };
    let apart = row("continuity_3000", exact.continuity_3000, coarse.continuity_3000);
    row("continuity_1500", exact.continuity_1500, coarse.continuity_1500);
    let delay = row("delay_p50_ms", exact.delay_ms.p50, coarse.delay_ms.p50);
    row("delay_p99_ms", exact.delay_ms.p99, coarse.delay_ms.p99);
    row("first_picture_p50_ms", exact.first_picture_ms.p50, coarse.first_picture_ms.p50);
    row("repair_p50_ms", exact.repair_ms.p50, coarse.repair_ms.p50);
    row("depth_mean", Some(exact.depth_mean), Some(coarse.depth_mean));
    row("source_copies", Some(exact.source_copies), Some(coarse.source_copies));
    row("overhead", Some(exact.overhead), Some(coarse.overhead));
    row("events", Some(exact.events as f64), Some(coarse.events as f64));
    let agree = apart <= 0.001 && delay <= exact.delay_ms.p50.unwrap_or(0.0) / 10.0;
    println!("{}", if agree { "they agree" } else { "they do NOT agree" });
    Ok(agree)
}

pub fn sweep(args: &SweepArgs) -> anyhow::Result<bool> {
    let mut scenario = named(&args.scenario)?;
    scenario.viewers.count = args.nodes.unwrap_or(scenario.viewers.count);
    let (name, values) = args.field.split_once('=').context("write FIELD=VALUE,VALUE,...")?;
    let values: Vec<String> = values.split(',').map(str::to_owned).collect();
    let seeds: Vec<u64> = (1..=args.seeds).collect();
    let rows = sweeping::sweep(&scenario, name, &values, &seeds, args.threads)?;
    print!("{}", sweeping::table(name, &rows));
    Ok(true)
}

pub fn bars(args: &BarsArgs) -> anyhow::Result<bool> {
    let scenarios = bars::load(&args.scenarios)?;
    let bar = bar_of(scenarios.len() as u64, "scenarios");
    let summaries = bars::run(&scenarios, args.nodes, args.seed, args.threads, |summary| {
        bar.suspend(|| eprintln!("{} {}", summary.scenario, if summary.ok { "ok" } else { "-" }));
        bar.inc(1);
    });
    bar.finish_and_clear();
    print!("{}", bars::table(&summaries));
    let violated = summaries.iter().any(|summary| summary.violation_count > 0);
    let missed = summaries.iter().any(|summary| !summary.ok);
    Ok(!(violated || args.strict && missed))
}

pub fn plot(args: &PlotArgs) -> anyhow::Result<bool> {
    let scale = gallery::Scale { nodes: args.nodes, threads: args.threads, seed: args.seed };
    let bar = ProgressBar::new_spinner().with_message("running");
    bar.enable_steady_tick(Duration::from_millis(200));
    gallery::draw(&args.out, scale, |name| println!("{}", args.out.join(name).display()))?;
    bar.finish_and_clear();
    Ok(true)
}

pub fn bench() {
    println!(
        "{:>10}  {:>12}  {:>12}   million pops and pushes a second",
        "waiting", "queue", "heap"
    );
    for (waiting, operations) in BENCH {
        let measured = queue_bench::measure(waiting, operations);
        println!("{waiting:>10}  {:>12.2}  {:>12.2}", measured.queue / 1e6, measured.heap / 1e6);
    }
}

/// `SCENARIO@SEED`, with the name that failures print.
fn with_seed(what: &str) -> anyhow::Result<(Scenario, u64, &str)> {
    let (name, seed) = what.rsplit_once('@').context("write SCENARIO@SEED or swarm@SEED")?;
    let seed: u64 = seed.parse().context("the seed is a number")?;
    Ok((named(what)?, seed, name))
}

/// `swarm@SEED`, or what [`load`] takes, whose seed is not looked at.
fn named(what: &str) -> anyhow::Result<Scenario> {
    let (name, seed) = what.rsplit_once('@').unwrap_or((what, "1"));
    if name == "swarm" {
        return Ok(Scenario::drawn(seed.parse().context("the seed is a number")?));
    }
    load(name)
}

/// What [`named`] gives, with fields changed.
fn changed(name: &str, changes: &[String]) -> anyhow::Result<Scenario> {
    let mut scenario = named(name)?;
    for change in changes {
        let (name, value) = change.split_once('=').context("--set takes FIELD=VALUE")?;
        scenario = sweeping::with_field(&scenario, name, value)?;
    }
    Ok(scenario)
}

fn load(name: &str) -> anyhow::Result<Scenario> {
    let given = PathBuf::from(name);
    if given.exists() {
        return Scenario::load(&given);
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let shipped = shipped.join(name).with_extension("toml");
    if shipped.exists() {
        return Scenario::load(&shipped);
    }
    bail!("there is no scenario {name}: give a TOML file, or a name out of netsim/scenarios");
}

fn print(summary: &Summary, json: bool, name: &str) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(summary)?);
    } else {
        print!("{summary}");
    }
    if !summary.ok {
        let name = name.split_once('@').map_or(name, |(name, _)| name);
        eprintln!("replay with: netsim replay {name}@{}", summary.seed);
    }
    Ok(())
}

fn told_rate(summary: &Summary, took: Duration) {
    let s = took.as_secs_f64().max(1e-9);
    eprintln!(
        "{} events in {s:.1} s: {:.0} a second, {:.2} simulated seconds a second",
        summary.events,
        summary.events as f64 / s,
        summary.seconds / s
    );
}

fn bar_of(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {what}  {{elapsed}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// A bar on a terminal; nothing elsewhere.
fn progress() -> impl FnMut(&Progress) {
    let bar = bar_of(0, "s");
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} s  {msg}") {
        bar.set_style(style);
    }
    move |progress| {
        let Progress { now, end, nodes, events, waiting } = progress;
        let (now, end) = (now / 1_000_000, end / 1_000_000);
        bar.set_length(end);
        bar.set_position(now);
        bar.set_message(format!("{nodes} nodes  {events} events  {waiting} wait"));
        if now >= end {
            bar.finish_and_clear();
        }
    }
}
