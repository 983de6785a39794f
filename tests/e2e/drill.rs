//! The kill drill: forwarders of a deep and nearly full network are killed without warning, one after
//! the other, two at once, and the supernode. Whoever survives keeps every byte.
//!
//! Owns that network and the order of the kills. Does not own single deaths in a small network, nor
//! frozen processes (see `failover`).

use crate::{
    failover::{Moments, parents_in},
    harness::{Network, Node, SOON, Scratch, Source, assert_identical, status_of, stream_is_whole},
};

/// Stripe slots of each forwarder: unequal uplinks, and with the source's four there are 22 slots
/// for the 20 stripes that eight forwarders and two viewers want.
const SLOTS: [u32; 8] = [4, 4, 3, 2, 2, 1, 1, 1];
/// One slot at 800 kbit/s in two stripes, with what framing takes and the tenth that is kept.
const SLOT_KBIT: u32 = 480;

#[test]
fn ten_kills_in_a_full_network_three_levels_deep_cost_no_byte() {
    drill("drill", "/ip4/127.0.0.1/tcp/0", 10);
}

#[test]
#[ignore = "five minutes: make test-long"]
fn fifty_kills_over_tcp_cost_no_byte() {
    drill("drill50", "/ip4/127.0.0.1/tcp/0", 50);
}

#[test]
#[ignore = "five minutes: make test-long"]
fn fifty_kills_over_quic_cost_no_byte() {
    drill("drill50q", "/ip4/127.0.0.1/udp/0/quic-v1", 50);
}

struct Drill<'a> {
    network: &'a Network,
    source: &'a Source,
    forwarders: Vec<(u32, Node)>,
    viewers: Vec<Node>,
    /// Those that died take their events along.
    gaps: Gaps,
    started: usize,
}

/// Times between the last chunk of the old parent and the first of the new one, in milliseconds.
#[derive(Default)]
struct Gaps {
    closed: Vec<u64>,
    silent: Vec<u64>,
}

fn drill(name: &str, listen: &str, kills: usize) {
    let scratch = Scratch::new(name);
    let (tee, file) = (scratch.file("cut.flv"), scratch.file("played.flv"));
    let mut network = Network::found_on(listen);
    let limits = ["--bitrate", "670kbit", "--stripes", "2", "--max-copies", "2"];
    let source = network.publish(name, &tee, &limits);
    let mut drill = Drill {
        network: &network,
        source: &source,
        forwarders: Vec::new(),
        viewers: Vec::new(),
        gaps: Gaps::default(),
        started: 0,
    };
    for slots in SLOTS {
        drill.start(slots);
    }
    let keeper = network.play("keeper", &source.link, &file, &["--max-copies", "0"]);
    let args = ["play", &source.link, "--sink", "fake", "--lag", "normal", "--max-copies", "0"];
    let live = network.member("live", &args);
    drill.viewers = vec![keeper, live];
    drill.wait_for_all(0);
    let hops = drill.nodes().filter_map(|node| status_of(node)["streams"][0]["hops"].as_u64());
    let depth = hops.max().unwrap_or(0);
    assert!(depth >= 3, "the tree has {depth} levels");

    let mut moment = Moments::new(name);
    let mut killed = 0;
    while killed + 1 < kills {
        // Two at once, now and then.
        let at_once = if killed % 5 == 3 && killed + 2 < kills { 2 } else { 1 };
        moment.wait();
        let slots: Vec<u32> = (0..at_once).map(|_| drill.kill(moment.pick())).collect();
        killed += slots.len();
        drill.wait_for_all(2);
        slots.into_iter().for_each(|slots| drill.start(slots));
    }
    // The last one: whoever keeps the directory.
    let Drill { forwarders, viewers, mut gaps, .. } = drill;
    network.supernode.kill();
    let (keeper, live) = (&viewers[0], &viewers[1]);
    let from = keeper.mark();
    let before = status_of(keeper)["streams"][0]["bytes"].as_u64();
    keeper.wait_from(from, "status", SOON, |s| {
        s["streams"][0]["bytes"].as_u64() > before.map(|bytes| bytes + 300_000)
    });
    source.node.signal("TERM");
    keeper.wait("ended", SOON, |_| true);
    let identity = assert_identical(&tee, &file);
    assert_eq!(keeper.all("skipped"), Vec::<serde_json::Value>::new());
    assert_eq!(identity.behind, 0);
    forwarders.iter().map(|(_, node)| node).chain(&viewers).for_each(|node| gaps.read(node));
    println!("{name}: {} kills, {depth} levels deep", killed + 1);
    gaps.print();
    let causes: Vec<_> = live.all("skipped").iter().map(|skip| skip["cause"].to_string()).collect();
    println!("skips at lag 1.5 s: {causes:?}");
}

impl Drill<'_> {
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.forwarders.iter().map(|(_, node)| node).chain(&self.viewers)
    }

    fn start(&mut self, slots: u32) {
        let name = format!("forwarder {} of {slots} slots", self.started);
        self.started += 1;
        let uplink = format!("{}kbit", slots * SLOT_KBIT);
        let node = self.network.seed(&name, &self.source.link, &["--uplink", &uplink]);
        node.wait("status", 2 * SOON, stream_is_whole);
        self.forwarders.push((slots, node));
    }

    /// Kills one that feeds others, if there is one; says how many slots it had.
    fn kill(&mut self, lot: usize) -> u32 {
        let parents: Vec<String> =
            self.nodes().flat_map(|node| parents_in(&status_of(node))).collect();
        let feeds = |at: &usize| parents.contains(&self.forwarders[*at].1.id());
        let feeding: Vec<usize> = (0..self.forwarders.len()).filter(feeds).collect();
        let at = feeding.get(lot % feeding.len().max(1)).copied().unwrap_or(0);
        let (slots, mut node) = self.forwarders.remove(at);
        node.kill();
        self.gaps.read(&node);
        slots
    }

    /// Waits until everybody has a living parent for every stripe, but for so many forwarders: those
    /// who have to wait for the slots of the dead.
    fn wait_for_all(&self, but: usize) {
        let mut ids: Vec<String> = self.forwarders.iter().map(|(_, node)| node.id()).collect();
        ids.push(self.source.node.id());
        let alive = |status: &serde_json::Value| {
            stream_is_whole(status) && parents_in(status).iter().all(|p| ids.contains(p))
        };
        let mut waiting = 0;
        for (slots, node) in &self.forwarders {
            if *slots == 1 && waiting < but {
                waiting += 1;
                continue;
            }
            node.wait_from(node.mark().saturating_sub(1), "status", 2 * SOON, alive);
        }
        for node in &self.viewers {
            node.wait_from(node.mark().saturating_sub(1), "status", 2 * SOON, alive);
        }
    }
}

impl Gaps {
    fn read(&mut self, node: &Node) {
        for moved in node.all("parent_changed") {
            let to = match moved["cause"].as_str() {
                Some("closed") => &mut self.closed,
                Some("silent") => &mut self.silent,
                _ => continue,
            };
            to.extend(moved["gap_ms"].as_u64());
        }
    }

    fn print(&mut self) {
        for (name, gaps) in [("closed", &mut self.closed), ("silent", &mut self.silent)] {
            gaps.sort_unstable();
            let at = |percent: usize| {
                gaps.get((gaps.len() * percent / 100).min(gaps.len().saturating_sub(1)))
            };
            println!(
                "{name}: {} moves, gap p50 {:?} p95 {:?} max {:?} ms",
                gaps.len(),
                at(50),
                at(95),
                gaps.last()
            );
        }
    }
}
