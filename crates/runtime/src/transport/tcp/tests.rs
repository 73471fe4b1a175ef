//! Over real sockets on loopback.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const MESSAGE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 1\r\nContent-Length: 4\r\n\r\nbody";

type Events = mpsc::Receiver<TcpEvent>;

fn start(config: TcpConfig) -> (Tcp, Events, SocketAddr) {
    let (tcp, events) = Tcp::new(config, &Metrics::new());
    let addr = tcp.listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    (tcp, events, addr)
}

async fn next(events: &mut Events) -> TcpEvent {
    timeout(Duration::from_secs(5), events.recv()).await.expect("an event").expect("a sender")
}

async fn opened(events: &mut Events) -> Connection {
    match next(events).await {
        TcpEvent::Opened(connection) => connection,
        other => panic!("{other:?}"),
    }
}

async fn closed(events: &mut Events) -> CloseReason {
    match next(events).await {
        TcpEvent::Closed(_, reason) => reason,
        other => panic!("{other:?}"),
    }
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset ends the stream too.
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await.expect("the end");
    all
}

#[tokio::test]
async fn messages_come_whole_however_they_are_cut_and_answers_go_back() {
    let (tcp, mut events, addr) = start(TcpConfig::default());
    let mut phone = TcpStream::connect(addr).await.unwrap();
    let connection = opened(&mut events).await;
    assert_eq!((connection.remote, connection.local), (phone.local_addr().unwrap(), addr));
    let two = [MESSAGE, MESSAGE].concat();
    for cut in two.chunks(25) {
        phone.write_all(cut).await.unwrap();
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        assert_eq!(next(&mut events).await, TcpEvent::Message(connection, Bytes::from_static(MESSAGE)));
    }
    tcp.send(connection.id, Bytes::from_static(b"one")).unwrap();
    tcp.send(connection.id, Bytes::from_static(b"two")).unwrap();
    tcp.close(connection.id);
    assert_eq!(tcp.send(connection.id, Bytes::from_static(b"late")), Err(TcpError::Gone));
    assert_eq!(read_to_end(&mut phone).await, b"onetwo");
    drop(phone);
    assert_eq!(closed(&mut events).await, CloseReason::Local);
    assert!(tcp.connections().is_empty());
}

#[tokio::test]
async fn a_keep_alive_is_answered_by_one_line_end() {
    let (_tcp, mut events, addr) = start(TcpConfig::default());
    let mut phone = TcpStream::connect(addr).await.unwrap();
    opened(&mut events).await;
    phone.write_all(b"\r\n\r\n").await.unwrap();
    let mut pong = [0; 2];
    timeout(Duration::from_secs(5), phone.read_exact(&mut pong)).await.unwrap().unwrap();
    assert_eq!(&pong, b"\r\n");
    drop(phone);
    assert_eq!(closed(&mut events).await, CloseReason::Peer);
}

#[tokio::test]
async fn we_connect_and_what_was_sent_before_arrives() {
    let (server, mut inbound, addr) = start(TcpConfig::default());
    let (client, mut outbound) = Tcp::new(TcpConfig::default(), &Metrics::new());
    let id = client.connect(addr, Some("127.0.0.5".parse().unwrap())).unwrap();
    client.send(id, Bytes::from_static(MESSAGE)).unwrap();
    assert_eq!(client.find(addr), Some(id));
    let there = opened(&mut inbound).await;
    assert_eq!(there.remote.ip().to_string(), "127.0.0.5");
    assert_eq!(next(&mut inbound).await, TcpEvent::Message(there, Bytes::from_static(MESSAGE)));
    let here = opened(&mut outbound).await;
    assert_eq!((here.local, here.remote, here.outbound), (there.remote, addr, true));
    assert_eq!(client.get(id), Some(here));
    // It is used for what comes back, and is not one that the server opened.
    server.send(there.id, Bytes::from_static(MESSAGE)).unwrap();
    assert_eq!(next(&mut outbound).await, TcpEvent::Message(here, Bytes::from_static(MESSAGE)));
    assert_eq!(server.find(there.remote), None);
    drop(server);
    assert_eq!(closed(&mut outbound).await, CloseReason::Peer);
    assert_eq!(client.find(addr), None);
}

