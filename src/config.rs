//! Settings of a node: defaults, then a TOML file, then `ASTRAL_*` variables, then flags.
//!
//! Owns the flags every node-running command shares, the file format and their merge. Does not own
//! what a command does with them.

mod picture;
mod portal;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use astral_core::units::Bitrate;
use clap::{Args, ValueEnum};
use serde::Deserialize;

pub use self::{
    picture::{Fps, Picture, PictureRate, Size},
    portal::{Portal, PortalError},
};

/// Where the local API listens unless told otherwise.
pub const DEFAULT_API: SocketAddr = SocketAddr::new(LOOPBACK, 8000);
/// Where RTMP encoders connect unless told otherwise.
pub const DEFAULT_RTMP: SocketAddr = SocketAddr::new(LOOPBACK, 1935);
/// Where encoders connect inside TLS when nothing else is said.
pub const DEFAULT_RTMPS: SocketAddr = SocketAddr::new(LOOPBACK, 1936);
const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Variables that begin with `ASTRAL_` and are no settings.
const OTHER_VARIABLES: [&str; 2] = ["ASTRAL_LOG", "ASTRAL_TEST_PANIC"];

/// How progress and warnings are written to stderr.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which part a node plays in the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Member; supernode when none has room and this node can be reached.
    #[default]
    Auto,
    /// Always a supernode.
    Supernode,
    /// Never a supernode.
    Member,
}

/// What a node has to do with relays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Relay {
    /// Is reached through relays while it can't be dialled; relays for others while it can be.
    #[default]
    On,
    /// Is reached through relays, and never relays for others.
    Use,
    /// Neither: behind a NAT only nodes that it dials itself can be reached.
    Off,
}

/// Less than this is a unit that was forgotten, not a rate: no line is so slow. Zero forwards nothing.
const UPLINK_MIN_BPS: u64 = 1_000;

/// An upload limit: a rate, or `auto`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uplink(pub Option<Bitrate>);

impl std::str::FromStr for Uplink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self(None));
        }
        let rate: Bitrate = text.parse().map_err(|e| format!("{e}, or auto"))?;
        if (1..UPLINK_MIN_BPS).contains(&rate.as_bps()) {
            let bits = rate.as_bps();
            return Err(format!("'{text}' is {bits} bits a second: write {text}Mbit, or auto"));
        }
        Ok(Self(Some(rate)))
    }
}

