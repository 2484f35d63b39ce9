//! The checker of linearizability: histories known good and known bad, and random ones.

mod brute_force;
mod build;
mod files;
mod generate;
mod known;
mod random;
mod speed;
