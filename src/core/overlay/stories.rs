//! Stories of whole networks in virtual time.
//!
//! Owns the acceptance of the overlay's behaviour between nodes. Does not own what one file shows
//! by itself: those tests are at its bottom.

mod complaints;
mod directory;
mod elastic;
mod failover;
mod finding;
mod joining;
mod leases;
mod lists;
mod sources;
mod supernodes;
mod tickets;
