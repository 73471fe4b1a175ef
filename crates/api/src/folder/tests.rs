//! Files in, problems with file and line out; changes while running. The golden files of `testdata/` are here too.

use super::*;
use crate::compiler::{Kind, ResourceId, State};
use serde_json::json;

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), text: text.into() }
}

fn phone(name: &str, username: &str) -> String {
    format!(
        "apiVersion: kubepbx.io/v1alpha1\nkind: PbxEndpoint\nmetadata:\n  name: \"{name}\"\nspec:\n  context: inside\n  auth:\n    username: \"{username}\"\n    passwordSecretRef: {{name: phones, key: one}}\n  aor: {{}}\n"
    )
}

fn context(name: &str, pattern: &str) -> String {
    format!(
        "apiVersion: kubepbx.io/v1alpha1\nkind: Dialplan\nmetadata:\n  name: {name}\nspec:\n  extensions:\n  - pattern: \"{pattern}\"\n    steps:\n    - answer: {{}}\n"
    )
}

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: phones}\nstringData: {one: \"1\"}\n";

fn lines(update: &Update) -> Vec<String> {
    update.problems.iter().map(ToString::to_string).collect()
}

fn state(folder: &Folder, kind: Kind, name: &str) -> Option<State> {
    let id = ResourceId { kind, name: name.into() };
    folder.compiler().statuses().get(&id).map(|status| status.state)
}

/// The mistakes that people make, each with exactly one line that says what to do.
#[test]
fn one_clear_message_each() {
    let good = format!("{SECRET}---\n{}---\n{}", phone("1", "1"), context("inside", "_8XX"));
    assert_eq!(lines(&Folder::new(1).load(&[source("good.yaml", &good)])), [""; 0]);
    for (name, text, want) in [
        (
            "unknown field",
            good.replace("context: inside", "context: inside\n  contxt: x"),
            "f.yaml:12: PbxEndpoint/1 spec.contxt: unknown field \"contxt\": did you mean context?",
        ),
        (
            "bad pattern",
            good.replace("_8XX", "_8[X"),
            "f.yaml:23: Dialplan/inside spec.extensions[0].pattern: bad pattern \"_8[X\": '[' without ']'",
        ),
        (
            "missing Secret",
            good.replace("metadata: {name: phones}", "metadata: {name: telephones}"),
            "f.yaml:14: PbxEndpoint/1 spec.auth.passwordSecretRef.name: there is no Secret \"phones\": write one with the key \"one\"",
        ),
        (
            "missing key",
            good.replace("{one: \"1\"}", "{two: \"1\"}"),
            "f.yaml:14: PbxEndpoint/1 spec.auth.passwordSecretRef.key: the Secret \"phones\" has nothing under the key \"one\": put the password there",
        ),
        (
            "duplicate username",
            format!("{good}---\n{}", phone("2", "1")),
            "f.yaml:34: PbxEndpoint/2 spec.auth.username: the username \"1\" belongs to PbxEndpoint/1: choose another",
        ),
        (
            "same context by metadata.name",
            format!("{good}---\n{}", context("inside", "9")),
            "f.yaml:30: Dialplan/inside metadata.name: the context \"inside\" is defined twice, here and at f.yaml:20: keep one",
        ),
        (
            "same context by spec.name",
            format!("{good}---\n{}", context("other", "9").replace("spec:", "spec:\n  name: inside")),
            "f.yaml:32: Dialplan/other spec.name: the context \"inside\" is defined twice: Dialplan/inside has it, choose another name",
        ),
        (
            "same pattern",
            good.replace("  - pattern: \"_8XX\"", "  - pattern: _8XX\n    steps: [echo: {}]\n  - pattern: _8[0-9]X"),
            "f.yaml:25: Dialplan/inside spec.extensions[1].pattern: pattern \"_8[0-9]X\" stands here a second time (first as \"_8XX\"): keep one",
        ),
        (
            "unknown kind",
            format!("{good}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\n"),
            "f.yaml:28: kind: unknown kind \"ConfigMap\": there are Pbx, PbxEndpoint, Dialplan, Dispatcher and Secret",
        ),
        (
            "wrong apiVersion",
            good.replacen("kubepbx.io/v1alpha1", "kubepbx.io/v1", 1),
            "f.yaml:6: apiVersion: PbxEndpoint has the apiVersion kubepbx.io/v1alpha1",
        ),
        (
            "number for text",
            good.replace("username: \"1\"", "username: 1"),
            "f.yaml:13: PbxEndpoint/1 spec.auth.username: is text: write it in quotes, \"1\"",
        ),
        (
            "illegal name",
            good.replace("  name: \"1\"", "  name: Phone_1"),
            "f.yaml:9: PbxEndpoint metadata.name: \"Phone_1\" is no name that Kubernetes allows: write lower-case letters, digits, - and ., and the name itself in spec.name",
        ),
        (
            "a rule",
            good.replace("aor: {}", "aor: {minimumExpiration: 7000}"),
            "f.yaml:15: PbxEndpoint/1 spec.aor: write minimumExpiration <= defaultExpiration <= maximumExpiration",
        ),
        (
            "missing context",
            good.replace("context: inside", "context: outside"),
            "f.yaml:11: PbxEndpoint/1 spec.context: there is no context \"outside\": write a Dialplan of this name",
        ),
        (
            "bad step",
            good.replace("answer: {}", "dial: {to: [SIP/1]}"),
            "f.yaml:25: Dialplan/inside spec.extensions[0].steps[0].dial.to[0]: bad dial target \"SIP/1\": write PJSIP/NAME",
        ),
        (
            "a number as password",
            good.replace("{one: \"1\"}", "{one: 1}"),
            "f.yaml:4: Secret/phones stringData.one: is text: write it in quotes",
        ),
    ] {
        let got = lines(&Folder::new(1).load(&[source("f.yaml", &text)]));
        // What the mistake entails for others may follow; the mistake itself is one line.
        assert_eq!(got.iter().filter(|line| *line == want).count(), 1, "{name}: {got:#?}\nwanted {want}");
        let entails = |line: &&String| line.contains("there is no Secret") || line.contains("there is no context");
        assert_eq!(got.iter().filter(|line| !entails(line) || *line == want).count(), 1, "{name}: {got:#?}");
    }
}

#[test]
fn what_is_not_yaml_names_its_line() {
    let update = Folder::new(1).load(&[source("f.yaml", "a: [1\nb: 2\n")]);
    assert!(
        lines(&update)[0].starts_with("f.yaml:") && lines(&update)[0].contains("not YAML"),
        "{:?}",
        update.problems
    );
    assert!(update.keeps_out());
    for text in ["- a\n", "just text\n", "kind: Pbx\n", "apiVersion: kubepbx.io/v1alpha1\nkind: Pbx\n"] {
        assert_eq!(Folder::new(1).load(&[source("f.yaml", text)]).problems.len(), 1, "{text}");
    }
    // Nothing at all is nothing wrong, and a Pbx may be all defaults.
    for text in
        ["", "# only a comment\n", "---\n", "apiVersion: kubepbx.io/v1alpha1\nkind: Pbx\nmetadata: {name: main}\n"]
    {
        assert_eq!(lines(&Folder::new(1).load(&[source("f.yaml", text)])), [""; 0], "{text}");
    }
}

#[test]
fn what_was_good_stays_when_a_change_is_bad() {
    let mut folder = Folder::new(1);
    let phones = format!("{SECRET}---\n{}", phone("1", "1"));
    let files = [source("a.yaml", &phones), source("b.yaml", &context("inside", "_8XX"))];
    assert!(!folder.load(&files).keeps_out());
    let routers = folder.compiler().router().clone();

    for bad in [
        "extensions: [",
        "kind: Nothing\n",
        &context("inside", "_8[X"),
        &context("inside", "1").replace("steps", "stops"),
    ] {
        let update = folder.load(&[files[0].clone(), source("b.yaml", bad)]);
        assert!(update.keeps_out(), "{bad}");
        assert!(update.problems.iter().all(|problem| problem.file == "b.yaml"), "{:?}", update.problems);
        assert_eq!(folder.compiler().router(), &routers, "{bad}");
        assert!(update.delta.router.is_none(), "{bad}");
    }
    // A bad document does not hold up the good ones beside it.
    let both = format!("{}---\n{}", context("inside", "1").replace("steps", "stops"), context("new", "2"));
    assert!(folder.load(&[files[0].clone(), source("b.yaml", &both)]).keeps_out());
    assert_eq!(state(&folder, Kind::Dialplan, "new"), Some(State::Live));
    assert_eq!(folder.compiler().router().entries["Dialplan/inside"], routers.entries["Dialplan/inside"]);
    // Made good again, the new text is live; taken away, it goes.
    let update = folder.load(&[files[0].clone(), source("b.yaml", &context("inside", "_9XX"))]);
    assert_eq!(lines(&update), [""; 0]);
    assert_eq!(update.delta.router.unwrap().delete, ["Dialplan/new"]);
    let update = folder.load(&files[..1]);
    assert_eq!(update.delta.router.as_ref().unwrap().delete, ["Dialplan/inside"]);
    assert!(!update.keeps_out() && update.problems.len() == 1, "{:?}", update.problems);
}

#[test]
fn nothing_changes_when_nothing_changed() {
    let mut folder = Folder::new(1);
    let files = [source("a.yaml", &format!("{SECRET}---\n{}---\n{}", phone("1", "1"), context("inside", "1")))];
    let first = folder.load(&files);
    assert_eq!(first.delta.registrar.unwrap().put.len(), 2);
    assert!(folder.load(&files).delta.is_empty());
    // A password changes the entries of the endpoints that use it, and of nobody else.
    let changed = [source("a.yaml", &files[0].text.replace("one: \"1\"", "one: \"2\""))];
    let delta = folder.load(&changed).delta;
    assert_eq!(delta.registrar.unwrap().put.keys().collect::<Vec<_>>(), ["PbxEndpoint/1"]);
    assert!(delta.media.is_none() && delta.balancer.is_none() && delta.conference.is_none());
}

#[test]
fn of_two_the_file_that_had_it_keeps_it() {
    let mut folder = Folder::new(1);
    let old = source("z.yaml", &context("inside", "1"));
    folder.load(std::slice::from_ref(&old));
    let update = folder.load(&[source("a.yaml", &context("inside", "2")), old]);
    assert!(lines(&update)[0].starts_with("a.yaml:4: Dialplan/inside"), "{:?}", update.problems);
    assert!(update.delta.router.is_none());
}

/// A second document of a name, put before or after the one that has it, in the same file or in another that comes
/// before or after, at first and again: the one that was live stays, and the other is told.
#[test]
fn of_two_in_one_file_the_one_that_was_there_keeps_it() {
    let (old, new) = (context("inside", "1"), context("inside", "2"));
    let join = |documents: &[&str]| documents.join("---\n");
    for (name, files, line) in [
        ("before", vec![source("f.yaml", &join(&[&new, &old]))], "f.yaml:4"),
        ("after", vec![source("f.yaml", &join(&[&old, &new]))], "f.yaml:14"),
        ("around", vec![source("f.yaml", &join(&[&new, &old, &new]))], "f.yaml:4"),
        ("file before", vec![source("a.yaml", &new), source("f.yaml", &old)], "a.yaml:4"),
        ("file after", vec![source("f.yaml", &old), source("g.yaml", &new)], "g.yaml:4"),
        ("same elsewhere", vec![source("a.yaml", &old), source("f.yaml", &join(&[&new, &old]))], "a.yaml:4"),
    ] {
        let mut folder = Folder::new(1);
        folder.load(&[source("f.yaml", &old)]);
        for again in 0..2 {
            let update = folder.load(&files);
            assert!(update.keeps_out() && update.delta.is_empty(), "{name} {again}: {:?}", update.problems);
            assert!(
                lines(&update)[0].starts_with(&format!("{line}: Dialplan/inside")),
                "{name}: {:?}",
                update.problems
            );
        }
        // The good file again, then a good change: nothing of the mistake is left.
        let update = folder.load(&[source("f.yaml", &old)]);
        assert_eq!(lines(&update), [""; 0], "{name}");
        assert!(update.delta.is_empty(), "{name}");
        let update = folder.load(&[source("f.yaml", &new)]);
        assert_eq!(update.delta.router.unwrap().put.keys().collect::<Vec<_>>(), ["Dialplan/inside"], "{name}");
    }
}

/// The one that was there is changed in the same breath: which of the two it was cannot be told, so it stays as it was,
/// and goes when both are gone.
#[test]
fn of_two_that_are_both_new_neither_is_taken() {
    let mut folder = Folder::new(1);
    folder.load(&[source("f.yaml", &context("inside", "1"))]);
    let both = [source("f.yaml", &format!("{}---\n{}", context("inside", "2"), context("inside", "3")))];
    for again in 0..2 {
        let update = folder.load(&both);
        assert!(update.delta.is_empty(), "{again}");
        assert_eq!(
            lines(&update),
            [
                "f.yaml:14: Dialplan/inside metadata.name: the context \"inside\" is defined twice, here and at f.yaml:4: keep one"
            ],
            "{again}"
        );
    }
    let update = folder.load(&[source("f.yaml", &context("inside", "3"))]);
    assert_eq!((lines(&update), update.delta.router.unwrap().put.len()), (vec![], 1));
    folder.load(&both);
    let update = folder.load(&[source("f.yaml", &context("other", "3"))]);
    assert_eq!(update.delta.router.unwrap().delete, ["Dialplan/inside"]);
}

#[test]
fn one_namespace() {
    let one = context("a", "1").replace("name: a", "name: a\n  namespace: x");
    let other = context("b", "1").replace("name: b", "name: b\n  namespace: z");
    let update = Folder::new(1).load(&[source("f.yaml", &format!("{one}---\n{other}"))]);
    assert!(lines(&update)[0].contains("metadata.namespace: another namespace"), "{:?}", update.problems);
}

#[test]
fn secrets_by_data_and_string_data() {
    let text = phone("1", "1");
    let secret = |body: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: phones}}\n{body}\n");
    let hashes = |body: &str| {
        let mut folder = Folder::new(1);
        folder.load(&[source("f.yaml", &format!("{text}---\n{}---\n{}", secret(body), context("inside", "1")))]);
        folder.compiler().registrar().entries.get("PbxEndpoint/1").cloned()
    };
    let plain = hashes("stringData: {one: \"pass\"}");
    assert!(plain.is_some());
    assert_eq!(plain, hashes("data: {one: cGFzcw==}"));
    assert_eq!(plain, hashes("data: {one: eA==}\nstringData: {one: pass}"));
    assert_eq!(None, hashes("data: {one: \"%%\"}"));
}

