//! What a process shows over HTTP.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The body of a GET that is answered 200.
pub fn get(from: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(from)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: pbx\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{path}: {head}");
    }
    Ok(body.to_owned())
}

/// The status of the answer to a POST without a body: a command.
pub fn post(to: SocketAddr, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "POST {path} HTTP/1.1\r\nHost: pbx\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no HTTP answer")?;
    Ok(status.parse()?)
}

/// The sum of a metric over its labels, in the text of `/metrics`. Fails where it does not stand.
pub fn metric(text: &str, name: &str) -> Result<f64> {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        (rest.starts_with(['{', ' '])).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    };
    let values: Vec<f64> = text.lines().filter_map(of).collect();
    ensure!(!values.is_empty(), "no metric {name}");
    Ok(values.iter().sum())
}
