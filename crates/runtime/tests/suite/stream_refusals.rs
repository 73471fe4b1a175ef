//! Who is not served, and how that is said; whose place another takes.

use super::site::{Publisher, Site, metric, soon};
use contract::ProcessId;
use contract::config::Version;
use contract::process::Service;
use contract::stream::{Ack, MAX_ACK, MAX_ERROR, SCHEMA};
use runtime::Metrics;
use runtime::stream::registry::MAX_PROCESSES;
use runtime::stream::server::Leader;
use tokio::io::AsyncReadExt;

fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n")
}

fn post(token: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/acks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn ack(service: Service, process: u64, error: Option<&str>) -> String {
    let (process, version, error) = (ProcessId(process), Version { epoch: 1, n: 2, hash: 3 }, error.map(str::to_owned));
    serde_json::to_string(&Ack { schema: SCHEMA, service, process, pod: "p".into(), version, error }).unwrap()
}

#[tokio::test]
async fn each_refusal_has_its_status_and_its_words() {
    let mut publisher = Publisher::new();
    publisher.publish(&[("a", 1)], &[]);
    let site = Site::new(&publisher.source).await;
    let path = "/v1/stream/router?process=01&pod=router-1";
    let bare = "GET /v1/stream/router?process=1&pod=p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned();
    for (request, status, words) in [
        (bare, 401, "a bearer token is needed"),
        (get(path, ""), 401, "a bearer token is needed"),
        (get(path, "nonsense"), 401, "not a token"),
        (get(path, &format!("tel/{}", "x".repeat(9000))), 401, "a bearer token is needed"),
        (get(path, "busy"), 503, "no API server"),
        (
            get(path, "tel/pbx-media"),
            403,
            "service account pbx-media of namespace tel may not follow router: that is for pbx-router",
        ),
        (get(path, "tel/default"), 403, "that is for pbx-router"),
        (get(path, "tel/other-router"), 403, "that is for pbx-router"),
        (get(path, "tel/pbx-router/router-2"), 403, "the token is not that of pod router-1"),
        (get(path, "elsewhere/pbx-router"), 503, "no configuration for namespace elsewhere yet"),
        (get("/v1/stream/media?process=1", "tel/pbx-media"), 503, "no configuration for media yet"),
        (get("/v1/stream/operator?process=1", "tel/pbx-router"), 404, "no such service"),
        (get("/v1/stream/router", "tel/pbx-router"), 400, "process"),
        (get("/v1/stream/router?process=x", "tel/pbx-router"), 400, "not hexadecimal"),
        (get("/v1/stream/router?process=1&n=x", "tel/pbx-router"), 400, ""),
        (get("/v1/acks", "tel/pbx-router"), 405, ""),
        (post("nonsense", &ack(Service::Router, 1, None)), 401, "not a token"),
        (post("tel/pbx-router", "{}"), 400, "not an acknowledgement"),
        (post("tel/pbx-router", &ack(Service::Router, 1, None).replace("\"schema\":1", "\"schema\":9")), 400, "schema"),
        (post("tel/pbx-router", &ack(Service::Router, 1, None)), 409, "follows no stream here"),
        (post("tel/pbx-media", &ack(Service::Router, 1, None)), 403, "that is for pbx-router"),
        (post("tel/pbx-router", &ack(Service::Router, 1, Some(&"x".repeat(MAX_ACK)))), 413, ""),
    ] {
        let line = request.lines().next().unwrap_or_default().to_owned();
        let (got, head, body) = site.ask(&request, |_| false).await;
        assert_eq!(got, status, "{line}: {body}");
        assert!(body.contains(words), "{line}: {body}");
        assert_eq!(head.contains("\r\nretry-after: 1"), status == 503, "{line}: {head}");
    }
    let acks = site.registry.acks("tel").unwrap().borrow().clone();
    assert!(acks.is_empty(), "nobody who was refused is known: {acks:?}");
    assert_eq!(metric(&site.metrics, r#"kubepbx_stream_refused_total{reason="forbidden"}"#), 5);
}

#[tokio::test]
async fn who_does_not_lead_says_who_does_and_asks_for_no_token() {
    let publisher = Publisher::new();
    let site = Site::new(&publisher.source).await;
    let path = "/v1/stream/router?process=1&pod=p&epoch=3&n=4&hash=5";
    site.leader.send_replace(Leader::There("https://10.2.0.7:8443".into()));
    let (status, head, _) = site.ask(&get(path, "x"), |_| false).await;
    assert_eq!(status, 307);
    assert!(head.contains(&format!("\r\nlocation: https://10.2.0.7:8443{path}")), "{head}");
    let (status, head, _) = site.ask(&post("x", "{}"), |_| false).await;
    assert!(status == 307 && head.contains("\r\nlocation: https://10.2.0.7:8443/v1/acks"), "{head}");
    site.leader.send_replace(Leader::Nobody);
    let (status, head, body) = site.ask(&get(path, "x"), |_| false).await;
    assert!(status == 503 && head.contains("\r\nretry-after: 1") && body.contains("nobody leads"), "{head}{body}");
}

#[tokio::test]
async fn a_stream_is_lines_and_a_client_without_tls_gets_nothing() {
    let mut publisher = Publisher::new();
    publisher.publish(&[("a", 1)], &[]);
    let site = Site::new(&publisher.source).await;
    let request = get("/v1/stream/router?process=1&pod=p", "tel/pbx-router/p");
    let (status, head, body) = site.ask(&request, |body| body.contains("\"ping\"")).await;
    assert!(status == 200 && head.contains("\r\ncontent-type: application/x-ndjson"), "{head}");
    let hash = publisher.version.hash;
    let snapshot =
        format!(r#"{{"schema":1,"snapshot":{{"version":{{"epoch":0,"n":1,"hash":{hash}}},"entries":{{"a":1}}}}}}"#);
    let ping = format!(r#"{{"schema":1,"ping":{{"epoch":0,"n":1,"hash":{hash}}}}}"#);
    let lines: Vec<&str> = body.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines, [snapshot, ping]);

    let mut plain = tokio::net::TcpStream::connect(site.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    _ = soon(plain.read_to_end(&mut answer)).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_pod_has_one_process_and_the_last_stream_of_a_process_counts() {
    let mut publisher = Publisher::new();
    publisher.publish(&[("a", 1)], &[]);
    let site = Site::new(&publisher.source).await;
    let open =
        |process: u64, pod: &str| get(&format!("/v1/stream/router?process={process:x}&pod={pod}"), "tel/pbx-router");
    // The stream of process 1 ends when process 2 of its pod comes: its container was restarted.
    let request = open(1, "p");
    let first = site.ask(&request, |_| false);
    let second = async {
        site.known(1, |f| f.is_some_and(|f| f.connected && f.pod == "p")).await;
        site.ask(&open(2, "p"), |body| body.contains("ping")).await
    };
    let (first, _) = tokio::join!(first, second);
    assert_eq!(first.0, 200);
    site.known(1, |f| f.is_none()).await;
    // Closed by the client; it is remembered as gone, since when, and with its version.
    site.known(2, |f| f.is_some_and(|f| !f.connected)).await;
    assert_eq!(site.ask(&post("tel/pbx-router", &ack(Service::Router, 2, Some("no\nway"))), |_| false).await.0, 204);
    site.known(2, |f| f.is_some_and(|f| f.version.n == 2 && f.error.as_deref() == Some("no way"))).await;
    let long = "ü".repeat(MAX_ERROR);
    assert_eq!(site.ask(&post("tel/pbx-router", &ack(Service::Router, 2, Some(&long))), |_| false).await.0, 204);
    site.known(2, |f| f.is_some_and(|f| f.error.as_ref().is_some_and(|e| e.len() <= MAX_ERROR && e.len() > 1000)))
        .await;
    // Another stream of the same process takes the place of the one before, and keeps what it acknowledged.
    let request = open(2, "p");
    let one = site.ask(&request, |_| false);
    let other = async {
        site.known(2, |f| f.is_some_and(|f| f.connected)).await;
        site.ask(&open(2, "p"), |body| body.contains("ping")).await
    };
    tokio::join!(one, other);
    site.known(2, |f| f.is_some_and(|f| !f.connected && f.version.n == 2)).await;
    site.registry.forget("tel", Service::Router, "p");
    site.known(2, |f| f.is_none()).await;
}

#[tokio::test]
async fn those_longest_gone_make_room() {
    let mut publisher = Publisher::new();
    publisher.publish(&[("a", 1)], &[]);
    let site = Site::new(&publisher.source).await;
    let kept = site.follow(1, &Metrics::new());
    site.known(1, |f| f.is_some_and(|f| f.connected)).await;
    for n in 2..=MAX_PROCESSES as u64 + 3 {
        let request = get(&format!("/v1/stream/router?process={n:x}&pod=p{n}"), "tel/pbx-router");
        assert_eq!(site.ask(&request, |body| body.contains("entries")).await.0, 200);
        site.known(n, |f| f.is_some_and(|f| !f.connected)).await;
    }
    let acks = site.registry.acks("tel").unwrap().borrow().clone();
    let known = &acks[&Service::Router];
    assert_eq!(known.len(), MAX_PROCESSES);
    assert!(known.contains_key(&ProcessId(1)) && !known.contains_key(&ProcessId(2)), "the one that is there stays");
    drop(kept);
}
