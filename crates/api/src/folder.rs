//! A set of files, kept compiled while they change.
//!
//! What was good stays: a document that is no longer good by itself leaves its former manifest in place, and so does a
//! file that is not YAML any more; what no longer compiles is held by the compiler. Only what is gone from files that
//! are good is taken away.

use std::collections::{BTreeMap, BTreeSet};

use crate::compiler::{Change, Compiler, Delta, Finding, Held, Kind, Reason};
use crate::manifests::{Content, Judge, Manifest, Problem, Source};

/// What a load made of the files.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// What has changed for the services.
    pub delta: Delta,
    /// All that is wrong now, not only what is new, by file and line. Empty: all is well.
    pub problems: Vec<Problem>,
}

impl Update {
    /// True when something did not become live: a start should not go on, a running process keeps what was good.
    pub fn keeps_out(&self) -> bool {
        self.problems.iter().any(|problem| problem.keeps_out)
    }
}

/// A set of files, compiled. It is one namespace.
#[derive(Debug)]
pub struct Folder {
    judge: Judge,
    compiler: Compiler,
    /// What the compiler has, by `PbxEndpoint/8005`.
    manifests: BTreeMap<String, Manifest>,
    /// Those of them that no longer stand in their files so.
    stale: BTreeSet<String>,
}

impl Folder {
    /// An empty one; `epoch` is that of the versions it makes.
    pub fn new(epoch: u64) -> Self {
        Self {
            judge: Judge::default(),
            compiler: Compiler::new(epoch, Held::default()),
            manifests: BTreeMap::new(),
            stale: BTreeSet::new(),
        }
    }

    /// Takes the files as they are now, all of them, and compiles what has changed since the last time.
    pub fn load(&mut self, files: &[Source]) -> Update {
        let mut problems = Vec::new();
        let mut broken = BTreeSet::new();
        let mut claims: BTreeMap<String, Vec<Manifest>> = BTreeMap::new();
        let mut namespace: Option<String> = None;
        for file in files {
            let parsed = self.judge.parse(file);
            if !parsed.problems.is_empty() {
                broken.insert(file.name.clone());
            }
            problems.extend(parsed.problems);
            for manifest in parsed.manifests {
                match (&namespace, &manifest.namespace) {
                    (Some(one), Some(other)) if one != other => {
                        let message =
                            format!("another namespace, {one:?}, stands elsewhere: all files are one namespace");
                        problems.push(problem(&manifest, "metadata.namespace", message));
                        continue;
                    }
                    (None, Some(_)) => namespace.clone_from(&manifest.namespace),
                    _ => {}
                }
                claims.entry(manifest.id()).or_default().push(manifest);
            }
        }
        self.stale.clear();
        let mut now: BTreeMap<String, Manifest> = BTreeMap::new();
        for (id, claims) in claims {
            let manifest = self.settle(&id, claims, &mut problems);
            now.insert(id, manifest);
        }
        for (id, manifest) in &self.manifests {
            if broken.contains(&manifest.origin.file) && !now.contains_key(id) {
                now.insert(id.clone(), manifest.clone());
                self.stale.insert(id.clone());
            }
        }

        let changes = self.changes(&now);
        self.manifests = now;
        let delta = self.compiler.apply(changes);
        let findings = self.findings(&problems);
        problems.extend(findings);
        problems.sort_by(|a, b| (&a.file, a.line, &a.field).cmp(&(&b.file, b.line, &b.field)));
        Update { delta, problems }
    }

