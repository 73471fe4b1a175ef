//! What is wrong with a dialplan, and where.

use std::fmt;

/// A fault in a dialplan. `path` says where in the resource's spec it stands (`extensions[1].steps[0].dial.to[2]`);
/// it is empty for a text parsed on its own, and callers put their own place in front with [`Error::at`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The place, in the words and indices of the `Dialplan` resource.
    pub path: String,
    /// What is wrong.
    pub kind: ErrorKind,
}

impl Error {
    /// Puts a place in front of the error's own: `"dial".at("to[0]")` becomes `dial.to[0]`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.path = if self.path.is_empty() { place.to_string() } else { format!("{place}.{}", self.path) };
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { write!(f, "{}", self.kind) } else { write!(f, "{}: {}", self.path, self.kind) }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { path: String::new(), kind }
    }
}

/// The kinds of faults; each message says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A pattern or an extension that cannot be read.
    #[error("bad pattern {pattern:?}: {why}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// What is wrong with it and what to write.
        why: &'static str,
    },
    /// Two extensions of one context match exactly the same numbers.
    #[error("pattern {pattern:?} stands here a second time (first as {first:?}): keep one")]
    DuplicatePattern {
        /// The later one, as written.
        pattern: String,
        /// The earlier one, as written.
        first: String,
    },
    /// `${...}` that cannot be read.
    #[error("bad substitution in {text:?}: {why}")]
    Substitution {
        /// The whole text.
        text: String,
        /// What is wrong with it and what to write.
        why: &'static str,
    },
    /// The text became longer than [`crate::limits::EXPANDED`] bytes by substitution.
    #[error("{text:?} becomes longer than {limit} bytes by substitution")]
    TooLong {
        /// The text before substitution.
        text: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A dial target that cannot be read or is of a kind that is not carried.
    #[error("bad dial target {target:?}: {why}")]
    Target {
        /// The target, after substitution where that took place.
        target: String,
        /// What is wrong with it and what to write.
        why: &'static str,
    },
    /// A prompt that is neither `tone:HZ[,MS]` nor the name of a WAV file.
    #[error("bad prompt {prompt:?}: {why}")]
    Prompt {
        /// The prompt, after substitution where that took place.
        prompt: String,
        /// What is wrong with it and what to write.
        why: &'static str,
    },
    /// A name or a PIN that no room has.
    #[error("bad room {text:?}: {why}")]
    Room {
        /// The name or the PIN, after substitution where that took place.
        text: String,
        /// What is wrong with it and what to write.
        why: &'static str,
    },
    /// A hangup cause outside 1 to 127.
    #[error("{0} is no Q.850 cause: write a number from 1 to 127, such as 16 (normal clearing) or 17 (busy)")]
    Cause(i64),
    /// Something that must have content has none.
    #[error("{0} is empty: {1}")]
    Empty(&'static str, &'static str),
    /// A list or text above its bound.
    #[error("more than {limit} {what}: split it")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}
