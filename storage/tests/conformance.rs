//! Both implementations pass the one suite.

mod common;

use common::{InMemory, OnDisk};
use storage::conformance;

#[test]
fn the_store_on_disk_conforms() {
    conformance::run(OnDisk::new);
}

#[test]
fn the_store_in_memory_conforms() {
    conformance::run(InMemory::default);
}