impl<'de> Deserialize<'de> for Uplink {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Flags of every command that runs a node. An absent flag never overrides the file.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Node")]
pub struct NodeArgs {
    /// Settings file (TOML; the keys are the long flags with underscores)
    #[arg(long, env = "ASTRAL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where keys and state live [default: the user's data folder, /astral]
    #[arg(long, env = "ASTRAL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep nothing: a new identity in a folder that is removed at the end
    #[arg(long, env = "ASTRAL_EPHEMERAL", num_args = 0..=1, default_missing_value = "true")]
    pub ephemeral: Option<bool>,
    /// Address to listen on for other nodes; may be given several times [default: TCP and QUIC on
    /// port 4001, or a free port when that is taken]
    #[arg(long, env = "ASTRAL_LISTEN", value_name = "MULTIADDR", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// A node of the network to join: a multiaddr ending in /p2p/<id>, a file with one a line, or
    /// the URL of a portal, which lists some; may be given several times. Without any, the node founds a network and looks around by mDNS
    #[arg(
        long,
        env = "ASTRAL_BOOTSTRAP",
        value_name = "MULTIADDR|FILE|URL",
        value_delimiter = ','
    )]
    pub bootstrap: Vec<String>,
    /// Upload limit, a hard ceiling that counts everything this node sends, such as 20Mbit or
    /// 150KB/s, or auto
    #[arg(long, env = "ASTRAL_UPLINK", value_name = "RATE|auto")]
    pub uplink: Option<Uplink>,
    /// Forward at most this many copies of one stream (0: forward nothing)
    #[arg(long, env = "ASTRAL_MAX_COPIES", value_name = "N")]
    pub max_copies: Option<u32>,
    /// Forward at most this many copies of all streams together
    #[arg(long, env = "ASTRAL_MAX_TOTAL_COPIES", value_name = "N")]
    pub max_total_copies: Option<u32>,
    /// Local API and HTTP-FLV address; port 0 takes any free port [default: 127.0.0.1:8000]
    #[arg(long, env = "ASTRAL_API", value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    /// Let other machines use the API, with the token: needed for an --api address that is not of
    /// this machine alone
    #[arg(long, env = "ASTRAL_API_REMOTE", num_args = 0..=1, default_missing_value = "true")]
    pub api_remote: Option<bool>,
    /// A further host name that the API answers to, such as a proxy's (NAME or NAME:PORT); may be
    /// given several times
    #[arg(long, env = "ASTRAL_API_HOST", value_name = "HOST", value_delimiter = ',')]
    pub api_host: Vec<String>,
    /// A web site whose pages may use the API, with the token (https://NAME); may be given several
    /// times
    #[arg(long, env = "ASTRAL_API_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub api_origin: Vec<String>,
    /// Where recordings go that the page or `astral ctl` starts [default: recordings in the data
    /// directory; none with --ephemeral]
    #[arg(long, env = "ASTRAL_RECORDINGS", value_name = "DIR")]
    pub recordings: Option<PathBuf>,
    /// Local RTMP address for encoders; port 0 takes any free port [default: 127.0.0.1:1935]
    #[arg(long, env = "ASTRAL_RTMP", value_name = "ADDR")]
    pub rtmp: Option<SocketAddr>,
    /// Address where encoders connect by RTMP inside TLS, with --rtmps-cert [default: 127.0.0.1:1936]
    #[arg(long, env = "ASTRAL_RTMPS", value_name = "ADDR")]
    pub rtmps: Option<SocketAddr>,
    /// Certificate chain for RTMPS, PEM; without one there is no RTMPS
    #[arg(long, env = "ASTRAL_RTMPS_CERT", value_name = "FILE")]
    pub rtmps_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, env = "ASTRAL_RTMPS_KEY", value_name = "FILE")]
    pub rtmps_key: Option<PathBuf>,
    /// Part in the network
    #[arg(long, env = "ASTRAL_ROLE", value_enum)]
    pub role: Option<Role>,
    /// Members this node takes when it is a supernode [default: 100]
    #[arg(long, env = "ASTRAL_MEMBERS_MAX", value_name = "N")]
    pub members_max: Option<u32>,
    /// Look for nodes on the local network by mDNS [default: true]
    #[arg(long, env = "ASTRAL_MDNS", value_name = "BOOL")]
    pub mdns: Option<bool>,
    /// Ask the router to forward the port (UPnP) [default: true]
    #[arg(long, env = "ASTRAL_UPNP", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub upnp: Option<bool>,
    /// The same as --upnp false
    #[arg(long, conflicts_with = "upnp")]
    pub no_upnp: bool,
    /// Have other nodes test which of this node's addresses can be dialled, and test theirs
    /// (AutoNAT) [default: true]
    #[arg(long, env = "ASTRAL_AUTONAT", value_name = "BOOL")]
    pub autonat: Option<bool>,
    /// Connect through NATs by hole punching (DCUtR) [default: true]
    #[arg(long, env = "ASTRAL_HOLE_PUNCHING", value_name = "BOOL")]
    pub hole_punching: Option<bool>,
    /// Relays: on = be reached through them when behind a NAT, relay for others when not; use =
    /// never relay for others; off = neither
    #[arg(long, env = "ASTRAL_RELAY", value_enum)]
    pub relay: Option<Relay>,
    /// Mean rate of each connection that this node relays, at most [default: 4Mbit]; with --uplink
    /// all of them together get a quarter of that
    #[arg(long, env = "ASTRAL_RELAY_RATE", value_name = "RATE")]
    pub relay_rate: Option<Bitrate>,
    /// Connections that this node relays at once [default: 16]
    #[arg(long, env = "ASTRAL_RELAY_CIRCUITS", value_name = "N")]
    pub relay_circuits: Option<u32>,
    /// An address outside the local network that your router forwards to this node; may be given
    /// several times
    #[arg(long, env = "ASTRAL_EXTERNAL", value_name = "MULTIADDR", value_delimiter = ',')]
    pub external: Vec<String>,
    /// Speak with one supernode alone, the first --bootstrap: no other node learns this one's
    /// address. The stream takes one hop more, and nothing is forwarded
    #[arg(long, env = "ASTRAL_PRIVACY", num_args = 0..=1, default_missing_value = "true")]
    pub privacy: Option<bool>,
    /// Streams that this node carries, while a supernode, for members in privacy mode [default: 4]
    #[arg(long, env = "ASTRAL_PRIVATE_STREAMS", value_name = "N")]
    pub private_streams: Option<u32>,
    /// Write every input of the overlay with its time to this file; `netsim replay --journal FILE`
    /// runs them again. It is as private as a log
    #[arg(long, env = "ASTRAL_JOURNAL", value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Print one JSON object per line on stdout: first "ready", then events
    #[arg(long, env = "ASTRAL_JSON", num_args = 0..=1, default_missing_value = "true")]
    pub json: Option<bool>,
    /// How the log on stderr is written
    #[arg(long, env = "ASTRAL_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

