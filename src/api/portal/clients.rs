//! Who watches through a portal.
//!
//! Owns the places and who holds them. Does not own what is watched.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::http::HeaderMap;

/// Places that one client may hold: a household, or several pages of one person.
pub const SEATS_PER_CLIENT_MAX: usize = 4;

/// Who asks: an IPv4 address, or the /64 that one subscriber has of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Client(IpAddr);

impl Client {
    /// Who sends a request: the peer, or, where a trusted proxy stands before the portal, the last
    /// address that the proxy wrote down. What comes before it in the header is the client's own say.
    pub(super) fn of(peer: IpAddr, headers: &HeaderMap, behind_proxy: bool) -> Self {
        let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
        let forwarded = forwarded.filter(|_| behind_proxy).and_then(|value| value.to_str().ok());
        let last = forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
        Self(match last.unwrap_or(peer).to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }
}

/// A bounded number of places. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    room: usize,
    held: Arc<Mutex<BTreeMap<Client, usize>>>,
}

impl Seats {
    pub(super) fn new(room: usize) -> Self {
        Self { room, held: Arc::default() }
    }

    /// A place, as long as the answer lives; none when all are taken, or the client has its share.
    pub(super) fn take(&self, client: Client) -> Option<Seat> {
        let mut held = self.lock();
        let own = held.get(&client).copied().unwrap_or(0);
        if held.values().sum::<usize>() >= self.room || own >= SEATS_PER_CLIENT_MAX {
            return None;
        }
        held.insert(client, own + 1);
        Some(Seat { seats: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Client, usize>> {
        // Nothing between lock and unlock can panic half-way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is held.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    client: Client,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.seats.lock();
        if let Some(own) = held.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap(), &HeaderMap::new(), false)
    }

    #[test]
    fn places_are_bounded_altogether_and_for_each_client() {
        let seats = Seats::new(SEATS_PER_CLIENT_MAX + 1);
        let greedy: Vec<_> = (0..10).filter_map(|_| seats.take(client("192.0.2.1"))).collect();
        assert_eq!(greedy.len(), SEATS_PER_CLIENT_MAX);
        let other = seats.take(client("192.0.2.2"));
        assert!(other.is_some() && seats.take(client("192.0.2.3")).is_none());
        drop(other);
        assert!(seats.take(client("192.0.2.3")).is_some());
        drop(greedy);
        assert!(seats.lock().is_empty(), "nobody is remembered");
        assert!(Seats::new(0).take(client("192.0.2.1")).is_none());
    }

    #[test]
    fn what_a_client_says_of_itself_counts_only_where_a_proxy_says_it() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "198.51.100.9".parse().unwrap());
        headers.append("x-forwarded-for", "198.51.100.8, 192.0.2.7".parse().unwrap());
        assert_eq!(Client::of(peer, &headers, false), client("10.0.0.1"));
        assert_eq!(Client::of(peer, &headers, true), client("192.0.2.7"));
        assert_eq!(Client::of(peer, &HeaderMap::new(), true), client("10.0.0.1"));
    }

    #[test]
    fn one_subscriber_is_one_client() {
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }
}
