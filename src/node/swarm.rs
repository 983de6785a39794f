//! Transports and listeners.
//!
//! Owns how the swarm is built (TCP with Noise and Yamux, QUIC-v1, DNS, relays) and how listen
//! addresses are bound, including the move of a taken default port. Does not own the event loop.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::system_conf::read_system_conf;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder, Transport, core::transport::ListenerId, dns,
    futures::StreamExt, identity::Keypair, multiaddr::Protocol, noise, quic, swarm::SwarmEvent,
    tcp, yamux,
};
use socket2::{Domain, Socket, Type};
use tokio::time::{Instant, timeout_at};

use super::{
    behaviour::Behaviour,
    clock::Clock,
    coalesce::Coalescing,
    config::{DEFAULT_PORT, NodeConfig},
    drowsy::Drowsy,
    error::StartError,
    reach::is_link_local,
    toll::{Toll, Tolling},
};

/// Credit that a QUIC receiver grants one stream: with the library's 10 MB a slow child would pile
/// up seconds of media inside the sender (measured: 115 ms at 256 KiB on 20 Mbit/s).
const QUIC_STREAM_CREDIT: u32 = 512 * 1024;
/// Credit that a QUIC receiver grants one connection.
const QUIC_CONNECTION_CREDIT: u32 = 1024 * 1024;
/// A killed QUIC peer sends no reset: only this silence frees what it held. The library's 10 s is
/// longer than the ring, so that a dead child's slots would starve others beyond repair.
const QUIC_IDLE_MS: u32 = 5_000;
/// Several keepalives fit in the silence, so that a loaded machine loses no connection.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A connection without any stream that counts is closed after this.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
/// Setting up a connection takes at most this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Binding the listeners takes at most this.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds the swarm; nothing listens yet. Beside it what its circuits pay, which is nothing until a
/// limit is told.
///
/// # Errors
/// [`StartError::Transport`] when a transport or behaviour can't be built.
pub fn build(
    key: Keypair,
    config: &NodeConfig,
    clock: Clock,
) -> Result<(Swarm<Drowsy<Behaviour>>, Toll), StartError> {
    let toll = Toll::new(clock);
    let wrong = |reason: String| StartError::Transport { reason };
    // A small container may have no resolv.conf: addresses without names still work there.
    let (names, options) = read_system_conf().unwrap_or_else(|error| {
        tracing::warn!(%error, "no name servers: only numeric addresses can be dialled");
        (dns::ResolverConfig::default(), dns::ResolverOpts::default())
    });
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            |key: &Keypair| noise::Config::new(key).map(Coalescing),
            || Tolling(yamux::Config::default(), toll.clone()),
        )
        .map_err(|error| wrong(error.to_string()))?
        .with_other_transport(|key| {
            let mut config = quic::Config::new(key);
            config.max_stream_data = QUIC_STREAM_CREDIT;
            config.max_connection_data = QUIC_CONNECTION_CREDIT;
            config.keep_alive_interval = QUIC_KEEP_ALIVE;
            config.max_idle_timeout = QUIC_IDLE_MS;
            let toll = toll.clone();
            quic::tokio::Transport::new(config)
                .map(move |(peer, connection), _| (peer, toll.at(connection)))
        })
        .map_err(|error| match error {})?
        .with_dns_config(names, options)
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .map_err(|error| wrong(error.to_string()))?
        .with_behaviour(|key, circuits| Ok(Drowsy(Behaviour::new(key, circuits, config)?)))
        .map_err(|error| wrong(error.to_string()))?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(IDLE_CONNECTION))
        .with_connection_timeout(CONNECT_TIMEOUT)
        .build();
    Ok((swarm, toll))
}

/// Binds every configured address and waits until each has a real port.
///
/// # Errors
/// [`StartError::Listen`] names the address that can't be bound.
pub async fn listen(
    swarm: &mut Swarm<Drowsy<Behaviour>>,
    config: &NodeConfig,
) -> Result<Vec<Multiaddr>, StartError> {
    let mut waiting = Vec::new();
    if config.privacy {
        return Ok(Vec::new());
    }
    if config.listen.is_empty() {
        for addr in default_addrs(DEFAULT_PORT) {
            match bind(swarm, &addr).or_else(|_| bind(swarm, &any_port(&addr))) {
                Ok(id) => waiting.push((id, addr)),
                // Many hosts and containers have no IPv6 at all.
                Err(error) if is_any_ip6(&addr) => tracing::debug!(%error, "no IPv6"),
                Err(error) => return Err(error),
            }
        }
    }
    for addr in &config.listen {
        waiting.push((bind(swarm, addr)?, addr.clone()));
    }
    bound(swarm, waiting).await
}

fn bind(swarm: &mut Swarm<Drowsy<Behaviour>>, addr: &Multiaddr) -> Result<ListenerId, StartError> {
    // The TCP transport sets SO_REUSEPORT, with which two nodes of one user would share a port and
    // get each other's connections; and that of QUIC doesn't say why it can't listen. A plain bind
    // tells.
    if let Some((kind, at)) = socket_of(addr) {
        probe(kind, at).map_err(|error| refused(addr, error.to_string()))?;
    }
    swarm.listen_on(addr.clone()).map_err(|error| refused(addr, error.to_string()))
}

