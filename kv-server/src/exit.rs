//! The exit statuses of `kv-server`.

/// It ran and was stopped in order, or the configuration is good.
pub(crate) const OK: u8 = 0;
/// A question was answered with no: `inspect` found damage.
pub(crate) const NO: u8 = 1;
/// The arguments, the configuration or the data directory cannot be used.
pub(crate) const UNUSABLE: u8 = 2;
/// It had to stop: its disk failed. Or what was asked could not be done.
pub(crate) const FAILED: u8 = 3;
/// It panicked: a bug. What was acknowledged is on disk.
pub(crate) const PANICKED: i32 = 101;
