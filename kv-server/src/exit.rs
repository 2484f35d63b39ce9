//! The exit statuses of `kv-server`.

/// It ran and was stopped in order, or the configuration is good.
pub const OK: u8 = 0;
/// The arguments, the configuration or the data directory cannot be used.
pub const UNUSABLE: u8 = 2;
/// It had to stop: its disk failed.
pub const FAILED: u8 = 3;
/// It panicked: a bug. What was acknowledged is on disk.
pub const PANICKED: i32 = 101;