/// The same settings as a file writes them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileSettings {
    data_dir: Option<PathBuf>,
    ephemeral: Option<bool>,
    listen: Vec<String>,
    bootstrap: Vec<String>,
    uplink: Option<Uplink>,
    max_copies: Option<u32>,
    max_total_copies: Option<u32>,
    api: Option<SocketAddr>,
    api_remote: Option<bool>,
    api_host: Vec<String>,
    api_origin: Vec<String>,
    recordings: Option<PathBuf>,
    rtmp: Option<SocketAddr>,
    rtmps: Option<SocketAddr>,
    rtmps_cert: Option<PathBuf>,
    rtmps_key: Option<PathBuf>,
    role: Option<Role>,
    members_max: Option<u32>,
    mdns: Option<bool>,
    upnp: Option<bool>,
    autonat: Option<bool>,
    hole_punching: Option<bool>,
    relay: Option<Relay>,
    relay_rate: Option<Bitrate>,
    relay_circuits: Option<u32>,
    external: Vec<String>,
    privacy: Option<bool>,
    private_streams: Option<u32>,
    journal: Option<PathBuf>,
    json: Option<bool>,
    log_format: Option<LogFormat>,
    size: Option<Size>,
    fps: Option<Fps>,
    bitrate: Option<PictureRate>,
    portal: Option<SocketAddr>,
    portal_name: Vec<String>,
    portal_viewers: Option<usize>,
    portal_cert: Option<PathBuf>,
    portal_key: Option<PathBuf>,
    portal_proxy: Option<bool>,
}

/// An address to listen on, and whether another port will do when it is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalAddr {
    /// The address.
    pub addr: SocketAddr,
    /// True for a default: a taken port then moves to a free one.
    pub movable: bool,
}

