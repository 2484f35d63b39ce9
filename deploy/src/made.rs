//! Directories that are made for a command, and go again when nothing has come of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The directories that were made for one path. Those that are still empty when this is dropped are removed.
#[derive(Debug)]
pub(crate) struct MadeDirectories {
    /// From the outermost inwards.
    made: Vec<PathBuf>,
}

impl MadeDirectories {
    /// Makes `dir` and what is missing above it.
    pub(crate) fn create(dir: &Path) -> Result<Self, Error> {
        let missing = dir
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        let mut made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        made.reverse();
        // From here on a failure removes what was made.
        let made = Self { made };
        fs::create_dir_all(dir).map_err(Error::system(format!("create {}", dir.display())))?;
        Ok(made)
    }
}

impl Drop for MadeDirectories {
    fn drop(&mut self) {
        for dir in self.made.iter().rev() {
            // One that is in use by now is not empty and stays.
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_and_left_empty_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (there, used) = (dir.path().join("there"), dir.path().join("used"));
        fs::create_dir(&there).unwrap();
        drop(MadeDirectories::create(&there.join("a/b")).unwrap());
        assert!(there.exists() && !there.join("a").exists());

        let made = MadeDirectories::create(&used.join("c")).unwrap();
        fs::write(used.join("file"), "").unwrap();
        drop(made);
        assert!(used.join("file").exists() && !used.join("c").exists());
    }

    #[test]
    fn a_path_that_cannot_be_made_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(MadeDirectories::create(&dir.path().join("file/x")).is_err());
        assert!(MadeDirectories::create(&dir.path().join("new/").join("\0/x")).is_err());
        assert!(!dir.path().join("new").exists());
    }
}
