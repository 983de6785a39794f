//! Whether a window can open here.
//!
//! Owns the question to the display itself: a variable alone says nothing about what is behind it.
//! Does not own the window.

use std::{
    ffi::OsString,
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where X servers listen for programs of their own machine.
const X11_FOLDER: &str = "/tmp/.X11-unix";
/// TCP port of the X display 0; the others follow.
const X11_PORT: u16 = 6_000;
/// How long a display of another machine (or one forwarded by ssh) may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Whether a display is named that answers; otherwise why not.
pub(crate) fn check() -> Result<(), String> {
    if cfg!(target_os = "macos") {
        return Ok(());
    }
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let (wayland, x11) = (given("WAYLAND_DISPLAY"), given("DISPLAY"));
    if wayland.is_none() && x11.is_none() {
        return Err("neither DISPLAY nor WAYLAND_DISPLAY is set".to_owned());
    }
    let mut silent = Vec::new();
    if let Some(name) = wayland {
        if answers(&wayland_socket(&name, given("XDG_RUNTIME_DIR"))) {
            return Ok(());
        }
        silent.push(format!("WAYLAND_DISPLAY={}", name.display()));
    }
    if let Some(name) = x11 {
        if name.to_str().is_some_and(x11_answers) {
            return Ok(());
        }
        silent.push(format!("DISPLAY={}", name.display()));
    }
    Err(format!("nothing answers at {}", silent.join(" nor at ")))
}

fn wayland_socket(name: &OsString, runtime: Option<OsString>) -> PathBuf {
    // An absolute name replaces the folder.
    PathBuf::from(runtime.unwrap_or_default()).join(name)
}

/// `[HOST]:DISPLAY[.SCREEN]`.
fn x11_answers(display: &str) -> bool {
    let Some((host, rest)) = display.rsplit_once(':') else { return false };
    let number = rest.split('.').next().unwrap_or_default();
    let Ok(number) = number.parse::<u16>() else { return false };
    if host.is_empty() || host == "unix" {
        let path = format!("{X11_FOLDER}/X{number}");
        return answers(Path::new(&path)) || abstract_answers(&path);
    }
    let Some(port) = X11_PORT.checked_add(number) else { return false };
    let addresses = (host, port).to_socket_addrs();
    addresses.is_ok_and(|mut all| all.any(|at| TcpStream::connect_timeout(&at, ANSWER).is_ok()))
}

fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

#[cfg(target_os = "linux")]
fn abstract_answers(name: &str) -> bool {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
    SocketAddr::from_abstract_name(name)
        .is_ok_and(|address| UnixStream::connect_addr(&address).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn abstract_answers(_name: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_display_that_nobody_serves_does_not_answer() {
        for display in [":59077", ":59077.0", "unix:59077", "nonsense", ":x", "localhost:65000"] {
            assert!(!x11_answers(display), "{display}");
        }
    }

    #[test]
    fn a_display_that_listens_answers() {
        let folder = std::env::temp_dir().join(format!("astral-display-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = wayland_socket(&"wayland-7".into(), Some(folder.clone().into()));
        assert!(!answers(&socket));
        let _server = UnixListener::bind(&socket).unwrap();
        assert!(answers(&socket));
        assert_eq!(wayland_socket(&"/run/w".into(), None), Path::new("/run/w"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
