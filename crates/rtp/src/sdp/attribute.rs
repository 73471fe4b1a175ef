//! One line of a description, attributes in a list of lines, and the direction attribute.

use std::fmt;

/// `x=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The letter before `=`.
    pub kind: char,
    /// What stands after it.
    pub value: String,
}

impl Line {
    pub(crate) fn parse(raw: &str) -> Option<Line> {
        let (kind, value) = raw.split_once('=')?;
        let mut chars = kind.chars();
        let kind = chars.next().filter(char::is_ascii_alphabetic)?;
        // A bare CR would come out as a line's end at a lenient reader.
        (chars.next().is_none() && !value.contains(['\r', '\0'])).then(|| Line { kind, value: value.to_owned() })
    }

    /// An attribute line: `a=name` or `a=name:value`.
    pub fn attribute(name: &str, value: &str) -> Line {
        let value = if value.is_empty() { name.to_owned() } else { format!("{name}:{value}") };
        Line { kind: 'a', value }
    }

    /// Name and value of an attribute line; the value of a flag is empty. `None` for other lines.
    pub fn as_attribute(&self) -> Option<(&str, &str)> {
        (self.kind == 'a').then(|| self.value.split_once(':').unwrap_or((&self.value, "")))
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.as_attribute().is_some_and(|(n, _)| n == name)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.value)
    }
}

/// Which way media flows, seen by who wrote the description (RFC 3264 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// Both ways, the default.
    #[default]
    SendRecv,
    /// The writer only sends: the usual hold.
    SendOnly,
    /// The writer only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The attribute's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    /// Reads an attribute's name.
    pub fn parse(name: &str) -> Option<Direction> {
        [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive]
            .into_iter()
            .find(|d| d.as_str() == name)
    }

    /// Whether the writer sends.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the writer receives.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// From what each does.
    pub fn of(sends: bool, receives: bool) -> Direction {
        match (sends, receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// The same seen from the other side.
    pub fn reverse(self) -> Direction {
        Direction::of(self.receives(), self.sends())
    }

    /// What both allow.
    pub fn and(self, other: Direction) -> Direction {
        Direction::of(self.sends() && other.sends(), self.receives() && other.receives())
    }

    /// The same, receiving nothing.
    pub fn without_receiving(self) -> Direction {
        Direction::of(self.sends(), false)
    }
}

pub(crate) fn find<'a>(lines: &'a [Line], name: &str) -> Option<&'a str> {
    lines.iter().filter_map(Line::as_attribute).find(|(n, _)| *n == name).map(|(_, v)| v)
}

pub(crate) fn remove(lines: &mut Vec<Line>, name: &str) {
    lines.retain(|l| !l.is(name));
}

pub(crate) fn direction(lines: &[Line]) -> Option<Direction> {
    lines.iter().filter_map(Line::as_attribute).find_map(|(n, _)| Direction::parse(n))
}

pub(crate) fn remove_directions(lines: &mut Vec<Line>) {
    lines.retain(|l| l.as_attribute().is_none_or(|(n, _)| Direction::parse(n).is_none()));
}