/// Settled settings; nothing is checked again after this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where keys and state live; `None` for the default folder.
    pub data_dir: Option<PathBuf>,
    /// New identity, nothing kept.
    pub ephemeral: bool,
    /// Multiaddrs to listen on; empty for TCP and QUIC on the default port.
    pub listen: Vec<String>,
    /// Multiaddrs of the nodes to join through, and URLs of portals.
    pub bootstrap: Vec<String>,
    /// Upload ceiling; `None` is measured.
    pub uplink: Option<Bitrate>,
    /// Copies of one stream this node forwards at most.
    pub max_copies: Option<u32>,
    /// Copies of all streams this node forwards at most.
    pub max_total_copies: Option<u32>,
    /// Where the local API listens.
    pub api: LocalAddr,
    /// Other machines may use the API.
    pub api_remote: bool,
    /// Further names that the API answers to.
    pub api_host: Vec<String>,
    /// Web sites whose pages may use the API.
    pub api_origin: Vec<String>,
    /// Where recordings go; `None` for the data directory.
    pub recordings: Option<PathBuf>,
    /// Where RTMP encoders connect.
    pub rtmp: LocalAddr,
    /// Where they connect inside TLS, if there is a certificate.
    pub rtmps: LocalAddr,
    /// Certificate chain and private key for RTMPS.
    pub rtmps_certificate: Option<(PathBuf, PathBuf)>,
    /// Part in the network.
    pub role: Role,
    /// Members taken as a supernode.
    pub members_max: u32,
    /// Whether mDNS is on.
    pub mdns: bool,
    /// Whether the router is asked to forward the port.
    pub upnp: bool,
    /// Whether own addresses are tested.
    pub autonat: bool,
    /// Whether holes are punched.
    pub hole_punching: bool,
    /// What to do with relays.
    pub relay: Relay,
    /// Mean rate of a relayed connection.
    pub relay_rate: Option<Bitrate>,
    /// Connections relayed at once.
    pub relay_circuits: Option<u32>,
    /// Multiaddrs that a router forwards here.
    pub external: Vec<String>,
    /// Speaks with one supernode alone.
    pub privacy: bool,
    /// Streams carried for members in privacy mode.
    pub private_streams: Option<u32>,
    /// Where the overlay's inputs are written down.
    pub journal: Option<PathBuf>,
    /// JSON events on stdout.
    pub json: bool,
    /// Log format on stderr.
    pub log_format: LogFormat,
    /// What the settings file says of the picture that `publish` encodes.
    pub picture: Picture,
    /// What it says of the portal that `run` opens.
    pub portal: Portal,
}

impl NodeArgs {
    /// Merges defaults, the settings file, the environment (read by clap) and the flags.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and what to change in it.
    pub fn settle(self) -> Result<Settings, ConfigError> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => FileSettings::default(),
        };
        let list =
            |flags: Vec<String>, file: Vec<String>| if flags.is_empty() { file } else { flags };
        let privacy = self.privacy.or(file.privacy).unwrap_or(false);
        let bootstrap = expand(list(self.bootstrap, file.bootstrap))?;
        if privacy && bootstrap.is_empty() {
            return Err(ConfigError::Privacy);
        }
        let rtmps = self.rtmps.or(file.rtmps);
        let certificate = (self.rtmps_cert.or(file.rtmps_cert), self.rtmps_key.or(file.rtmps_key));
        let rtmps_certificate = match certificate {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) if rtmps.is_none() => None,
            _ => return Err(ConfigError::Certificate),
        };
        Ok(Settings {
            data_dir: self.data_dir.or(file.data_dir),
            ephemeral: self.ephemeral.or(file.ephemeral).unwrap_or(false),
            listen: list(self.listen, file.listen),
            bootstrap,
            uplink: self.uplink.or(file.uplink).and_then(|uplink| uplink.0),
            max_copies: self.max_copies.or(file.max_copies),
            max_total_copies: self.max_total_copies.or(file.max_total_copies),
            api: local(self.api.or(file.api), DEFAULT_API),
            api_remote: self.api_remote.or(file.api_remote).unwrap_or(false),
            api_host: list(self.api_host, file.api_host),
            api_origin: list(self.api_origin, file.api_origin),
            recordings: self.recordings.or(file.recordings),
            rtmp: local(self.rtmp.or(file.rtmp), DEFAULT_RTMP),
            rtmps: local(rtmps, DEFAULT_RTMPS),
            rtmps_certificate,
            role: self.role.or(file.role).unwrap_or_default(),
            members_max: self.members_max.or(file.members_max).unwrap_or(100),
            mdns: self.mdns.or(file.mdns).unwrap_or(true),
            upnp: if self.no_upnp { false } else { self.upnp.or(file.upnp).unwrap_or(true) },
            autonat: self.autonat.or(file.autonat).unwrap_or(true),
            hole_punching: self.hole_punching.or(file.hole_punching).unwrap_or(true),
            relay: self.relay.or(file.relay).unwrap_or_default(),
            relay_rate: self.relay_rate.or(file.relay_rate),
            relay_circuits: self.relay_circuits.or(file.relay_circuits),
            external: list(self.external, file.external),
            privacy,
            private_streams: self.private_streams.or(file.private_streams),
            journal: self.journal.or(file.journal),
            json: self.json.or(file.json).unwrap_or(false),
            log_format: self.log_format.or(file.log_format).unwrap_or_default(),
            picture: Picture { size: file.size, fps: file.fps, bitrate: file.bitrate },
            portal: Portal {
                portal: file.portal,
                portal_name: file.portal_name,
                portal_viewers: file.portal_viewers,
                portal_cert: file.portal_cert,
                portal_key: file.portal_key,
                portal_proxy: file.portal_proxy,
            },
        })
    }
}

