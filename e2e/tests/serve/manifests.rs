//! Manifests that are wrong, at the start and while calls go on; what another PBX's files become.

use e2e::process::{kubepbx, root};
use e2e::{Pbx, Phone, Process, eventually, free_port};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

/// A mistake in a file of the first call.
struct Mistake {
    name: &'static str,
    file: &'static str,
    /// What stands there, and what is written instead (the first time it stands there).
    good: &'static str,
    bad: &'static str,
    /// The last line that has this is the one that is reported.
    at: &'static str,
    /// While it runs, the first line that has it is: the last one is what was live before.
    first_while_running: bool,
    /// What is said of it, after file and line.
    said: &'static str,
}

const MISTAKES: [Mistake; 6] = [
    Mistake {
        name: "unknown field",
        file: "phones.yaml",
        good: "  codecs: [ulaw]\n",
        bad: "  codecs: [ulaw]\n  codec: ulaw\n",
        at: "  codec: ulaw",
        first_while_running: false,
        said: "PbxEndpoint/8005 spec.codec: unknown field \"codec\": did you mean codecs?",
    },
    Mistake {
        name: "bad pattern",
        file: "dialplan.yaml",
        good: "_80XX\n",
        bad: "_80[X\n",
        at: "_80[X",
        first_while_running: false,
        said: "Dialplan/from-external spec.extensions[0].pattern: bad pattern \"_80[X\": '[' without ']'",
    },
    Mistake {
        name: "missing Secret",
        file: "phones.yaml",
        good: "{name: phones, key: \"8006\"}",
        bad: "{name: telephones, key: \"8006\"}",
        at: "telephones",
        first_while_running: false,
        said: "PbxEndpoint/8006 spec.auth.passwordSecretRef.name: there is no Secret \"telephones\": write one with the key \"8006\"",
    },
    Mistake {
        name: "duplicate username",
        file: "phones.yaml",
        good: "username: \"8006\"",
        bad: "username: \"8005\"",
        at: "username: \"8005\"",
        first_while_running: false,
        said: "PbxEndpoint/8006 spec.auth.username: the username \"8005\" belongs to PbxEndpoint/8005: choose another",
    },
    Mistake {
        name: "a context twice",
        file: "dialplan.yaml",
        good: "apiVersion:",
        bad: "apiVersion: kubepbx.io/v1alpha1\nkind: Dialplan\nmetadata: {name: from-external}\nspec:\n  extensions:\n  \
              - pattern: \"1\"\n    steps: [hangup: {}]\n---\napiVersion:",
        at: "name: from-external",
        first_while_running: true,
        said: "Dialplan/from-external metadata.name: the context \"from-external\" is defined twice, here and at ",
    },
    Mistake {
        name: "a pattern twice",
        file: "dialplan.yaml",
        good: "  - pattern: _80XX\n",
        bad: "  - pattern: _80XX\n    steps: [hangup: {}]\n  - pattern: _80[0-9]X\n",
        at: "_80[0-9]X",
        first_while_running: false,
        said: "Dialplan/from-external spec.extensions[1].pattern: pattern \"_80[0-9]X\" stands here a second time (first as \"_80XX\"): keep one",
    },
];

impl Mistake {
    /// Writes the mistake into the folder of a PBX that runs, or does not yet; returns how the message begins.
    fn make(&self, dir: &Path, running: bool) -> String {
        let path = dir.join(self.file);
        let good = std::fs::read_to_string(&path).unwrap();
        let bad = good.replacen(self.good, self.bad, 1);
        assert_ne!(good, bad, "{}", self.name);
        let lines: Vec<&str> = bad.lines().collect();
        let has = |line: &&str| line.contains(self.at);
        let first = running && self.first_while_running;
        let line = if first { lines.iter().position(has) } else { lines.iter().rposition(has) }.unwrap() + 1;
        std::fs::write(&path, &bad).unwrap();
        format!("{}:{line}: {}", path.display(), self.said)
    }
}

