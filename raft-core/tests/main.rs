//! The core from outside, claim by claim, story by story and at random, in one program: what they share,
//! [`common`], is compiled once.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;
mod corners;
mod golden;
mod paper;
mod random;
mod standing;
mod thesis;