/// Refuses `ASTRAL_*` variables that no flag reads, so that a typo never goes unnoticed.
///
/// # Errors
/// [`ConfigError::Variable`] names the first unknown one.
pub fn check_environment(
    names: impl IntoIterator<Item = String>,
    known: &BTreeSet<String>,
) -> Result<(), ConfigError> {
    names
        .into_iter()
        .filter(|name| name.starts_with("ASTRAL_"))
        .find(|name| !known.contains(name) && !OTHER_VARIABLES.contains(&name.as_str()))
        .map_or(Ok(()), |name| Err(ConfigError::Variable { name }))
}

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The settings file or a bootstrap list can't be read.
    #[error("can't read {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The settings file has a mistake.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, key and what is accepted there.
        message: String,
    },
    /// A bootstrap entry is neither an address nor a file.
    #[error(
        "--bootstrap {entry}: neither a multiaddr (such as /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...) \
         nor a file with one a line, nor the http(s):// URL of a portal; `astral run` prints the addresses of a node"
    )]
    Bootstrap {
        /// What was given.
        entry: String,
    },
    /// Privacy without a supernode to rely on.
    #[error("--privacy needs the supernode that is to know this node's address: --bootstrap ADDR")]
    Privacy,
    /// RTMPS without all that it needs.
    #[error("RTMPS needs both --rtmps-cert FILE and --rtmps-key FILE")]
    Certificate,
    /// A variable that no setting reads.
    #[error("the environment has {name}, which no setting reads; `astral run --help` lists them")]
    Variable {
        /// Its name.
        name: String,
    },
}

fn local(given: Option<SocketAddr>, default: SocketAddr) -> LocalAddr {
    LocalAddr { addr: given.unwrap_or(default), movable: given.is_none() }
}

fn read(path: &Path) -> Result<FileSettings, ConfigError> {
    let text = read_text(path)?;
    toml::from_str(&text)
        .map_err(|e| ConfigError::Invalid { path: path.into(), message: e.to_string() })
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.into(), source })
}

/// Whether a bootstrap entry is the URL of a portal, whose list is fetched when the node starts.
#[must_use]
pub fn is_portal(entry: &str) -> bool {
    entry.starts_with("https://") || entry.starts_with("http://")
}

