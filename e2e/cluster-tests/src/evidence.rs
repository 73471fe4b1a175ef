//! What is kept of a test that failed.

use crate::space::Space;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Kinds whose objects are kept. Secrets are not: what they hold is nobody's business.
const KINDS: [&str; 13] = [
    "Pbx",
    "PbxEndpoint",
    "Dialplan",
    "Dispatcher",
    "Pod",
    "Deployment",
    "DaemonSet",
    "StatefulSet",
    "Service",
    "NetworkPolicy",
    "Lease",
    "ConfigMap",
    "Event",
];

/// Where a test's evidence stands: beside the build tree, one folder a test, of its last run.
pub(crate) fn folder(name: &str) -> PathBuf {
    scratch_root().join("e2e").join(name)
}

/// A temporary folder.
pub fn scratch() -> Result<tempfile::TempDir> {
    tempfile::tempdir().context("a temporary folder")
}

/// The build tree, where the test's own binary is.
fn scratch_root() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    // TREE/release/deps/cluster-...
    test.ancestors().nth(3).map_or_else(std::env::temp_dir, Path::to_owned)
}

/// Writes logs, events and objects of a test's namespace. What cannot be had does not keep the rest away.
pub(crate) fn collect(space: &Space, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut failed = Ok(());
    for kind in KINDS {
        let objects = space.list(kind, "").and_then(|objects| {
            let text = objects.iter().map(|object| serde_yaml::to_string(&object.0)).collect::<Result<Vec<_>, _>>()?;
            Ok(std::fs::write(folder.join(format!("{}.yaml", kind.to_lowercase())), text.join("---\n"))?)
        });
        failed = failed.and(objects);
    }
    for pod in space.list("Pod", "").unwrap_or_default() {
        let statuses = pod.0["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        for status in statuses {
            let container = status["name"].as_str().unwrap_or_default();
            for previous in [false, true] {
                if previous && status["restartCount"].as_i64() == Some(0) {
                    continue;
                }
                let file = format!("{}.{container}{}.log", pod.name(), if previous { ".previous" } else { "" });
                let log = space.log(pod.name(), container, previous);
                failed = failed.and(log.and_then(|log| Ok(std::fs::write(folder.join(file), log)?)));
            }
        }
    }
    failed
}
