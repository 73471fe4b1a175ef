//! The parameter list of authentication headers: `name=token` and `name="quoted"` separated by commas.

use super::DigestError;
use std::borrow::Cow;

/// More parameters than any legal header has; the rest is refused.
const MAX_PARAMS: usize = 32;

/// One parameter: name as written, value unquoted and unescaped.
pub(super) type Param<'a> = (&'a str, Cow<'a, str>);

/// Splits off the scheme; the rest begins at the first parameter.
pub(super) fn scheme(value: &str) -> Option<(&str, &str)> {
    let value = value.trim();
    let end = value.find(char::is_whitespace)?;
    Some((value.get(..end)?, value.get(end..)?.trim_start()))
}

/// Reads parameters until the end, or until what follows a comma is another scheme (RFC 7235 lets a field hold several
/// challenges); that rest is returned.
pub(super) fn list(mut rest: &str) -> Result<(Vec<Param<'_>>, &str), DigestError> {
    let mut out: Vec<Param<'_>> = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        if rest.is_empty() {
            return Ok((out, rest));
        }
        let name_end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        if name.is_empty() {
            return Err(DigestError::Malformed);
        }
        let after_space = after.trim_start();
        let Some(value) = after_space.strip_prefix('=') else {
            // `Digest realm=...`: a token followed by a space and another token opens the next challenge.
            if !out.is_empty() && after_space.len() < after.len() && after_space.starts_with(is_token) {
                return Ok((out, rest));
            }
            return Err(DigestError::Malformed);
        };
        let (value, after) = self::value(value.trim_start())?;
        if out.len() >= MAX_PARAMS || out.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
            return Err(DigestError::Malformed);
        }
        out.push((name, value));
        rest = after.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(DigestError::Malformed);
        }
    }
}

/// The value of parameter `name`.
pub(super) fn take<'a>(params: &mut Vec<Param<'a>>, name: &str) -> Option<Cow<'a, str>> {
    let at = params.iter().position(|(n, _)| n.eq_ignore_ascii_case(name))?;
    Some(params.swap_remove(at).1)
}

/// Writes `value` as a quoted-string, escaping quote and backslash (RFC 3261 25.1). Control characters are left out: they have no
/// legal form and would end the header line.
pub(super) fn quote(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c)
}

fn value(text: &str) -> Result<(Cow<'_, str>, &str), DigestError> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Unquoted: up to the comma or space. Wider than token, as some phones leave URIs unquoted.
        let end = text.find(|c: char| c == ',' || c == '"' || c.is_whitespace()).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return if value.is_empty() { Err(DigestError::Malformed) } else { Ok((Cow::Borrowed(value), rest)) };
    };
    let mut unescaped: Option<String> = None;
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => {
                let rest = quoted.get(i + 1..).unwrap_or_default();
                let value = unescaped.map_or_else(|| Cow::Borrowed(quoted.get(..i).unwrap_or_default()), Cow::Owned);
                return Ok((value, rest));
            }
            '\\' => {
                let (_, escaped) = chars.next().ok_or(DigestError::Malformed)?;
                unescaped.get_or_insert_with(|| quoted.get(..i).unwrap_or_default().to_owned()).push(escaped);
            }
            // A fold, with the blanks around it, is one blank (RFC 3261 7.3.1).
            '\r' | '\n' => {
                let so_far = unescaped.get_or_insert_with(|| quoted.get(..i).unwrap_or_default().to_owned());
                so_far.truncate(so_far.trim_end_matches([' ', '\t']).len());
                so_far.push(' ');
                while chars.clone().next().is_some_and(|(_, c)| matches!(c, '\r' | '\n' | ' ' | '\t')) {
                    chars.next();
                }
            }
            c => {
                if let Some(s) = unescaped.as_mut() {
                    s.push(c);
                }
            }
        }
    }
    Err(DigestError::Malformed)
}
