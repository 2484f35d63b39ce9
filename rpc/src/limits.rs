//! The limits that servers and clients agree on.

use std::time::Duration;

/// The longest key, in bytes. The shortest is 1.
pub const MAX_KEY_BYTES: usize = 4_096;
/// The longest value, in bytes, also after an append.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// The most items in one page of a scan.
pub const MAX_SCAN_ITEMS: usize = 1_000;
/// The most bytes of keys and values in one page of a scan.
pub const MAX_SCAN_BYTES: usize = 1 << 20;
/// The longest frame on the wire, in bytes: the longest value with room for its key and the numbers around.
pub const MAX_FRAME_BYTES: usize = 3 << 19;
/// The longest deadline that a request may carry; longer ones are cut to this.
pub const MAX_DEADLINE: Duration = Duration::from_secs(60);
