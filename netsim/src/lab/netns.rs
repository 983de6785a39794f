//! Network namespaces that live as long as the lab.
//!
//! Owns the process that holds each namespace, its one device and route. It ends when its standard
//! input closes, which the system does however the lab ends, so that nothing is left behind; nothing
//! outside of these namespaces is touched. Does not own what runs in them.

use std::{
    fs::File,
    io::Write,
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Longest packet; the usual one.
const MTU: u16 = 1_500;
/// A process needs so long at most to enter its namespace.
const ENTER_MAX: Duration = Duration::from_secs(10);

/// A network namespace with one device, `wan`, whose packets the lab reads and writes.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

/// Says why there can be no lab here.
///
/// # Errors
/// What is missing, and what to do.
pub fn check() -> anyhow::Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the lab needs root: sudo netsim lab ...");
    File::options().read(true).write(true).open("/dev/net/tun").context(
        "the lab needs /dev/net/tun: modprobe tun, or --device /dev/net/tun for a container",
    )?;
    for tool in ["unshare", "nsenter", "setpriv", "chrt", "ip"] {
        let said = Command::new(tool).arg("-V").output();
        ensure!(said.is_ok(), "the lab needs {tool}: apt install util-linux iproute2");
    }
    Ok(())
}

impl Namespace {
    /// A new namespace and its device, with this address. Everything goes out by the device.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(addr: Ipv4Addr) -> anyhow::Result<(Self, SyncDevice)> {
        let holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start unshare")?;
        let space = Self { holder };
        space.wait_until_inside()?;
        let device = space.inside(|| {
            let device = DeviceBuilder::new().name("wan").mtu(MTU).enable(false).build_sync()?;
            device.set_nonblocking(true)?;
            Ok(device)
        })?;
        space.run(&format!(
            "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 || true\n\
             ip link set lo up\nip addr add {addr}/32 dev wan\nip link set wan up\n\
             ip route add default dev wan\n"
        ))?;
        Ok((space, device))
    }

    /// What a command is started with to run here, and to be gone when the lab is.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        let pid = self.holder.id().to_string();
        let words = ["nsenter", "--target", &pid, "--net", "--", "setpriv", "--pdeathsig", "KILL"];
        words.map(str::to_owned).to_vec()
    }

    /// Runs something on a thread of this namespace, such as the opening of a socket.
    ///
    /// # Errors
    /// What it says, or that the namespace can't be entered.
    pub fn inside<T: Send>(
        &self,
        act: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let space = File::open(format!("/proc/{}/ns/net", self.holder.id()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
                act()
            });
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread panicked")))
        })
        .context("in a namespace of the lab")
    }

    fn run(&self, script: &str) -> anyhow::Result<()> {
        let mut enter = self.enter();
        enter.extend(["sh", "-e"].map(str::to_owned));
        let mut shell = Command::new(&enter[0])
            .args(&enter[1..])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = shell.stdin.take() {
            input.write_all(script.as_bytes())?;
        }
        let output = shell.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "setting up a namespace: {said}");
        Ok(())
    }

    /// Until then the process is still in our own namespace.
    fn wait_until_inside(&self) -> anyhow::Result<()> {
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let deadline = Instant::now() + ENTER_MAX;
        let link = format!("/proc/{}/ns/net", self.holder.id());
        while std::fs::read_link(&link).is_ok_and(|space| space == own) {
            if Instant::now() > deadline {
                bail!("no network namespace within {ENTER_MAX:?}");
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
