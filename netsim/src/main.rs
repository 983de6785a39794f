//! Entry point of the simulator.

fn main() {}
