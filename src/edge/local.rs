//! What every local listener shares: binding, and who may talk to it.
//!
//! Owns the listening sockets' addresses, the comparison of secrets, and the Host and Origin rules
//! that keep web pages of strangers away from this node. Does not own the routes behind them.

use std::{fmt, io, net::SocketAddr};

use axum::http::{HeaderMap, header};
use tokio::net::TcpListener;

/// Binds `addr`. With `movable` (a default address) a taken port moves to a free one.
///
/// # Errors
/// [`BindError`] names the address and what to do.
pub async fn bind(addr: SocketAddr, movable: bool) -> Result<TcpListener, BindError> {
    match TcpListener::bind(addr).await {
        Err(error) if movable && error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::new(addr.ip(), 0)).await
        }
        outcome => outcome,
    }
    .map_err(|source| BindError { addr, source })
}

/// An address that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {addr}: {source}; choose another address, or port 0 for any free port")]
pub struct BindError {
    addr: SocketAddr,
    source: io::Error,
}

/// A secret that is only ever compared, in constant time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Remembers `text` by its hash.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(*blake3::hash(text.as_bytes()).as_bytes())
    }

    /// Whether `given` is the secret.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        blake3::hash(given.as_bytes()) == blake3::Hash::from_bytes(self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Where a request says that it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// No browser: neither `Origin` nor `Sec-Fetch-Site`.
    Program,
    /// A browser's user, by typing or by bookmark.
    User,
    /// A page that this node served.
    Same,
    /// A page of somebody else.
    Foreign,
}

/// Who besides this machine's own programs and pages may talk to a local HTTP listener. The default
/// is nobody.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// Other machines may connect; everything but the page itself then takes the token.
    pub remote: bool,
    /// Further `Host`s (`name:port`) that this listener answers to, such as a proxy's.
    pub hosts: Vec<String>,
    /// Origins (`https://name`) whose pages may use this listener, with the token.
    pub origins: Vec<String>,
}

/// Who may talk to a local HTTP listener.
#[derive(Clone, Debug)]
pub struct Gate {
    hosts: Vec<String>,
    port: u16,
    access: Access,
    token: Secret,
}

impl Gate {
    /// The sub-protocol that the server of a WebSocket agrees to.
    pub const WS_PROTOCOL: &str = "astral.v1";
    /// What precedes the token in the sub-protocol by which a page sends it: a page can't set
    /// headers on WebSockets, and a token in the URL would end in logs.
    const WS_TOKEN: &str = "astral.token.";

    /// A gate for the listener at `local`, opened by `token`.
    #[must_use]
    pub fn new(local: SocketAddr, token: &str) -> Self {
        Self::with_access(local, token, Access::default())
    }

    /// As [`Self::new`] for more than this machine's programs and pages.
    #[must_use]
    pub fn with_access(local: SocketAddr, token: &str, access: Access) -> Self {
        let port = local.port();
        let mut hosts = vec![
            local.to_string(),
            format!("127.0.0.1:{port}"),
            format!("[::1]:{port}"),
            format!("localhost:{port}"),
        ];
        if port == 80 {
            hosts.extend(["127.0.0.1", "[::1]", "localhost"].map(String::from));
        }
        hosts.extend(access.hosts.iter().cloned());
        Self { hosts, port, access, token: Secret::new(token) }
    }

    /// Whether other machines may connect, so that reading takes the token as well.
    #[must_use]
    pub const fn is_remote(&self) -> bool {
        self.access.remote
    }

