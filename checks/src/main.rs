//! Holds the tree to what ARCHITECTURE.md says of it, from `cargo metadata`: who may import whom, that pure crates
//! reach no IO, and that every dependency's licence is one we can ship. Prints each breach; exit status 1 if any.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};

const SERVICES: [&str; 5] = ["balancer", "registrar", "router", "media", "conference"];
const PURE: [&str; 5] = ["sip", "rtp", "dialplan", "contract", "api"];
/// Crates that do IO: none may be reached from a pure crate.
const IO: [&str; 10] =
    ["tokio", "mio", "socket2", "kube-client", "kube-runtime", "hyper", "reqwest", "redis", "async-io", "axum"];
/// Licences under which a dependency may be shipped with an Apache-2.0 program.
const LICENCES: [&str; 16] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that state no licence but carry one in a file, read by a person.
const READ: [(&str, &str); 2] = [("rsip", "MIT"), ("rsip-derives", "MIT")];

/// What a crate of ours may import (ARCHITECTURE.md, "The map"); `None` for a crate that the map does not know.
fn may_import(name: &str) -> Option<Vec<&'static str>> {
    Some(match name {
        "sip" | "rtp" | "dialplan" | "checks" => vec![],
        "contract" => vec!["sip", "rtp", "dialplan"],
        "api" => vec!["contract", "dialplan"],
        "runtime" => vec!["sip", "contract"],
        service if SERVICES.contains(&service) => vec!["sip", "rtp", "dialplan", "contract", "runtime"],
        "operator" => vec!["api", "contract", "runtime"],
        "kubepbx" | "e2e" | "cluster-tests" => {
            let mut all = vec!["sip", "rtp", "dialplan", "contract", "api", "runtime", "operator", "e2e"];
            all.extend(SERVICES);
            all
        }
        _ => return None,
    })
}

struct Package {
    name: String,
    ours: bool,
    licence: Option<String>,
    /// Ids of what it depends on, development dependencies left out.
    imports: Vec<String>,
}

fn packages(metadata: &Value) -> Result<BTreeMap<String, Package>> {
    let list = |v: &'_ Value, key: &str| -> Result<Vec<Value>> {
        Ok(v[key].as_array().with_context(|| format!("cargo metadata without {key}"))?.clone())
    };
    let mut out = BTreeMap::new();
    for package in list(metadata, "packages")? {
        let id = package["id"].as_str().context("package without id")?.to_owned();
        out.insert(
            id,
            Package {
                name: package["name"].as_str().unwrap_or_default().to_owned(),
                ours: package["source"].is_null(),
                licence: package["license"].as_str().map(str::to_owned),
                imports: Vec::new(),
            },
        );
    }
    for node in list(&metadata["resolve"], "nodes")? {
        let id = node["id"].as_str().unwrap_or_default();
        let imports = list(&node, "deps")?
            .iter()
            .filter(|d| d["dep_kinds"].as_array().is_none_or(|k| k.iter().any(|k| k["kind"].as_str() != Some("dev"))))
            .filter_map(|d| d["pkg"].as_str().map(str::to_owned))
            .collect();
        out.get_mut(id).context("a node without its package")?.imports = imports;
    }
    Ok(out)
}

/// All that is reached from a package by ordinary and build dependencies, by name. Asked for each package alone: in the
/// whole workspace, features that another member needs of a dependency would count too.
fn reached(package: &str) -> Result<BTreeSet<String>> {
    let out = Command::new("cargo")
        .args(["tree", "--locked", "-p", package, "-e", "normal,build", "--prefix", "none", "--format", "{p}"])
        .output()
        .context("cargo tree")?;
    ensure!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    let lines = String::from_utf8_lossy(&out.stdout);
    Ok(lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// True if an SPDX expression can be met with the licences listed: every AND part by one of its OR parts.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|l| LICENCES.contains(&l.trim())))
}

/// `reached` is what [`reached`] gave for each pure crate.
fn breaches(all: &BTreeMap<String, Package>, reached: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut out = Vec::new();
    for package in all.values() {
        if !package.ours {
            let read = READ.iter().find(|(name, _)| *name == package.name).map(|(_, licence)| *licence);
            match package.licence.as_deref().or(read) {
                Some(licence) if is_allowed(licence) => {}
                Some(licence) => out.push(format!("licence: {} is under {licence}", package.name)),
                None => out.push(format!("licence: {} states none", package.name)),
            }
            continue;
        }
        let Some(allowed) = may_import(&package.name) else {
            out.push(format!("arrows: {} is not on the map", package.name));
            continue;
        };
        for import in package.imports.iter().filter_map(|i| all.get(i)).filter(|p| p.ours) {
            if !allowed.contains(&import.name.as_str()) {
                out.push(format!("arrows: {} must not import {}", package.name, import.name));
            }
        }
        for import in reached.get(&package.name).into_iter().flatten() {
            if IO.contains(&import.as_str()) {
                out.push(format!("pure: {} reaches {import}", package.name));
            }
        }
    }
    out
}

fn run() -> Result<Vec<String>> {
    let out = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()
        .context("cargo metadata")?;
    ensure!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let reached = PURE.iter().map(|name| Ok(((*name).to_owned(), reached(name)?))).collect::<Result<_>>()?;
    Ok(breaches(&packages(&serde_json::from_slice(&out.stdout)?)?, &reached))
}

fn main() -> ExitCode {
    match run() {
        Ok(list) if list.is_empty() => {
            println!("arrows, pure crates and licences hold");
            ExitCode::SUCCESS
        }
        Ok(list) => {
            list.iter().for_each(|breach| eprintln!("{breach}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("checks: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(list: &[(&str, bool, Option<&str>, &[&str])]) -> BTreeMap<String, Package> {
        let package = |(name, ours, licence, imports): &(&str, bool, Option<&str>, &[&str])| {
            let imports = imports.iter().map(|i| (*i).to_owned()).collect();
            let licence = licence.map(str::to_owned);
            ((*name).to_owned(), Package { name: (*name).to_owned(), ours: *ours, licence, imports })
        };
        list.iter().map(package).collect()
    }

    #[test]
    fn each_kind_of_breach_is_found() {
        let all = tree(&[
            ("sip", true, None, &["helper"]),
            ("helper", false, Some("MIT"), &["tokio"]),
            ("tokio", false, Some("MIT/Apache-2.0"), &[]),
            ("router", true, None, &["media", "sip"]),
            ("media", true, None, &[]),
            ("copyleft", false, Some("GPL-3.0"), &[]),
            ("mystery", false, None, &[]),
            ("stray", true, None, &[]),
        ]);
        let reached = [("sip".to_owned(), ["helper", "tokio"].map(str::to_owned).into())].into();
        assert_eq!(
            breaches(&all, &reached),
            [
                "licence: copyleft is under GPL-3.0",
                "licence: mystery states none",
                "arrows: router must not import media",
                "pure: sip reaches tokio",
                "arrows: stray is not on the map",
            ]
        );
    }

    #[test]
    fn what_a_package_reaches_is_asked_of_cargo() {
        assert!(reached("runtime").unwrap().contains("tokio"));
        assert!(reached("contract").unwrap().contains("sip"));
        assert!(reached("nothing").is_err());
    }

    #[test]
    fn licence_expressions_are_met_part_by_part() {
        for (expression, want) in [
            ("MIT OR Apache-2.0", true),
            ("GPL-2.0 OR MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
        ] {
            assert_eq!(is_allowed(expression), want, "{expression}");
        }
    }
}
