//! The exit statuses of `kv-server`.

/// It ran and was stopped in order, or the configuration is good.
pub(crate) const OK: u8 = 0;
/// The arguments, the configuration or the data directory cannot be used.
pub(crate) const UNUSABLE: u8 = 2;
/// It had to stop: its disk failed.
pub(crate) const FAILED: u8 = 3;
/// It panicked: a bug. What was acknowledged is on disk.
pub(crate) const PANICKED: i32 = 101;