    /// The compiler: its snapshots and statuses.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Of the manifests with one kind and name, the one that holds it; the others are problems. It stays with the file
    /// that had it and, within that, with the one that says what it said: which of several stands first there says
    /// nothing, a copy is as easily put before as after. When none of them says it any more, nobody can tell which was
    /// the holder, and it stays as it was. A name that nobody had goes to the first.
    fn settle(&mut self, id: &str, mut claims: Vec<Manifest>, problems: &mut Vec<Problem>) -> Manifest {
        let mut kept = 0;
        if let Some(holder) = self.manifests.get(id).filter(|_| claims.len() > 1) {
            let of_file = |claim: &Manifest| claim.origin.file == holder.origin.file;
            let same = claims.iter().position(|claim| of_file(claim) && claim.content == holder.content);
            match (same, claims.iter().filter(|claim| of_file(claim)).count()) {
                (Some(same), _) => kept = same,
                (None, 0) => {}
                (None, 1) => kept = claims.iter().position(of_file).unwrap_or(0),
                (None, _) => {
                    let holder = holder.clone();
                    self.stale.insert(id.to_owned());
                    twice(id, &claims[0], &claims[1..], problems);
                    return holder;
                }
            }
        }
        let manifest = claims.remove(kept);
        twice(id, &manifest, &claims, problems);
        manifest
    }

    /// What leads from the manifests that the compiler has to these.
    fn changes(&self, now: &BTreeMap<String, Manifest>) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, old) in &self.manifests {
            if !now.contains_key(id) {
                changes.push(match &old.content {
                    Content::Resource(resource) => Change::Delete(resource.id()),
                    Content::Secret(name, _) => Change::SecretGone { name: name.clone() },
                });
            }
        }
        for (id, new) in now {
            if self.manifests.get(id).is_none_or(|old| old.content != new.content) {
                changes.push(match new.content.clone() {
                    Content::Resource(resource) => Change::Put(resource),
                    Content::Secret(name, values) => Change::Secret { name, values },
                });
            }
        }
        changes
    }

    /// The compiler's findings, with file and line. What it finds in text that stands in no file any more is left out: the
    /// text that stands there now has a problem of its own. So is a name that nothing has while a resource of that kind is
    /// kept out by a mistake: the one may only follow from the other, and is told when that is mended.
    fn findings(&self, problems: &[Problem]) -> Vec<Problem> {
        let found: Vec<(&Finding, Problem)> = self
            .compiler
            .statuses()
            .values()
            .flat_map(|status| &status.findings)
            .filter_map(|finding| {
                let id = finding.resource.to_string();
                let manifest = self.manifests.get(&id).filter(|_| !self.stale.contains(&id))?;
                let keeps_out = finding.reason.keeps_out();
                Some((finding, Problem { keeps_out, ..problem(manifest, &finding.path, finding.message.clone()) }))
            })
            .collect();
        let out = found.iter().map(|(_, problem)| problem).chain(problems).filter(|problem| problem.keeps_out);
        let kinds: BTreeSet<String> =
            out.map(|problem| problem.resource.split('/').next().unwrap_or_default().to_owned()).collect();
        // A file that is not YAML may have held anything.
        let missed = |kind: Kind| kinds.contains(kind.as_str()) || kinds.contains("");
        let follows = |finding: &Finding| match finding.reason {
            Reason::ContextNotFound => missed(Kind::Dialplan),
            Reason::EndpointNotFound => missed(Kind::PbxEndpoint),
            _ => false,
        };
        found.into_iter().filter(|(finding, _)| !follows(finding)).map(|(_, problem)| problem).collect()
    }
}

/// Says of each of the others that this one has the name.
fn twice(id: &str, kept: &Manifest, others: &[Manifest], problems: &mut Vec<Problem>) {
    let place = format!("{}:{}", kept.origin.file, kept.origin.line("metadata.name"));
    for other in others {
        let message = match id.split_once('/') {
            Some(("Dialplan", name)) => format!("the context {name:?} is defined twice, here and at {place}: keep one"),
            _ => format!("is defined twice, here and at {place}: keep one"),
        };
        problems.push(problem(other, "metadata.name", message));
    }
}

fn problem(manifest: &Manifest, field: &str, message: String) -> Problem {
    Problem {
        file: manifest.origin.file.clone(),
        line: manifest.origin.line(field),
        resource: manifest.id(),
        field: field.to_owned(),
        message,
        keeps_out: true,
    }
}

#[cfg(test)]
mod tests;
