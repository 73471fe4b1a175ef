//! `kubepbx generate`: the CustomResourceDefinitions as files, or into a cluster; and keys.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Change nothing: fail when a folder holds anything else
    #[arg(long)]
    check: bool,
    /// Apply them to the cluster (of the pod's own service account, else of KUBECONFIG) and wait until it knows them
    #[arg(long, conflicts_with_all = ["check", "folders"])]
    apply: bool,
    /// Instead, read keys.json of an installation from standard input and write it as it is after one more step of a
    /// rotation: the first adds a key, the second, two minutes later at least, makes it the current one
    #[arg(long, conflicts_with_all = ["check", "folders", "apply"])]
    keys: bool,
    /// The folders, such as crds
    #[arg(required_unless_present_any = ["apply", "keys"])]
    folders: Vec<PathBuf>,
}

/// Helm's field manager. Helm 4 applies definitions by it whenever it installs, and is refused what another manager says
/// otherwise: whoever brings them to a new version does so in its name.
const MANAGER: &str = "helm";

/// A file of keys is at most this long, in bytes.
const MAX_KEYS: u64 = 64 * 1024;

/// How long a cluster may take to know a definition.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// Writes the definitions into each folder, or compares; files that are none of them are removed, or reported.
pub async fn run(args: &GenerateArgs) -> ExitCode {
    if args.apply || args.keys {
        return match if args.keys { keys() } else { apply().await } {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let all = args.folders.iter().map(|folder| differences(folder, args.check)).collect::<anyhow::Result<Vec<_>>>();
    match all.map(|lists| lists.concat()) {
        Ok(differing) if args.check && !differing.is_empty() => {
            differing.iter().for_each(|file| eprintln!("{} is not what `make generate` writes", file.display()));
            ExitCode::FAILURE
        }
        Ok(differing) => {
            differing.iter().for_each(|file| println!("{}", file.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One more step of a rotation of keys, from standard input to standard output.
fn keys() -> anyhow::Result<()> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_KEYS).read_to_end(&mut text)?;
    let (text, ended) = runtime::keys::rotate(&text).context("standard input holds no keys")?;
    std::io::stdout().write_all(&text)?;
    let then = if ended { "the new key is the current one" } else { "when all pods have read it: once more" };
    eprintln!("{then}");
    Ok(())
}

/// Applies the definitions, server-side: what stands in them is ours, whoever wrote it before.
async fn apply() -> anyhow::Result<()> {
    let client = Client::try_default().await.context("no cluster")?;
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions: Api<DynamicObject> = Api::all_with(client, &ApiResource::from_gvk(&kind));
    for (file, text) in api::crds::files()? {
        let definition: serde_json::Value = serde_yaml::from_str(&text).context(file)?;
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let params = PatchParams::apply(MANAGER).force();
        definitions.patch(&name, &params, &Patch::Apply(&definition)).await.with_context(|| name.clone())?;
        let established = async {
            while !is_established(&definitions.get(&name).await?.data) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(ESTABLISHED, established)
            .await
            .with_context(|| format!("{name} is not established"))??;
        println!("{name}");
    }
    Ok(())
}

fn is_established(definition: &serde_json::Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Established" && c["status"] == "True"))
}

/// The files that differ from what is generated; unless only asked to check, they are put right.
fn differences(folder: &Path, check: bool) -> anyhow::Result<Vec<PathBuf>> {
    let wanted = api::crds::files()?;
    let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    if !check {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut differing = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(name));
        if !ours && path.extension().is_some_and(|extension| extension == "yaml") {
            if !check {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
            differing.push(path);
        }
    }
    for (name, text) in &wanted {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).ok().as_ref() != Some(text) {
            if !check {
                std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            }
            differing.push(path);
        }
    }
    Ok(differing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_known_once_the_cluster_says_so() {
        let with =
            |status: &str| serde_json::json!({"status": {"conditions": [{"type": "Established", "status": status}]}});
        assert!(
            is_established(&with("True")) && !is_established(&with("False")) && !is_established(&serde_json::json!({}))
        );
    }

    #[test]
    fn writes_compares_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("crds");
        let written = differences(&folder, false).unwrap();
        assert_eq!(written.len(), 4);
        assert!(differences(&folder, true).unwrap().is_empty());
        std::fs::write(folder.join("old.yaml"), "x").unwrap();
        std::fs::write(&written[0], "edited").unwrap();
        assert_eq!(differences(&folder, true).unwrap().len(), 2);
        differences(&folder, false).unwrap();
        assert!(differences(&folder, true).unwrap().is_empty() && !folder.join("old.yaml").exists());
    }
}
