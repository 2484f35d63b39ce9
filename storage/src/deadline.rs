//! Calls into sled that must not hang whoever makes them.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::error::StorageError;

/// Runs `work` on a thread of its own and waits for its result no longer than `wait`. A thread that takes
/// longer is left behind.
///
/// `path` is what the work waits for.
pub(crate) fn run<T: Send + 'static>(
    path: &Path,
    wait: Duration,
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let (reply, answer) = mpsc::channel();
    thread::Builder::new()
        .name("storage-open".to_owned())
        .spawn(move || {
            // Who no longer waits misses nothing.
            let _ = reply.send(work());
        })
        .map_err(StorageError::while_trying("start a thread for", path))?;
    match answer.recv_timeout(wait) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(StorageError::NoAnswer {
            path: path.to_path_buf(),
            waited: wait,
        }),
        Err(RecvTimeoutError::Disconnected) => Err(StorageError::WriteFailed {
            path: path.to_path_buf(),
            cause: "the thread that works on it has ended".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::run;
    use crate::error::StorageError;

    #[test]
    fn work_that_does_not_end_is_left_behind() {
        let (_never, receiver) = mpsc::channel::<()>();
        let outcome = run(Path::new("sled/db"), Duration::from_millis(20), move || {
            let _ = receiver.recv();
            Ok(())
        });
        assert!(
            matches!(outcome, Err(StorageError::NoAnswer { .. })),
            "{outcome:?}"
        );
        assert!(outcome.unwrap_err().to_string().contains("sled/db"));
        let path = Path::new("sled/db");
        assert_eq!(run(path, Duration::from_secs(60), || Ok(7)).unwrap(), 7);
    }
}
