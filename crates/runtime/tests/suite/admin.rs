//! The admin server, asked over a real connection.

use runtime::admin::{AdminState, serve};
use runtime::log::{Follow, Log, Page};
use runtime::running::Done;
use runtime::{Clock, Health, Metrics, Running};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status code and body of a GET.
async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    ask(addr, &format!("GET {path}"), "").await
}

/// Status code and body of a request with these header fields more.
async fn ask(addr: SocketAddr, request: &str, fields: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn health_metrics_and_views_are_served() {
    let (health, metrics) = (Health::new(Clock::new()), Metrics::new());
    let mut running = Running::new();
    running.view("registrations", || async { serde_json::json!([{"aor": "8005"}]) });
    let part = health.part("balancer");
    let state = AdminState::new(health.clone(), metrics.clone()).of(&running);
    let (addr, serving) = serve("127.0.0.1:0".parse().unwrap(), state.clone()).await.unwrap();
    let server = tokio::spawn(serving);
    assert_eq!(get(addr, "/livez").await, (200, "ok\n".into()));
    assert_eq!(get(addr, "/readyz").await, (503, "not ready: balancer\n".into()));
    part.ready();
    assert_eq!(get(addr, "/readyz").await, (200, "ok\n".into()));
    metrics.counter("calls", "Calls begun").inc();
    let (status, text) = get(addr, "/metrics").await;
    assert!(status == 200 && text.contains("kubepbx_calls_total 1\n") && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(get(addr, "/v1/registrations").await, (200, r#"[{"aor":"8005"}]"#.into()));
    assert_eq!(get(addr, "/v1").await, (200, r#"["registrations"]"#.into()));
    assert_eq!(get(addr, "/v1/none").await.0, 404);
    let taken = serve(addr, state).await.err().unwrap();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    server.abort();
}

#[tokio::test]
async fn what_answers_in_a_way_of_its_own_comes_before_a_view() {
    let mut running = Running::new();
    running.view("targets", || async { serde_json::json!([]) });
    running.view("others", || async { serde_json::json!([]) });
    let own = axum::Router::new().route("/v1/targets", axum::routing::get(|| async { "own" }));
    let state = AdminState::new(Health::new(Clock::new()), Metrics::new()).of(&running).with(own);
    let (addr, serving) = serve("127.0.0.1:0".parse().unwrap(), state).await.unwrap();
    let server = tokio::spawn(serving);
    assert_eq!(get(addr, "/v1/targets").await, (200, "own".into()));
    assert_eq!(get(addr, "/v1/others").await, (200, "[]".into()));
    server.abort();
}

/// A log that counts how often somebody began to wait for it.
struct Watched(Log<&'static str>, Arc<AtomicUsize>);

impl Follow for Watched {
    fn all(&self) -> Vec<serde_json::Value> {
        self.0.all()
    }

    fn after(&self, cursor: &str) -> Page {
        self.0.after(cursor)
    }

    fn grown(&self) -> tokio::sync::watch::Receiver<u64> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.grown()
    }
}

#[tokio::test]
async fn a_log_is_followed_by_cursor() {
    let mut running = Running::new();
    let (log, looks) = (Log::new("r1", 2), Arc::new(AtomicUsize::new(0)));
    running.log("events", Watched(log.clone(), looks.clone()));
    let state = AdminState::new(Health::new(Clock::new()), Metrics::new()).of(&running);
    let (addr, serving) = serve("127.0.0.1:0".parse().unwrap(), state).await.unwrap();
    let server = tokio::spawn(serving);
    ["a", "b", "c"].into_iter().for_each(|event| log.write(event));
    assert_eq!(get(addr, "/v1/events").await, (200, r#"["b","c"]"#.into()));
    let page = get(addr, "/v1/events?after=r1:0").await.1;
    assert_eq!(page, r#"{"events":["b","c"],"lost":1,"next":"r1:3"}"#);
    assert_eq!(get(addr, "/v1/events?after=r1:3").await.1, r#"{"events":[],"lost":0,"next":"r1:3"}"#);
    // Who waits is answered when something is written.
    let waiting = tokio::spawn(async move { get(addr, "/v1/events?after=r1:3&wait=30").await.1 });
    while looks.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    log.write("d");
    assert_eq!(waiting.await.unwrap(), r#"{"events":["d"],"lost":0,"next":"r1:4"}"#);
    server.abort();
}

#[tokio::test]
async fn a_command_is_taken_from_no_web_page() {
    let mut running = Running::new();
    running.command("calls", "hangup", |id| async move { if id == "a" { Done::Done } else { Done::Unknown } });
    let state = AdminState::new(Health::new(Clock::new()), Metrics::new()).of(&running);
    let (here, serving) = serve("127.0.0.1:0".parse().unwrap(), state).await.unwrap();
    let server = tokio::spawn(serving);
    let post = |id: &str| format!("POST /v1/calls/{id}/hangup");
    assert_eq!(ask(here, &post("a"), "Content-Length: 0\r\n").await, (204, String::new()));
    assert_eq!(ask(here, &post("b"), "").await.0, 404);
    assert_eq!(ask(here, "POST /v1/calls/a/answer", "").await.0, 404);
    assert_eq!(get(here, "/v1/calls/a/hangup").await.0, 405);
    assert_eq!(ask(here, &post("a"), "Origin: http://evil.example\r\n").await.0, 403);
    server.abort();
}