/// Takes the port for a moment, as a listener without SO_REUSEPORT does.
fn probe(kind: Type, at: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if at.is_ipv6() {
        // The wildcard would take IPv4 along and clash with our own listener.
        socket.set_only_v6(true)?;
    }
    if kind != Type::STREAM {
        return socket.bind(&at.into());
    }
    // A port on which connections of the last run still time out is free.
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(1)
}

async fn bound(
    swarm: &mut Swarm<Drowsy<Behaviour>>,
    mut waiting: Vec<(ListenerId, Multiaddr)>,
) -> Result<Vec<Multiaddr>, StartError> {
    let deadline = Instant::now() + LISTEN_TIMEOUT;
    let mut addrs = Vec::new();
    // A wildcard listener of IPv6 reports no address on a host that has none: not waited for.
    while waiting.iter().any(|(_, addr)| addrs.is_empty() || !is_any_ip6(addr)) {
        let Ok(event) = timeout_at(deadline, swarm.select_next_some()).await else {
            let late = waiting.first().map_or_else(Multiaddr::empty, |(_, addr)| addr.clone());
            return Err(refused(&late, "nothing listens there in time".to_owned()));
        };
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                waiting.retain(|(id, _)| *id != listener_id);
                if !is_link_local(&address) {
                    addrs.push(address);
                }
            }
            SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } => {
                let mut of_it = waiting.iter().filter(|(id, _)| *id == listener_id);
                if let Some((_, addr)) = of_it.find(|(_, addr)| !is_any_ip6(addr)) {
                    return Err(refused(addr, error.to_string()));
                }
            }
            // Nobody is connected yet; the event loop sees everything that comes later.
            _ => {}
        }
    }
    Ok(addrs)
}

/// The socket that listening on `addr` takes; `None` when it takes any free port.
fn socket_of(addr: &Multiaddr) -> Option<(Type, SocketAddr)> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) if port != 0 => Some((Type::STREAM, SocketAddr::new(ip, port))),
        Protocol::Udp(port) if port != 0 => Some((Type::DGRAM, SocketAddr::new(ip, port))),
        _ => None,
    }
}

fn is_any_ip6(addr: &Multiaddr) -> bool {
    matches!(addr.iter().next(), Some(Protocol::Ip6(ip)) if ip.is_unspecified())
}

fn default_addrs(port: u16) -> Vec<Multiaddr> {
    let hosts = ["/ip4/0.0.0.0", "/ip6/::"];
    let texts = hosts
        .iter()
        .flat_map(|host| [format!("{host}/tcp/{port}"), format!("{host}/udp/{port}/quic-v1")]);
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn any_port(addr: &Multiaddr) -> Multiaddr {
    addr.iter()
        .map(|part| match part {
            Protocol::Tcp(_) => Protocol::Tcp(0),
            Protocol::Udp(_) => Protocol::Udp(0),
            other => other,
        })
        .collect()
}

fn refused(addr: &Multiaddr, mut reason: String) -> StartError {
    if reason.to_lowercase().contains("in use") {
        let (kind, port) = addr
            .iter()
            .find_map(|part| match part {
                Protocol::Tcp(port) => Some(("TCP", port)),
                Protocol::Udp(port) => Some(("UDP (QUIC)", port)),
                _ => None,
            })
            .unwrap_or(("any", 0));
        reason = format!(
            "{kind} port {port} is taken by another program; choose another port, or 0 for any \
             free one"
        );
    }
    StartError::Listen { addr: addr.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_port_taken_on_ipv6_is_seen_though_the_wildcards_share_its_number() {
        let ours = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, ours.local_addr().unwrap().port()));
        let other = Socket::new(Domain::IPV6, Type::STREAM, None).and_then(|socket| {
            socket.set_only_v6(true)?;
            // As libp2p's listeners do.
            socket.set_reuse_port(true)?;
            probe(Type::STREAM, at)?;
            socket.bind(&at.into())?;
            socket.listen(1)?;
            Ok(socket)
        });
        let Ok(_other) = other else {
            println!("skipped: this host has no IPv6, or its port was taken by chance");
            return;
        };
        assert!(probe(Type::STREAM, at).is_err());
    }

    #[test]
    fn a_taken_port_is_named_whether_tcp_or_quic() {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = tcp.local_addr().unwrap().port();
        for (addr, words) in [
            (format!("/ip4/127.0.0.1/tcp/{tcp}"), format!("TCP port {tcp} is taken")),
            (
                format!("/ip4/127.0.0.1/udp/{}/quic-v1", udp.local_addr().unwrap().port()),
                "UDP (QUIC) port".to_owned(),
            ),
        ] {
            let addr: Multiaddr = addr.parse().unwrap();
            let (kind, at) = socket_of(&addr).unwrap();
            let said = refused(&addr, probe(kind, at).unwrap_err().to_string()).to_string();
            assert!(said.contains(&words), "{said}");
        }
    }
}