/// Runs the command until it ends, which it must do with an error, and returns what it printed on stderr.
fn fails(args: &[&str]) -> String {
    let mut process = Process::start(Command::new(kubepbx().unwrap()).args(args)).unwrap();
    let status = process.wait(SOON).unwrap();
    assert!(!status.success(), "{args:?} ended with {status}");
    // The pipe may be read a moment after the end.
    eventually("a message", SOON, || Some(process.stderr()).filter(|text| text.ends_with('\n'))).unwrap()
}

/// 8005 calls this number, which answers; `when` is told if it does not.
fn call(pbx: &Pbx, to: &str, when: &str) {
    let options = ["--to", to, "--seconds", "0.1"];
    let (ok, report) = Phone::start("call", pbx.sip, "8005", &options).unwrap().report(SOON).unwrap();
    assert!(ok, "{when}: {report}");
}

#[test]
fn a_mistake_at_the_start_is_one_message_and_an_exit_status() {
    for mistake in &MISTAKES {
        let dir = e2e::pbx::folder().unwrap();
        let manifests = dir.path().join("pbx");
        let message = mistake.make(&manifests, false);
        let path = manifests.to_str().unwrap();
        let (sip, http) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        for args in [&["check", path][..], &["serve", path, "--sip", &sip, "--http", &http, "--state", "none"]] {
            let said = fails(args);
            assert!(said.starts_with(&message), "{} {}:\n{said}wanted:\n{message}", mistake.name, args[0]);
            assert_eq!(said.lines().count(), 1, "{}:\n{said}", mistake.name);
        }
    }
}

/// Waits until this was printed so many times.
fn printed(pbx: &Pbx, text: &str, times: usize, when: &str) {
    let all = || pbx.process.stdout() + &pbx.process.stderr();
    let there = || Some(()).filter(|()| all().matches(text).count() >= times);
    let waited = eventually(text, SOON, there);
    assert!(waited.is_ok(), "{when}: not printed {times} times: {text}\n{}", all());
}

#[test]
fn a_mistake_while_it_runs_is_told_and_what_was_good_stays() {
    let pbx = Pbx::first_call(&[]).unwrap();
    let calls = (2 * MISTAKES.len()).to_string();
    let mut callee = Phone::answering(pbx.sip, "8006", &["--calls", &calls]).unwrap();
    let manifests = pbx.dir.path().join("pbx");
    let dialplan = manifests.join("dialplan.yaml");
    for (number, mistake) in MISTAKES.iter().enumerate() {
        let (name, file) = (mistake.name, manifests.join(mistake.file));
        let good = std::fs::read_to_string(&file).unwrap();
        let message = mistake.make(&manifests, true);
        printed(&pbx, &message, 1, name);
        printed(&pbx, "what was good there stays live", number + 1, name);
        call(&pbx, "8006", name);
        // The mistake is mended, and one more number dialled: 700, 701, ...
        std::fs::write(&file, good).unwrap();
        let more = format!("  - pattern: \"70{number}\"\n    steps:\n    - dial: {{to: [PJSIP/8006]}}\n");
        let text = std::fs::read_to_string(&dialplan).unwrap() + &more;
        std::fs::write(&dialplan, text).unwrap();
        printed(&pbx, "changes are live", number + 1, name);
        call(&pbx, &format!("70{number}"), &format!("mended: {name}"));
    }
    let (ok, report) = callee.report(SOON).unwrap();
    assert!(ok, "{report}");
}

