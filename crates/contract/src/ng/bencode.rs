//! Bencode: integers, byte strings, lists and dictionaries, as the NG protocol writes them. Bounded in size, depth and
//! number of values; keys need not be sorted when read and are sorted when written.

use std::borrow::Cow;

/// Largest document, in bytes: what a UDP datagram holds.
pub const MAX_BYTES: usize = 65_535;
/// Deepest nesting of lists and dictionaries.
pub const MAX_DEPTH: usize = 16;
/// Most values in one document.
pub const MAX_VALUES: usize = 4096;

/// Why a document was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger, deeper or with more values than the bounds allow.
    #[error("bencoded document exceeds a bound")]
    TooLarge,
    /// Not bencode, from this byte on.
    #[error("malformed bencode at byte {0}")]
    Malformed(usize),
}

/// One value; strings are slices of what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// `i42e`
    Int(i64),
    /// `4:spam`
    Bytes(Cow<'a, [u8]>),
    /// `l...e`
    List(Vec<Value<'a>>),
    /// `d...e`; a key may stand twice, the first counts.
    Dict(Vec<(Cow<'a, [u8]>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// Reads one value that fills `bytes` to the end (line ends after it are ignored).
    pub fn parse(bytes: &'a [u8]) -> Result<Value<'a>, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        let mut reader = Reader { bytes, at: 0, values: 0 };
        let value = reader.value(0)?;
        let rest = bytes.get(reader.at..).unwrap_or_default();
        if rest.iter().all(|b| matches!(b, b'\r' | b'\n')) { Ok(value) } else { Err(Error::Malformed(reader.at)) }
    }

    /// A string.
    pub fn text(value: impl Into<Cow<'a, str>>) -> Value<'a> {
        Value::Bytes(match value.into() {
            Cow::Borrowed(s) => Cow::Borrowed(s.as_bytes()),
            Cow::Owned(s) => Cow::Owned(s.into_bytes()),
        })
    }

    /// A count; what does not fit is written as the largest integer.
    pub fn count(value: u64) -> Value<'a> {
        Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A dictionary of text keys.
    pub fn dict<const N: usize>(pairs: [(&'a str, Value<'a>); N]) -> Value<'a> {
        Value::Dict(pairs.into_iter().map(|(k, v)| (Cow::Borrowed(k.as_bytes()), v)).collect())
    }

    /// The value of a dictionary's key. Spaces and hyphens in keys are the same, as clients write both.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Dict(pairs) = self else { return None };
        pairs.iter().find(|(k, _)| same_word(k, key.as_bytes())).map(|(_, v)| v)
    }

    /// A string's bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Value::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// A string, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes().and_then(|b| std::str::from_utf8(b).ok())
    }

    /// An integer, also one written as a string of digits.
    pub fn as_int(&self) -> Option<i64> {
        if let Value::Int(i) = self { Some(*i) } else { self.as_str()?.parse().ok() }
    }

    /// A list's values; empty for anything else.
    pub fn as_list(&self) -> &[Value<'a>] {
        if let Value::List(list) = self { list } else { &[] }
    }

    /// Pairs of a dictionary; empty for anything else.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &Value<'a>)> {
        let pairs: &[_] = if let Value::Dict(pairs) = self { pairs } else { &[] };
        pairs.iter().map(|(k, v)| (k.as_ref(), v))
    }

    /// Appends the encoding, keys in order.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Int(i) => out.extend_from_slice(format!("i{i}e").as_bytes()),
            Value::Bytes(bytes) => write_bytes(bytes, out),
            Value::List(list) => {
                out.push(b'l');
                list.iter().for_each(|v| v.write(out));
                out.push(b'e');
            }
            Value::Dict(pairs) => {
                out.push(b'd');
                let mut sorted: Vec<_> = pairs.iter().collect();
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
                for (key, value) in sorted {
                    write_bytes(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
        }
    }

    /// The encoding.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// Whether two keys or flags are the same word but for spaces written as hyphens.
pub(super) fn same_word(a: &[u8], b: &[u8]) -> bool {
    let plain = |c: &u8| if *c == b' ' { b'-' } else { *c };
    a.len() == b.len() && a.iter().map(plain).eq(b.iter().map(plain))
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Result<u8, Error> {
        self.bytes.get(self.at).copied().ok_or(Error::Malformed(self.at))
    }

    /// The digits (and sign) before `end`, which is consumed.
    fn number(&mut self, end: u8) -> Result<i64, Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().take(21).position(|b| *b == end).ok_or(Error::Malformed(self.at))?;
        let digits = rest.get(..length).unwrap_or_default();
        let legal = !digits.starts_with(b"+");
        let number = std::str::from_utf8(digits).ok().filter(|_| legal).and_then(|d| d.parse().ok());
        let number = number.ok_or(Error::Malformed(self.at))?;
        self.at += length + 1;
        Ok(number)
    }

    fn string(&mut self) -> Result<Cow<'a, [u8]>, Error> {
        let start = self.at;
        let length = usize::try_from(self.number(b':')?).map_err(|_| Error::Malformed(start))?;
        let end = self.at.checked_add(length).ok_or(Error::Malformed(start))?;
        let bytes = self.bytes.get(self.at..end).ok_or(Error::Malformed(start))?;
        self.at = end;
        Ok(Cow::Borrowed(bytes))
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Error> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err(Error::TooLarge);
        }
        match self.peek()? {
            b'i' => {
                self.at += 1;
                self.number(b'e').map(Value::Int)
            }
            b'l' => {
                self.at += 1;
                let mut list = Vec::new();
                while self.peek()? != b'e' {
                    list.push(self.value(depth + 1)?);
                }
                self.at += 1;
                Ok(Value::List(list))
            }
            b'd' => {
                self.at += 1;
                let mut pairs = Vec::new();
                while self.peek()? != b'e' {
                    let key = self.string()?;
                    pairs.push((key, self.value(depth + 1)?));
                }
                self.at += 1;
                Ok(Value::Dict(pairs))
            }
            b'0'..=b'9' => self.string().map(Value::Bytes),
            _ => Err(Error::Malformed(self.at)),
        }
    }
}
