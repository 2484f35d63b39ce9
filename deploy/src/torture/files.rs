//! The directory of the report: made and tried before a cluster is started, written when all is judged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use sim::linearizability::{self, History, Window};

use crate::error::Error;
use crate::made::MadeDirectories;

const PAGE: &str = "report.html";
const TEXT: &str = "report.txt";
const HISTORY: &str = "history.jsonl";
const WINDOW: &str = "window.html";

/// What is written.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    /// As a page.
    pub(crate) page: String,
    /// As text.
    pub(crate) text: String,
    /// What the clients saw.
    pub(crate) history: &'a History,
    /// What shows that it is not linearizable.
    pub(crate) window: Option<&'a Window>,
}

/// A directory in which a report can be written. One that was made for it and is still empty goes again.
#[derive(Debug)]
pub(crate) struct ReportDirectory {
    dir: PathBuf,
    _made: MadeDirectories,
}

impl ReportDirectory {
    /// Makes `dir` and tries whether each file can be written there. What an earlier run left is not touched.
    ///
    /// # Errors
    /// [`Error::Usage`] if it cannot be made or one of the files cannot be written.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let made = MadeDirectories::create(dir).map_err(|error| refusal(&error.to_string()))?;
        for name in [PAGE, TEXT, HISTORY, WINDOW] {
            let path = dir.join(name);
            try_to_write(&path)
                .map_err(|error| refusal(&format!("cannot write {}: {error}", path.display())))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            _made: made,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }
}

fn refusal(problem: &str) -> Error {
    Error::Usage {
        problem: format!("{problem}: no report can be written"),
        remedy: "choose another --report DIR".into(),
    }
}

/// Opens the file as it will be opened, but leaves it as it is. One that was not there is removed again.
fn try_to_write(path: &Path) -> io::Result<()> {
    let is_new = !path.try_exists()?;
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map(drop)?;
    if is_new { fs::remove_file(path) } else { Ok(()) }
}

/// Writes `report.html`, `report.txt`, `history.jsonl` and, for a violation, `window.html` in `dir`, which is there.
/// Without one, an earlier `window.html` is removed.
pub(crate) fn write(dir: &Path, contents: &Contents<'_>) -> Result<(), Error> {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::system(format!("write {}", path.display())))
    };
    write(PAGE, &contents.page)?;
    write(TEXT, &contents.text)?;
    if let Some(window) = contents.window {
        write(WINDOW, &linearizability::to_html(window))?;
    } else {
        remove_earlier(&dir.join(WINDOW))?;
    }
    let path = dir.join(HISTORY);
    let written =
        File::create(&path).and_then(|file| linearizability::write(contents.history, BufWriter::new(file)));
    written.map_err(Error::system(format!("write {}", path.display())))
}

/// Removes what an earlier report has left and this one has not.
fn remove_earlier(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_takes_a_report_is_left_as_it_was() {
        let tmp = tempfile::tempdir().unwrap();
        let new = tmp.path().join("a/b");
        let opened = ReportDirectory::open(&new).unwrap();
        assert_eq!(fs::read_dir(opened.path()).unwrap().count(), 0);
        drop(opened);
        assert!(!tmp.path().join("a").exists(), "made for nothing");

        fs::write(tmp.path().join(TEXT), "an earlier report").unwrap();
        drop(ReportDirectory::open(tmp.path()).unwrap());
        assert_eq!(
            fs::read_to_string(tmp.path().join(TEXT)).unwrap(),
            "an earlier report"
        );
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_report_of_a_good_run_leaves_no_window_of_an_earlier_violation() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join(WINDOW), "an earlier violation").unwrap();
        let contents = Contents {
            page: "page".into(),
            text: "text".into(),
            history: &History::default(),
            window: None,
        };
        for _ in 0..2 {
            write(tmp.path(), &contents).unwrap();
            let names = fs::read_dir(tmp.path()).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, [HISTORY, PAGE, TEXT]);
        }
    }
}