/// Replaces files by the addresses they list.
fn expand(entries: Vec<String>) -> Result<Vec<String>, ConfigError> {
    let mut addresses = Vec::new();
    for entry in entries {
        let is_address = entry.contains("/p2p/") && entry.starts_with('/');
        if is_portal(&entry) || (is_address && !Path::new(&entry).exists()) {
            addresses.push(entry);
        } else if Path::new(&entry).is_file() {
            let text = read_text(Path::new(&entry))?;
            let lines = text.lines().map(str::trim);
            addresses
                .extend(lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned));
        } else {
            return Err(ConfigError::Bootstrap { entry });
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        node: NodeArgs,
    }

    fn settle(args: &[&str]) -> Result<Settings, ConfigError> {
        Cli::parse_from(std::iter::once("astral").chain(args.iter().copied())).node.settle()
    }

    fn file(text: &str) -> tempfile::TempPath {
        let file = tempfile::Builder::new().prefix("astral-config").tempfile().unwrap();
        fs::write(&file, text).unwrap();
        file.into_temp_path()
    }

    #[test]
    fn a_flag_beats_the_file_and_an_absent_flag_never_does() {
        let path = file("uplink = \"5Mbit\"\nmax_copies = 3\nmdns = false\n");
        let path = path.to_str().unwrap();
        let settings = settle(&["--config", path, "--uplink", "750kbit"]).unwrap();
        assert_eq!(settings.uplink, Some(Bitrate::from_kbps(750)));
        assert_eq!(settings.max_copies, Some(3));
        assert!(!settings.mdns);
    }

    #[test]
    fn an_uplink_whose_unit_was_forgotten_is_told_how_to_write_it() {
        let said = "20".parse::<Uplink>().unwrap_err();
        assert!(said.contains("20Mbit"), "{said}");
        assert_eq!("0".parse(), Ok(Uplink(Some(Bitrate::from_bps(0)))));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_file_and_the_key() {
        let path = file("upload = \"5Mbit\"\n");
        let error = settle(&["--config", path.to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("upload") && error.contains("astral-config"), "{error}");
    }

    #[test]
    fn the_file_says_what_publish_encodes_unless_a_flag_does() {
        let path = file("size = \"640x360\"\nfps = 25\nbitrate = \"900kbit\"\n");
        let picture = settle(&["--config", path.to_str().unwrap()]).unwrap().picture;
        assert_eq!((picture.size(), picture.fps()), ((640, 360), 25));
        assert_eq!(picture.bitrate(), Bitrate::from_kbps(900));
        let flags = Picture { fps: "50".parse().ok(), ..Picture::default() };
        assert_eq!((flags.or(picture).size(), flags.or(picture).fps()), ((640, 360), 50));
        let path = file("bitrate = \"0\"\n");
        let error = settle(&["--config", path.to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("16kbit"), "{error}");
    }

    #[test]
    fn the_file_may_say_what_the_public_is_shown() {
        let text = "portal = \"0.0.0.0:8080\"\nportal_name = [\"tv.example\"]\nportal_viewers = 3\n\
                    portal_cert = \"chain.pem\"\nportal_key = \"key.pem\"\nportal_proxy = false\n";
        let path = file(text);
        let portal = settle(&["--config", path.to_str().unwrap()]).unwrap().portal;
        let flags = Portal { portal_viewers: Some(7), ..Portal::default() };
        let settled = flags.or(portal).unwrap();
        assert_eq!(settled.portal, "0.0.0.0:8080".parse().ok());
        assert_eq!(
            (settled.portal_name, settled.portal_viewers),
            (vec!["tv.example".into()], Some(7))
        );
        assert_eq!(settled.portal_key, Some("key.pem".into()));
    }

    #[test]
    fn an_unreadable_file_says_what_to_check() {
        let error = settle(&["--config", "/nonexistent/astral.toml"]).unwrap_err().to_string();
        assert!(error.contains("check the path"), "{error}");
    }

    #[test]
    fn a_bootstrap_file_lists_one_address_a_line() {
        let path = file("# ours\n/ip4/127.0.0.1/tcp/1/p2p/x\n\n");
        let settings = settle(&["--bootstrap", path.to_str().unwrap()]).unwrap();
        assert_eq!(settings.bootstrap, ["/ip4/127.0.0.1/tcp/1/p2p/x"]);
        assert!(settle(&["--bootstrap", "no-such-thing"]).is_err());
    }

    #[test]
    fn a_given_port_stays_and_a_default_may_move() {
        assert!(settle(&[]).unwrap().api.movable);
        assert!(!settle(&["--api", "127.0.0.1:9000"]).unwrap().api.movable);
    }

    #[test]
    fn a_mistyped_variable_is_refused() {
        let known = BTreeSet::from(["ASTRAL_UPLINK".to_owned()]);
        let names = |name: &str| vec!["PATH".to_owned(), name.to_owned()];
        assert!(check_environment(names("ASTRAL_UPLINK"), &known).is_ok());
        assert!(check_environment(names("ASTRAL_UPLIMK"), &known).is_err());
    }
}
