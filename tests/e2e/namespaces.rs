//! Networks of their own for a test: hosts, routers with NAT, and an internet between them.
//!
//! Owns namespaces, which live as long as the process that holds each of them, and that ends when
//! its standard input closes: nothing is left behind however a test ends, and nothing outside of
//! these namespaces is touched. Does not own what runs in them.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::harness::{Node, SOON};

/// A network namespace.
pub struct Host {
    name: String,
    holder: Child,
}

impl Nat {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Public, Self::FullCone, Self::Restricted, Self::PortRestricted, Self::Symmetric];

    /// The router's rules for `nft`.
    fn rules(self) -> String {
        let random = if self == Self::Symmetric { "fully-random" } else { "" };
        let mut rules = format!(
            "table ip nat {{\nchain out {{ type nat hook postrouting priority srcnat; oifname wan \
             masquerade {random}; }}\n}}\n\
             table ip wall {{\nset known {{ type ipv4_addr; flags dynamic,timeout; timeout 60s; }}\n\
             chain in {{ type filter hook input priority 0; iifname wan ct state new drop; }}\n"
        );
        let through = match self {
            Self::FullCone => "oifname lan accept;",
            Self::Restricted => {
                "oifname wan update @known { ip daddr }; \
                 iifname wan ip saddr @known accept; iifname wan ct state new drop;"
            }
            Self::Public | Self::PortRestricted | Self::Symmetric => {
                "iifname wan ct state new drop;"
            }
        };
        let hook = "type filter hook forward priority 0;";
        rules.push_str(&format!("chain through {{ {hook} {through} }}\n}}\n"));
        if matches!(self, Self::FullCone | Self::Restricted) {
            rules.push_str(
                "table ip back {\nchain in { type nat hook prerouting priority dstnat; \
                 iifname wan dnat to 192.168.1.2; }\n}\n",
            );
        }
        rules
    }
}

impl Host {
    /// A host with nothing but loopback.
    pub fn new(name: &str) -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let host = Self { name: name.into(), holder };
        // Until then the process is still in our own namespace.
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let deadline = Instant::now() + SOON;
        while std::fs::read_link(format!("/proc/{}/ns/net", host.pid())).is_ok_and(|ns| ns == own) {
            assert!(Instant::now() < deadline, "{name} has no namespace");
            std::thread::yield_now();
        }
        host.run("ip link set lo up");
        host
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// What a command is started with to run here.
    pub fn enter(&self) -> Vec<String> {
        let pid = self.pid().to_string();
        ["nsenter", "--target", &pid, "--net", "--"].map(str::to_owned).to_vec()
    }

    /// Runs a shell command here; gives what it prints.
    pub fn run(&self, script: &str) -> String {
        let enter = self.enter();
        let mut shell = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["sh", "-e"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = shell.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {script}: {said}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a node here.
    pub fn node(&self, args: &[&str]) -> Node {
        let mut node = Node::spawn_under(&self.name, &self.enter(), args);
        node.ready = node.wait("ready", SOON, |_| true);
        node
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// How a router maps the ports of those behind it, and whom it lets in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nat {
    /// None: the host has a public address itself.
    Public,
    /// One mapping for all, and everybody may use it.
    FullCone,
    /// One mapping for all, for addresses that something was sent to.
    Restricted,
    /// Masquerade that keeps ports where it can: one mapping for all, filtered by address and port.
    PortRestricted,
    /// Masquerade with a random port for each destination.
    Symmetric,
}

/// The internet: one link that everybody with a public address is on.
pub struct Internet {
    link: Host,
    routers: Vec<Host>,
}

impl Internet {
    /// An internet that nobody is on yet; `None`, and the reason printed, where this can't be.
    pub fn new() -> Option<Self> {
        if let Err(reason) = possible() {
            println!("SKIPPED: {reason}");
            return None;
        }
        let link = Host::new("internet");
        link.run("ip link add br0 type bridge\nip link set br0 up");
        Some(Self { link, routers: Vec::new() })
    }

    /// A host with a public address.
    pub fn public(&self, name: &str, number: u8) -> Host {
        let host = Host::new(name);
        self.join(&host, number);
        host
    }

    /// A host behind a router of its own. Every home has the same addresses inside, as homes do.
    pub fn home(&mut self, name: &str, number: u8, nat: Nat) -> Host {
        if nat == Nat::Public {
            return self.public(name, number);
        }
        let router = Host::new(&format!("router of {name}"));
        self.join(&router, number);
        let home = Host::new(name);
        let (inside, outside) = (home.pid(), router.pid());
        router.run(&format!(
            "ip link add lan netns {outside} type veth peer name eth0 netns {inside}\n\
             ip addr add 192.168.1.1/24 dev lan\nip link set lan up\n\
             echo 1 > /proc/sys/net/ipv4/ip_forward"
        ));
        home.run(
            "ip addr add 192.168.1.2/24 dev eth0\nip link set eth0 up\n\
             ip route add default via 192.168.1.1",
        );
        router.run(&format!("nft -f - <<END\n{}END", nat.rules()));
        self.routers.push(router);
        home
    }

    /// The router of the home that came last.
    pub fn last_router(&self) -> &Host {
        self.routers.last().expect("a home has a router")
    }

    /// Cuts the link of a public host or a home without a word to anybody, or mends it.
    pub fn set_link(&self, number: u8, up: bool) {
        let state = if up { "up" } else { "down" };
        self.link.run(&format!("ip link set h{number} {state}"));
    }

    fn join(&self, host: &Host, number: u8) {
        let (here, there) = (self.link.pid(), host.pid());
        self.link.run(&format!(
            "ip link add h{number} netns {here} type veth peer name wan netns {there}\n\
             ip link set h{number} master br0 up"
        ));
        host.run(&format!(
            "ip addr add 198.51.100.{number}/24 dev wan\n\
             ip addr add 2001:db8::{number}/64 dev wan nodad\nip link set wan up"
        ));
    }
}

/// Why not, if not.
fn possible() -> Result<(), String> {
    let uid = Command::new("id").arg("-u").output().map_err(|error| error.to_string())?;
    if uid.stdout.trim_ascii() != b"0" {
        return Err("network namespaces need root".into());
    }
    for tool in ["unshare", "nsenter", "ip", "nft"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Err(format!("this machine has no {tool}"));
        }
    }
    let try_it = Command::new("unshare")
        .args(["--net", "nft", "add", "table", "ip", "nat"])
        .output()
        .map_err(|error| error.to_string())?;
    if !try_it.status.success() {
        let said = String::from_utf8_lossy(&try_it.stderr);
        return Err(format!("no namespaces or no NAT here: {}", said.trim()));
    }
    Ok(())
}
