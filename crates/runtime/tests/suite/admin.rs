//! The admin server, asked over a real connection.

use runtime::admin::{AdminState, serve};
use runtime::{Clock, Health, Metrics, Running};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status code and body of a GET.
async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
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
    let state = AdminState { health: health.clone(), metrics: metrics.clone(), views: running.views.clone() };
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
