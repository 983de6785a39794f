//! Checks of the network: ports, supernodes in reach, uplink.
//!
//! Owns the short-lived node that looks for supernodes. Does not own how a node finds them.

use std::{net::SocketAddr, time::Duration};

use astral_core::overlay::RegistrationView;
use tokio::net::{TcpListener, UdpSocket};

use super::Check;
use crate::{
    cli::{bootstrap, host::node_config},
    config::{LocalAddr, Role, Settings},
    node::{Event, Handle, NatKind, Node, NodeConfig, NodeSnapshot, RoleChoice, Upnp, Verdict},
};

/// A supernode that is in reach answers within a second or two.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// After the registration, other supernodes and round trips are heard of within this.
const SETTLE: Duration = Duration::from_secs(2);
/// Tests of the addresses by others take a few rounds of five seconds each.
const JUDGE_MAX: Duration = Duration::from_secs(12);
/// Between two looks at what they found.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// The port that nodes listen on unless told otherwise.
const NODE_PORT: u16 = 4001;

/// Whether the ports are free that a node would take.
pub async fn ports(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![
        local("port of the API", settings.api, "--api").await,
        local("port of RTMP", settings.rtmp, "--rtmp").await,
    ];
    if settings.listen.is_empty() {
        let addr = SocketAddr::from(([0, 0, 0, 0], NODE_PORT));
        let free = TcpListener::bind(addr).await.is_ok() && UdpSocket::bind(addr).await.is_ok();
        checks.push(if free {
            Check::ok("port for other nodes", format!("{NODE_PORT}, TCP and UDP"))
        } else {
            let fix = "nothing, unless your router forwards it: --listen chooses another";
            let message = format!("{NODE_PORT} is taken, so the node takes a free one");
            Check::warn("port for other nodes", message, fix)
        });
    }
    checks
}

async fn local(name: &str, wanted: LocalAddr, flag: &str) -> Check {
    let addr = wanted.addr;
    match TcpListener::bind(addr).await {
        Ok(_) => Check::ok(name, addr.to_string()),
        Err(error) if wanted.movable => {
            let message = format!("{addr}: {error}; the node takes a free one and says which");
            Check::warn(name, message, format!("nothing, or choose one with {flag}"))
        }
        Err(error) => {
            Check::bad(name, format!("{addr}: {error}"), format!("choose another with {flag}"))
        }
    }
}

/// Looks for supernodes with a node that keeps nothing and forwards nothing.
///
/// # Errors
/// When a setting can't be used.
pub async fn network(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    let settings = &bootstrap::resolve(settings.clone()).await?;
    let config =
        NodeConfig { role: RoleChoice::Member, max_copies: Some(0), ..node_config(settings)? };
    let asked = config.bootstrap.len();
    let (handle, mut running) = match Node::start(config).await {
        Ok(started) => started,
        Err(error) => {
            let fix = "see the message; --listen chooses other addresses";
            return Ok(vec![Check::bad("start", error.to_string(), fix)]);
        }
    };
    let found = look(&handle, settings).await;
    handle.leave().await;
    // What it found is known; how it ended is of no interest.
    let _ = running.join().await;
    let Some(now) = found else {
        return Ok(vec![Check::bad(
            "start",
            "the node ended at once",
            "ASTRAL_LOG=debug says more",
        )]);
    };
    Ok(vec![
        listening(&now),
        supernodes(&now, asked, settings.mdns),
        reachability(&now),
        router(&now),
        uplink(settings),
    ])
}

/// What the network looks like from a node that runs.
pub async fn running(handle: &Handle, settings: &Settings) -> Vec<Check> {
    let Ok(now) = handle.snapshot().await else {
        return vec![Check::bad("node", "it is ending", "start it again")];
    };
    vec![
        listening(&now),
        supernodes(&now, settings.bootstrap.len(), settings.mdns),
        reachability(&now),
        router(&now),
        uplink(settings),
    ]
}

async fn look(handle: &Handle, settings: &Settings) -> Option<NodeSnapshot> {
    let mut events = handle.events();
    let has_nobody = settings.bootstrap.is_empty() && !settings.mdns;
    if !has_nobody && settings.role != Role::Supernode {
        let registered = async {
            while !matches!(events.recv().await, Ok(Event::Registered { .. }) | Err(_)) {}
        };
        if tokio::time::timeout(LOOK_MAX, registered).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
            return judged(handle).await;
        }
    }
    handle.snapshot().await.ok()
}

