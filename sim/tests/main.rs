//! The simulator and its checker from outside, in one program, which is linked once. The decoders have their
//! own, which counts what they allocate.

mod command_line;
mod course;
mod linearizability;
mod mutants;
mod runs;
mod scenarios;