#[tokio::test]
async fn a_refused_connection_is_told() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let (client, mut events) = Tcp::new(TcpConfig::default(), &Metrics::new());
    client.connect(addr, None).unwrap();
    assert_eq!(closed(&mut events).await, CloseReason::ConnectFailed);
    assert_eq!(client.find(addr), None);
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_by_address_and_places_are_given_back() {
    let (_tcp, mut events, addr) = start(TcpConfig { max_per_address: Some(1), ..TcpConfig::default() });
    let one = TcpStream::connect(addr).await.unwrap();
    opened(&mut events).await;
    let mut two = TcpStream::connect(addr).await.unwrap();
    assert!(read_to_end(&mut two).await.is_empty());
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let _other = socket.connect(addr).await.unwrap();
    opened(&mut events).await;
    drop(one);
    assert_eq!(closed(&mut events).await, CloseReason::Peer);
    let _three = TcpStream::connect(addr).await.unwrap();
    opened(&mut events).await;

    let (tcp, mut events, addr) = start(TcpConfig { max_connections: 1, ..TcpConfig::default() });
    let _one = TcpStream::connect(addr).await.unwrap();
    opened(&mut events).await;
    let mut two = TcpStream::connect(addr).await.unwrap();
    assert!(read_to_end(&mut two).await.is_empty());
    assert_eq!(tcp.connect(addr, None), Err(TcpError::TooMany));
}

#[tokio::test]
async fn a_message_that_trickles_is_cut_off_though_every_byte_is_in_time() {
    let config = TcpConfig { message_timeout: Duration::from_millis(300), ..TcpConfig::default() };
    let (_tcp, mut events, addr) = start(config);
    let mut phone = TcpStream::connect(addr).await.unwrap();
    let connection = opened(&mut events).await;
    // A whole message first, so that the clock is that of the second.
    phone.write_all(MESSAGE).await.unwrap();
    assert_eq!(next(&mut events).await, TcpEvent::Message(connection, Bytes::from_static(MESSAGE)));
    let trickle = tokio::spawn(async move {
        for byte in MESSAGE.iter().cycle().take(200) {
            if phone.write_all(std::slice::from_ref(byte)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(closed(&mut events).await, CloseReason::SlowMessage);
    trickle.abort();
}

#[tokio::test]
async fn a_silent_newcomer_and_an_idle_connection_are_closed() {
    let silent = TcpConfig { message_timeout: Duration::from_millis(200), ..TcpConfig::default() };
    let (_tcp, mut events, addr) = start(silent);
    let mut phone = TcpStream::connect(addr).await.unwrap();
    opened(&mut events).await;
    // Line ends are no message.
    phone.write_all(b"\r\n").await.unwrap();
    assert_eq!(closed(&mut events).await, CloseReason::SlowMessage);

    let (_tcp, mut events, addr) = start(TcpConfig { idle: Duration::from_millis(200), ..TcpConfig::default() });
    let mut phone = TcpStream::connect(addr).await.unwrap();
    opened(&mut events).await;
    phone.write_all(MESSAGE).await.unwrap();
    next(&mut events).await;
    assert_eq!(closed(&mut events).await, CloseReason::Idle);
    assert!(read_to_end(&mut phone).await.is_empty());
}

#[tokio::test]
async fn a_peer_that_takes_nothing_fills_its_queue_and_is_closed() {
    let config =
        TcpConfig { write_timeout: Duration::from_millis(300), queue_bytes: 256 * 1024, ..TcpConfig::default() };
    let (tcp, mut events, addr) = start(config);
    let _deaf = TcpStream::connect(addr).await.unwrap();
    let id = opened(&mut events).await.id;
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    let mut full = false;
    for _ in 0..10_000 {
        match tcp.send(id, chunk.clone()) {
            Ok(()) => {}
            Err(TcpError::Full) => full = true,
            Err(TcpError::Gone) => break,
            Err(other) => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(full);
    assert_eq!(closed(&mut events).await, CloseReason::SlowWrite);
}

#[tokio::test]
async fn a_stream_that_is_no_sip_can_be_answered_before_it_is_closed() {
    let (tcp, mut events, addr) = start(TcpConfig::default());
    let mut phone = TcpStream::connect(addr).await.unwrap();
    let connection = opened(&mut events).await;
    phone.write_all(b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: x\r\n\r\n and more").await.unwrap();
    match next(&mut events).await {
        TcpEvent::Broken(broken, fault) => {
            assert_eq!(broken, connection);
            assert!(fault.head.is_some());
        }
        other => panic!("{other:?}"),
    }
    tcp.send(connection.id, Bytes::from_static(b"SIP/2.0 400 Bad Request\r\n\r\n")).unwrap();
    tcp.close(connection.id);
    assert_eq!(read_to_end(&mut phone).await, b"SIP/2.0 400 Bad Request\r\n\r\n");
    drop(phone);
    assert_eq!(closed(&mut events).await, CloseReason::Broken);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_listeners_and_connections() {
    let (tcp, mut events, addr) = start(TcpConfig::default());
    let mut phone = TcpStream::connect(addr).await.unwrap();
    opened(&mut events).await;
    let again = tcp.clone();
    drop(tcp);
    assert_eq!(again.connections().len(), 1);
    drop(again);
    assert!(read_to_end(&mut phone).await.is_empty());
    // The listener's task ends on its own time.
    for _ in 0..100 {
        if TcpStream::connect(addr).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still listening");
}
