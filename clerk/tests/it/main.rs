//! The clerk against a fake cluster on real sockets: the library, the blocking clerk, the program.

mod fake;
mod library;