    /// Whether `host` names this listener. With [`Access::remote`] so does every literal address:
    /// only names can be rebound.
    fn is_ours(&self, host: &str) -> bool {
        let literal = || host.parse::<SocketAddr>().is_ok_and(|addr| addr.port() == self.port);
        self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host))
            || (self.access.remote && literal())
    }

    /// The allowed foreign origin that sent the request, for the answer's CORS headers.
    #[must_use]
    pub fn allowed_origin(&self, headers: &HeaderMap) -> Option<&str> {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let first = given.next()?.to_str().ok()?;
        let allowed = self.access.origins.iter().find(|origin| origin.as_str() == first);
        allowed.filter(|_| given.next().is_none()).map(String::as_str)
    }

    /// Whether the request names this listener, so that no foreign name was bound to its address.
    #[must_use]
    pub fn names_us(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let first = hosts.next().and_then(|host| host.to_str().ok());
        hosts.next().is_none() && first.is_some_and(|host| self.is_ours(host))
    }

    /// Where the request comes from. Contradicting headers count as foreign.
    #[must_use]
    pub fn origin(&self, headers: &HeaderMap) -> Origin {
        if self.allowed_origin(headers).is_some() {
            return Origin::Same;
        }
        let ours =
            |origin: &str| origin.strip_prefix("http://").is_some_and(|host| self.is_ours(host));
        let by_origin = headers.get_all(header::ORIGIN).iter().map(|value| {
            if value.to_str().is_ok_and(ours) { Origin::Same } else { Origin::Foreign }
        });
        let by_site = headers.get_all("sec-fetch-site").iter().map(|site| match site.as_bytes() {
            b"same-origin" => Origin::Same,
            b"none" => Origin::User,
            _ => Origin::Foreign,
        });
        let rank = |origin: &Origin| match origin {
            Origin::Program => 0,
            Origin::User => 1,
            Origin::Same => 2,
            Origin::Foreign => 3,
        };
        by_origin.chain(by_site).max_by_key(rank).unwrap_or(Origin::Program)
    }

    /// Whether the request carries the bearer token.
    #[must_use]
    pub fn authorised(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = given.and_then(|value| value.split_once(' '));
        bearer.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && self.token.matches(token.trim())
        })
    }

    /// Whether the request to open a WebSocket carries the token: as a header, or as the page sends
    /// it, by offering `astral.v1` and `astral.token.TOKEN` as sub-protocols.
    #[must_use]
    pub fn ws_authorised(&self, headers: &HeaderMap) -> bool {
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let mut offered =
            offered.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        self.authorised(headers)
            || offered.any(|protocol| {
                let token = protocol.trim().strip_prefix(Self::WS_TOKEN);
                token.is_some_and(|token| self.token.matches(token))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn gate() -> Gate {
        Gate::new("127.0.0.1:8000".parse().unwrap(), "s3cret")
    }

    #[test]
    fn only_our_own_names_pass_as_host() {
        for (host, passes) in [
            ("127.0.0.1:8000", true),
            ("LOCALHOST:8000", true),
            ("[::1]:8000", true),
            ("127.0.0.1", false),
            ("evil.example:8000", false),
            ("127.0.0.1:8000.evil.example", false),
        ] {
            assert_eq!(gate().names_us(&headers(&[("host", host)])), passes, "{host}");
        }
        assert!(!gate().names_us(&headers(&[])));
        let two = [("host", "127.0.0.1:8000"), ("host", "evil.example")];
        assert!(!gate().names_us(&headers(&two)));
    }

    #[test]
    fn a_page_of_somebody_else_is_foreign_whatever_else_it_says() {
        for (pairs, origin) in [
            (&[][..], Origin::Program),
            (&[("sec-fetch-site", "none")], Origin::User),
            (&[("origin", "http://localhost:8000")], Origin::Same),
            (
                &[("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin")],
                Origin::Same,
            ),
            (&[("origin", "https://127.0.0.1:8000")], Origin::Foreign),
            (&[("origin", "null")], Origin::Foreign),
            (&[("origin", "http://evil.example"), ("sec-fetch-site", "none")], Origin::Foreign),
            (&[("sec-fetch-site", "cross-site")], Origin::Foreign),
            (&[("sec-fetch-site", "same-site")], Origin::Foreign),
        ] {
            assert_eq!(gate().origin(&headers(pairs)), origin, "{pairs:?}");
        }
    }

    #[test]
    fn only_the_bearer_token_authorises() {
        for (value, passes) in [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer s3cre", false),
            ("Bearer ", false),
            ("Basic s3cret", false),
            ("s3cret", false),
        ] {
            assert_eq!(gate().authorised(&headers(&[("authorization", value)])), passes, "{value}");
        }
        assert!(!gate().authorised(&headers(&[])));
    }

    #[test]
    fn a_page_sends_the_token_of_a_websocket_as_a_sub_protocol() {
        for (value, passes) in [
            ("astral.v1, astral.token.s3cret", true),
            ("astral.token.s3cret", true),
            ("astral.v1, astral.token.wrong", false),
            ("astral.v1", false),
            ("s3cret", false),
        ] {
            let offered = headers(&[("sec-websocket-protocol", value)]);
            assert_eq!(gate().ws_authorised(&offered), passes, "{value}");
        }
        assert!(gate().ws_authorised(&headers(&[("authorization", "Bearer s3cret")])));
    }

    #[test]
    fn what_else_may_talk_to_us_is_listed() {
        let access = Access {
            remote: true,
            hosts: vec!["tv.example".into()],
            origins: vec!["https://tv.example".into()],
        };
        let gate = Gate::with_access("0.0.0.0:8000".parse().unwrap(), "s3cret", access);
        for (host, passes) in [
            ("192.0.2.7:8000", true),
            ("[2001:db8::7]:8000", true),
            ("tv.example", true),
            ("192.0.2.7:9000", false),
            ("rebound.example:8000", false),
        ] {
            assert_eq!(gate.names_us(&headers(&[("host", host)])), passes, "{host}");
        }
        let from = |origin: &str| {
            gate.origin(&headers(&[("origin", origin), ("sec-fetch-site", "cross-site")]))
        };
        assert_eq!(from("https://tv.example"), Origin::Same);
        assert_eq!(from("http://tv.example:81"), Origin::Foreign);
        let twice = [("origin", "https://tv.example"), ("origin", "http://evil.example")];
        assert_eq!(gate.origin(&headers(&twice)), Origin::Foreign);
    }

    #[tokio::test]
    async fn a_taken_default_port_moves_and_a_wanted_one_is_an_error() {
        let first = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let taken = first.local_addr().unwrap();
        let moved = bind(taken, true).await.unwrap();
        assert_ne!(moved.local_addr().unwrap(), taken);
        let error = bind(taken, false).await.unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()), "{error}");
    }
}
