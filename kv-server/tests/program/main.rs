//! The `kv-server` program as its users meet it: real processes, real ports, a real disk.

mod refusals;
mod serving;
mod support;
