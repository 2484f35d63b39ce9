//! What is wrong with a configuration, where that was said, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::Spanned;

use crate::cli::{Overrides, variable_of};

/// A configuration that cannot work.
///
/// Displayed as two lines: `PLACE: what is wrong` and `fix: what to do`. The place is the file and the
/// line, or the flag, or the environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {problem}\nfix: {fix}")]
pub struct ConfigError {
    place: String,
    problem: String,
    fix: String,
}

impl ConfigError {
    pub(crate) fn new(place: impl fmt::Display, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            place: place.to_string(),
            problem: problem.into(),
            fix: fix.into(),
        }
    }
}

/// Where something was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On a line of the cluster file, counted from 1.
    Line(usize),
    /// On the command line, about this setting.
    Flag(&'static str),
    /// In the environment, about this setting.
    Variable(&'static str),
    /// Nowhere in the cluster file.
    File,
}

impl Place {
    /// Where a setting that is not the file's was said.
    pub(super) fn outside(setting: &'static str, overrides: &Overrides) -> Self {
        if overrides.from_environment.contains(setting) {
            Self::Variable(setting)
        } else {
            Self::Flag(setting)
        }
    }
}

/// A cluster file's name and text.
#[derive(Debug)]
pub(super) struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn place_of<T>(&self, spanned: &Spanned<T>) -> Place {
        self.place_at(spanned.span().start)
    }

    /// The line of the byte at `offset`.
    pub(super) fn place_at(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().iter().take(offset);
        Place::Line(1 + before.filter(|byte| **byte == b'\n').count())
    }

    pub(super) fn error(
        &self,
        place: Place,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> ConfigError {
        let file: PathBuf = self.file.to_owned();
        match place {
            Place::Line(line) => ConfigError::new(format!("{}, line {line}", file.display()), problem, fix),
            Place::Flag(setting) => {
                ConfigError::new(format!("--{}", setting.replace('_', "-")), problem, fix)
            }
            Place::Variable(setting) => ConfigError::new(variable_of(setting), problem, fix),
            Place::File => ConfigError::new(file.display(), problem, fix),
        }
    }
}