#[test]
fn a_good_change_is_live_without_a_restart() {
    let mut pbx = Pbx::first_call(&[]).unwrap();
    let more = "apiVersion: v1\nkind: Secret\nmetadata: {name: more}\nstringData: {p: \"8007\"}\n---\n\
                apiVersion: kubepbx.io/v1alpha1\nkind: PbxEndpoint\nmetadata: {name: \"8007\"}\nspec:\n  \
                context: from-external\n  auth: {username: \"8007\", passwordSecretRef: {name: more, key: p}}\n  \
                aor: {maxContacts: 1}\n";
    let (_, report) = Phone::start("register", pbx.sip, "8007", &[]).unwrap().report(SOON).unwrap();
    assert_eq!(report["registered"], 401, "{report}");
    std::fs::write(pbx.dir.path().join("pbx/more.yaml"), more).unwrap();
    pbx.process.line("changes are live", SOON).unwrap();
    // Published, each service takes it up by itself, within a moment.
    let mut answering = || Phone::answering(pbx.sip, "8007", &[]).ok();
    let mut callee = eventually("8007 registers", SOON, &mut answering).unwrap();
    call(&pbx, "8007", "after a change");
    assert!(callee.report(SOON).unwrap().0);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = e2e::pbx::folder().unwrap();
    let path = dir.path().join("pbx");
    let serve = |sip: &str, http: &str| {
        fails(&["serve", path.to_str().unwrap(), "--sip", sip, "--http", http, "--state", "none", "--log", "error"])
    };
    let free = || format!("127.0.0.1:{}", free_port());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken_udp, taken_tcp) = (udp.local_addr().unwrap().to_string(), tcp.local_addr().unwrap().to_string());
    for (said, address) in [
        (serve(&taken_udp, &free()), &taken_udp),
        (serve(&taken_tcp, &free()), &taken_tcp),
        (serve(&free(), &taken_tcp), &taken_tcp),
    ] {
        assert!(said.contains(address.as_str()) && said.contains("in use"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Imports with these arguments: the manifests, and what is said on stderr.
fn import(args: &[&str]) -> (String, String) {
    let output = Command::new(kubepbx().unwrap()).arg("import").args(args).current_dir(root()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{err}");
    (out, err)
}

#[test]
fn asterisk_files_become_a_pbx() {
    let dir = tempfile::tempdir().unwrap();
    let (pjsip, extensions) = (dir.path().join("pjsip.conf"), dir.path().join("extensions.conf"));
    let phone = |number: &str| {
        format!(
            "[{number}]\ntype=endpoint\ncontext=from-external\ndisallow=all\nallow=ulaw\ntransport=udp\nauth={number}\n\
             aors={number}\n\n[{number}]\ntype=auth\nauth_type=userpass\npassword={number}\nusername={number}\n\n\
             [{number}]\ntype=aor\nmax_contacts=1\n\n"
        )
    };
    let transport = "[udp]\ntype=transport\nprotocol=udp\nbind=0.0.0.0:5061\n\n";
    std::fs::write(&pjsip, format!("{transport}{}{}", phone("8005"), phone("8006"))).unwrap();
    std::fs::write(&extensions, "[from-external]\nexten => _80XX,1,NoOp()\nsame => n,Dial(PJSIP/${EXTEN})\n").unwrap();
    for (pjsip, extensions) in [
        ("examples/import/pjsip.conf", "examples/import/extensions.conf"),
        (pjsip.to_str().unwrap(), extensions.to_str().unwrap()),
    ] {
        let (manifests, notes) = import(&["asterisk", "--pjsip", pjsip, "--extensions", extensions]);
        assert!(notes.contains("--sip 0.0.0.0:5061"), "the transport is told: {notes}");
        let pbx = Pbx::of(&manifests, &[]).unwrap();
        let mut callee = Phone::answering(pbx.sip, "8006", &[]).unwrap();
        call(&pbx, "8006", pjsip);
        assert!(callee.report(SOON).unwrap().0);
    }
}

#[test]
fn a_kamailio_set_takes_calls_once_something_refers_to_it() {
    let list = ["kamailio", "--dispatcher", "examples/import/dispatcher.list"];
    for (front, list) in [(false, list.to_vec()), (true, [&list[..], &["--front"]].concat())] {
        let (manifests, notes) = import(&list);
        assert_eq!(manifests.contains("match:"), front, "{manifests}");
        assert_eq!(notes.contains("takes no calls"), !front, "{notes}");
        let pbx = Pbx::of(&manifests, &[]).unwrap();
        let view = pbx.view("dispatchers").unwrap().to_string();
        assert!(view.contains("192.168.0.1") && view.contains("192.168.0.2"), "{view}");
    }
}
