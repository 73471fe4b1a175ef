//! A bounded, deterministic run of the fuzz targets over their seeds and mutations of them (`fuzz/`).

use std::path::Path;

#[path = "../../../../fuzz/shared/mutate.rs"]
mod mutate;
#[path = "../../../../fuzz/shared/sip.rs"]
mod targets;

/// Runs a target over its own seeds and further folders of them.
fn run(name: &str, more: &[&str], target: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders = vec![root.join("fuzz/seeds").join(name)];
    folders.extend(more.iter().map(|m| root.join("crates/sip/tests/messages").join(m)));
    let folders: Vec<&Path> = folders.iter().map(AsRef::as_ref).collect();
    mutate::run(&folders, targets::WORDS, target);
}

#[test]
fn message() {
    run("message", &["rfc4475", "rfc5118"], targets::message);
}

#[test]
fn stream() {
    run("stream", &["rfc4475"], targets::stream);
}

#[test]
fn uri() {
    run("uri", &[], targets::uri);
}

#[test]
fn address() {
    run("address", &[], targets::address);
}

#[test]
fn via() {
    run("via", &[], targets::via);
}

#[test]
fn digest() {
    run("digest", &[], targets::digest);
}

#[test]
fn cseq() {
    run("cseq", &[], targets::cseq);
}
