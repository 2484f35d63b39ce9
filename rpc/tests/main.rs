//! Callers and servers on real sockets, and the bytes between them, in one program: the services that they
//! share are compiled once.
#![allow(clippy::unwrap_used, reason = "test code")]

mod calls;
mod common;
mod hello;
mod hostile;
mod round_trip;
mod shutdown;
mod wire;
