//! The tests of a well-known course on distributed systems (MIT 6.5840), by name: each in the same words, on the
//! simulator, in virtual time. Beside what a test says itself, all invariants of the simulator hold throughout.

mod agreement;
mod election;
mod key_value;
mod key_value_snapshots;
mod persistence;
mod snapshots;
mod workload;
