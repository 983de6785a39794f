//! Checks of the machine: keys, clock, GStreamer, players.
//!
//! Owns no state and changes none.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use astral_pipelines::Purpose;

use super::Check;
use crate::{cli::folders, config::Settings};

/// The first of June 2026: this program is not older, so a clock that is earlier is wrong.
const NOT_BEFORE_UNIX: u64 = 1_780_272_000;
/// Ten years later: a clock beyond it is more likely wrong than right.
const NOT_AFTER_UNIX: u64 = NOT_BEFORE_UNIX + 10 * 365 * 24 * 3_600;
/// Where systemd notes that the clock was set by the network.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
/// Programs that open an HTTP-FLV or RTMP address.
const PLAYERS: [&str; 4] = ["vlc", "mpv", "ffplay", "gst-play-1.0"];
/// Programs that show the web page.
const BROWSERS: [&str; 6] =
    ["chromium", "google-chrome", "firefox", "firefox-esr", "microsoft-edge", "brave-browser"];

/// Where `astral run` with these settings keeps its keys; `None` for a node that keeps nothing.
pub fn data_dir(settings: &Settings) -> Option<PathBuf> {
    if settings.ephemeral {
        return None;
    }
    settings.data_dir.clone().or_else(|| Some(folders::base().ok()?.join("run")))
}

/// The folder with the node's keys.
pub fn identity(folder: Option<&Path>) -> Check {
    let name = "identity";
    let Some(folder) = folder else {
        return Check::ok(name, "new at every start (--ephemeral)");
    };
    let shown = folder.display();
    match fs::metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok(name, format!("none yet; the first start makes one in {shown}"))
        }
        Err(error) => Check::bad(
            name,
            format!("{shown}: {error}"),
            "make the folder readable, or use --data-dir",
        ),
        Ok(found) if !found.is_dir() => {
            Check::bad(name, format!("{shown} is no folder"), "remove it, or use --data-dir")
        }
        Ok(found) if found.permissions().readonly() => Check::bad(
            name,
            format!("{shown} can't be written"),
            "make it writable, or use --data-dir",
        ),
        Ok(found) if is_open(&found) => Check::warn(
            name,
            format!("{shown}: other users may look into it"),
            format!("chmod 700 {shown}"),
        ),
        Ok(_) => Check::ok(name, format!("in {shown}")),
    }
}

#[cfg(unix)]
fn is_open(folder: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    folder.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open(_folder: &fs::Metadata) -> bool {
    false
}

/// The clock: certificates and announcements expire by it.
pub fn clock() -> Check {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    clock_at(now, Path::new(SYNCHRONISED).exists())
}

fn clock_at(now: u64, synchronised: bool) -> Check {
    let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + std::time::Duration::from_secs(now));
    if !(NOT_BEFORE_UNIX..NOT_AFTER_UNIX).contains(&now) {
        let fix = "set the clock (timedatectl set-ntp true): streams of others look expired";
        return Check::bad("clock", format!("it says {date}"), fix);
    }
    let how = if synchronised { ", set by the network" } else { "" };
    Check::ok("clock", format!("{date}{how}; it may be wrong by minutes"))
}

/// GStreamer and its elements.
pub fn elements() -> Vec<Check> {
    match astral_pipelines::inventory() {
        Ok(purposes) => purposes.iter().map(element).collect(),
        Err(error) => {
            let fix = "make packages installs GStreamer; networks and seeding work without it";
            vec![Check::bad("gstreamer", error.to_string(), fix)]
        }
    }
}

fn element(purpose: &Purpose) -> Check {
    let name = format!("gstreamer, {}", purpose.what);
    if purpose.is_met() {
        return Check::ok(name, purpose.found.join(", "));
    }
    let missing: Vec<&str> = purpose.missing.iter().map(|missing| missing.element).collect();
    let mut fixes: Vec<&str> =
        purpose.missing.iter().map(|missing| missing.install.as_str()).collect();
    fixes.dedup();
    let (message, fix) = (format!("{} is missing", missing.join(", ")), fixes.join("; "));
    if purpose.essential { Check::bad(name, message, fix) } else { Check::warn(name, message, fix) }
}

/// Programs that play what a node offers.
pub fn players() -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = |name: &&&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let found: Vec<&str> = PLAYERS.iter().chain(&BROWSERS).filter(is_here).copied().collect();
    if found.is_empty() {
        let fix = "install vlc, mpv or a browser; `astral play` opens a window of its own";
        return Check::warn("players", "no player and no browser is found", fix);
    }
    Check::ok("players", found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn a_clock_of_another_decade_is_bad_and_one_of_today_is_not() {
        assert_eq!(clock_at(0, true).verdict, Verdict::Bad);
        assert_eq!(clock_at(NOT_BEFORE_UNIX + 5, false).verdict, Verdict::Ok);
        assert_eq!(clock_at(u64::from(u32::MAX), true).verdict, Verdict::Bad);
    }

    #[test]
    fn a_folder_that_is_none_or_is_open_to_others_is_named_with_the_remedy() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(identity(Some(&file)).verdict, Verdict::Bad);
        assert_eq!(identity(Some(&scratch.path().join("none"))).verdict, Verdict::Ok);
        let open = scratch.path().join("open");
        fs::create_dir(&open).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let check = identity(Some(&open));
        assert!(check.fix.unwrap().contains("chmod 700"));
    }

    #[test]
    fn a_missing_element_says_what_to_install() {
        let missing = astral_pipelines::Missing {
            element: "x264enc",
            package: "gstreamer1.0-plugins-ugly",
            install: "install it with: sudo apt-get install gstreamer1.0-plugins-ugly".into(),
        };
        let purpose = Purpose {
            what: "encoding video",
            essential: true,
            found: Vec::new(),
            missing: vec![missing.clone(), missing],
        };
        let check = element(&purpose);
        assert_eq!(check.verdict, Verdict::Bad);
        assert_eq!(check.fix.unwrap().matches("apt-get").count(), 1);
    }
}
