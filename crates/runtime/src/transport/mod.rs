//! Transports towards the outside: UDP in batches, and TCP connections cut into SIP messages.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;

pub mod tcp;
pub mod udp;

/// A socket bound to `addr`, non-blocking; IPv6 sockets take IPv6 only.
fn bound(addr: SocketAddr, kind: Type, reuse_port: bool, freebind: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // So that a restart need not wait for connections in TIME-WAIT.
        socket.set_reuse_address(true)?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if freebind {
        if addr.is_ipv6() { socket.set_freebind_v6(true)? } else { socket.set_freebind_v4(true)? }
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}
