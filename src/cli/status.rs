//! What a node shows of itself once a second: the `status` event and the status line.
//!
//! Owns the shape of that event and the words of the others. Does not own the numbers.
