//! A disk for tests: it remembers what was synced, loses the rest at a power loss, and fails on demand.
//!
//! [`Disk`] is a file system in memory that can be mounted (FUSE, served by this very process), so that any
//! program can use it through the operating system. It keeps apart what was written and what was synced:
//!
//! - the bytes of a file are durable after an `fsync` or `fdatasync` of *that file*, and nothing else makes
//!   them so (`sync_file_range` does not);
//! - the names in a directory (created, renamed, removed) are durable after an `fsync` of *that directory*;
//! - a sector of [`SECTOR_BYTES`] is written whole or not at all, and a rename happens whole or not at all.
//!
//! [`Disk::after_power_loss`] says what a machine would find after the power came back: everything durable,
//! and of the rest what a [`Survival`] leaves: nothing, a prefix whose last change is torn, or any
//! sectors and names scattered over all the unsynced changes, so that later ones can survive earlier ones.
//! The answer is an [`Image`], to be written to a plain directory or to be the start of another disk.
//!
//! A [recording](Disk::recording) disk also keeps every change, so that [`Disk::replay`] visits every point at
//! which the power could have failed without running the workload again.
//!
//! [`Fault`]s make operations fail (EIO, ENOSPC, a short write). A failed sync also *drops* the pages that it
//! could not write, as Linux does: they can be read until the power fails, and a second sync calls them
//! written.
//!
//! ```
//! use std::fs;
//! use faulty_disk::{Disk, Survival};
//!
//! let disk = Disk::new();
//! let mount = match disk.mount() {
//!     Ok(mount) => mount,
//!     Err(unavailable) => return println!("{unavailable}"), // no root, no /dev/fuse
//! };
//! fs::write(mount.path().join("never-synced"), b"gone").unwrap();
//! assert_eq!(disk.image().len(), 1);
//! assert_eq!(disk.after_power_loss(Survival::Nothing).len(), 0);
//! ```
//!
//! # What it does not do
//!
//! No hard or symbolic links, no renames between directories, no permissions, no times, no mapped memory that
//! is shared for writing. It is as large as the memory of the process.
#![forbid(unsafe_code)]

mod content;
mod disk;
mod fault;
mod file_system;
mod image;
mod mount;
mod survival;
mod tree;

pub use content::{Content, PAGE_BYTES, SECTOR_BYTES};
pub use disk::{Disk, Replay};
pub use fault::{Failure, Fault, Operation};
pub use image::Image;
pub use mount::{Mount, Unavailable};
pub use survival::Survival;
pub use tree::{Event, Inode};