/// Waits until others have tested the addresses, if there are others outside this network at all.
async fn judged(handle: &Handle) -> Option<NodeSnapshot> {
    let deadline = tokio::time::Instant::now() + JUDGE_MAX;
    loop {
        let now = handle.snapshot().await.ok()?;
        // The kind of a NAT takes two observers, of which there may be only one.
        let tested = now.reach.verdict == Verdict::Private
            && !now.reach.relayed.is_empty()
            && now.reach.nat != NatKind::Unknown;
        let public = now.reach.verdict == Verdict::Public;
        let alone = now.reach.verdict == Verdict::Unknown && now.reach.nat != NatKind::None;
        if tested || public || alone || tokio::time::Instant::now() >= deadline {
            return Some(now);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether others can dial this machine, and what is in the way.
fn reachability(now: &NodeSnapshot) -> Check {
    let name = "reachability";
    let reach = &now.reach;
    let each: Vec<String> = reach
        .transports
        .iter()
        .map(|(transport, verdict)| {
            let word = match verdict {
                Verdict::Unknown => "not tested",
                Verdict::Public => "open",
                Verdict::Private => "closed",
            };
            format!("{} {word}", transport.name())
        })
        .collect();
    let each = each.join(", ");
    match (reach.verdict, reach.nat) {
        (Verdict::Public, _) => Check::ok(name, format!("others can dial this node ({each})")),
        (Verdict::Unknown, _) => Check::ok(
            name,
            "nobody outside the local network has looked; inside it nothing is in the way",
        ),
        (Verdict::Private, NatKind::Symmetric) => Check::warn(
            name,
            format!(
                "a router that gives each connection a port of its own (symmetric NAT): {each}"
            ),
            "it works through relays; better: let the router forward the port (README, \
             \"Behind a router\"), or use IPv6",
        ),
        (Verdict::Private, NatKind::Cone | NatKind::Unknown) => Check::warn(
            name,
            format!("a router is between (NAT); others come in through punched holes: {each}"),
            "nothing; forward the port to be of more use to others",
        ),
        (Verdict::Private, NatKind::None) => Check::warn(
            name,
            format!("the address is public, but nothing comes in: {each}"),
            "open the port in the firewall, TCP and UDP",
        ),
    }
}

/// What the router said to UPnP.
fn router(now: &NodeSnapshot) -> Check {
    let name = "router (UPnP)";
    match now.reach.upnp {
        Upnp::Off => Check::ok(name, "not asked"),
        Upnp::Searching => Check::ok(name, "no answer yet"),
        Upnp::Mapped => Check::ok(name, format!("forwards {}", now.reach.external.join(", "))),
        Upnp::NoGateway => Check::ok(name, "none that answers"),
        Upnp::NotRoutable => Check::warn(
            name,
            "it is itself behind another NAT (carrier-grade NAT)",
            "nothing can be forwarded here; IPv6 from your provider would help",
        ),
    }
}

fn listening(now: &NodeSnapshot) -> Check {
    let addrs: Vec<&str> = now.overlay.me.addrs.iter().map(|addr| addr.as_str()).collect();
    if addrs.is_empty() {
        let fix = "connect this machine to a network; --listen chooses addresses";
        return Check::bad("addresses", "other nodes have no address to reach this one", fix);
    }
    let seen = if now.overlay.reachable { "" } else { "; not seen yet that others can dial them" };
    Check::ok("addresses", format!("{}{seen}", addrs.join(", ")))
}

fn supernodes(now: &NodeSnapshot, asked: usize, mdns: bool) -> Check {
    let name = "supernodes in reach";
    let known = now.overlay.nodes.iter().filter(|node| node.supernode && node.linked);
    let found: Vec<String> = known
        .map(|node| match node.rtt {
            Some(rtt) => format!("{} ({:.1} ms)", node.node.short(), rtt.as_secs_f64() * 1_000.0),
            None => node.node.short(),
        })
        .collect();
    if !found.is_empty() {
        let guest = match now.overlay.registration {
            RegistrationView::Guest { .. } => "; none has room for another member",
            RegistrationView::Searching
            | RegistrationView::Registered { .. }
            | RegistrationView::Supernode => "",
        };
        return Check::ok(name, format!("{}{guest}", found.join(", ")));
    }
    let failed = now.overlay.nodes.len();
    if matches!(now.overlay.registration, RegistrationView::Supernode) {
        return Check::ok(name, "this node is one, and knows no other yet");
    }
    match asked {
        0 if mdns => Check::warn(
            name,
            "none on this local network, and no --bootstrap is given",
            "give --bootstrap ADDRESS of any node of the network; or be the first with `astral run`",
        ),
        0 => Check::warn(
            name,
            "nowhere to look: no --bootstrap, and --mdns false",
            "give --bootstrap",
        ),
        asked => Check::bad(
            name,
            format!("none of the {asked} --bootstrap addresses answers ({failed} nodes tried)"),
            "check the addresses, and that no firewall is between; a new one is printed by `astral run`",
        ),
    }
}

fn uplink(settings: &Settings) -> Check {
    match settings.uplink {
        Some(rate) => {
            Check::ok("uplink", format!("{} kbit/s, as the settings say", rate.as_bps() / 1_000))
        }
        None => Check::ok(
            "uplink",
            "not limited; a node starts with a cautious guess and measures while it sends \
             (`astral ctl status`)",
        ),
    }
}