/// `testdata/NAME.in.yaml` to `testdata/NAME.out.yaml`. A line `# ---- then` begins the next state of the file.
/// `UPDATE_GOLDEN=1` writes the outcomes; the difference is for a person to read.
#[test]
fn golden() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| path.to_string_lossy().ends_with(".in.yaml"));
    inputs.sort();
    assert!(inputs.len() >= 4);
    for input in inputs {
        let text = std::fs::read_to_string(&input).unwrap();
        let mut folder = Folder::new(1);
        let states: Vec<_> = text.split("# ---- then\n").map(|text| outcome(&mut folder, text)).collect();
        let got = serde_yaml::to_string(&states).unwrap();
        let output = input.to_string_lossy().replace(".in.yaml", ".out.yaml");
        if update {
            std::fs::write(&output, &got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(&output).unwrap_or_default(), "{output}");
    }
}

fn outcome(folder: &mut Folder, text: &str) -> serde_json::Value {
    let update = folder.load(&[source("in.yaml", text)]);
    let compiler = folder.compiler();
    let states: BTreeMap<String, _> = compiler.statuses().iter().map(|(id, s)| (id.to_string(), s.state)).collect();
    json!({
        "problems": lines(&update),
        "states": states,
        "balancer": compiler.balancer().entries,
        "registrar": compiler.registrar().entries,
        "router": compiler.router().entries,
        "media": compiler.media().entries,
        "conference": compiler.conference().entries,
    })
}

/// `crds/` holds what the types say.
#[test]
fn the_committed_crds_are_the_generated_ones() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let files = crate::crds::files().unwrap();
    for (name, text) in &files {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let there = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert_eq!(&there, text, "crds/{name}: run `make generate`");
    }
    let yaml = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "yaml"));
    assert_eq!(yaml.count(), files.len());
}

/// The examples that the documentation names are good.
#[test]
fn the_examples_are_good() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for folder in ["first-call", "dispatcher", "dispatcher/server", "menu"] {
        let files: Vec<Source> = std::fs::read_dir(examples.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .map(|path| source(&path.to_string_lossy(), &std::fs::read_to_string(&path).unwrap()))
            .collect();
        let mut loaded = Folder::new(1);
        assert_eq!(lines(&loaded.load(&files)), [""; 0], "{folder}");
        assert!(!loaded.compiler().statuses().is_empty(), "{folder}");
    }
}
