//! A network of the benchmark's own: nothing but a loopback with the MTU of an Ethernet, so that a
//! write costs what it costs on a real link, and nothing else on the machine is in the way.

use std::{env, os::unix::process::CommandExt, process::Command};

/// Set in the process that runs inside.
const INSIDE: &str = "BENCH_NAMESPACE";

/// Runs this program again inside a namespace of its own, where the system lets it; returns there.
/// Elsewhere it returns at once, after saying so.
pub fn enter() {
    if env::var_os(INSIDE).is_some() {
        return;
    }
    let exe = env::current_exe().expect("own path");
    let inside = "ip link set lo mtu 1500 && ip link set lo up && exec \"$0\" \"$@\"";
    let unshare = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(args).arg("--net");
        command
    };
    // Root may do without a user namespace, and keeps its rights then.
    for args in [&[][..], &["--user", "--map-root-user"]] {
        if unshare(args).arg("true").status().is_ok_and(|status| status.success()) {
            let mut command = unshare(args);
            command.args(["sh", "-c", inside]).arg(&exe).args(env::args_os().skip(1));
            let error = command.env(INSIDE, "1").exec();
            println!("no namespace ({error})");
        }
    }
    println!("on this machine's loopback: `unshare --net` is not allowed here");
}
