//! The system calls: recvmmsg and sendmmsg with IP_PKTINFO and IPV6_PKTINFO.
#![allow(unsafe_code)] // std and socket2 have neither batches nor control messages.

use super::{BATCH, Outgoing, Received, RecvBatch};
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use tokio::io::unix::AsyncFd;

/// Room for one control message of either family, aligned as cmsghdr has to be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

const CONTROL: usize = 64;

/// Hands the socket to the runtime's poller.
pub(super) fn register(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the socket owns its open descriptor and nobody replaces or closes it while the poller has it.
    Ok(unsafe { AsyncFd::register(socket)? })
}

/// Has every datagram say which address it was sent to.
pub(super) fn ask_for_local_address(socket: &UdpSocket, v6: bool) -> io::Result<()> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for the borrow of `socket`; the option is an int, whose size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives what is there, up to the batch's slots; `bound` is what the socket is bound to.
pub(super) fn recv(socket: &UdpSocket, batch: &mut RecvBatch, bound: SocketAddr) -> io::Result<()> {
    batch.received.clear();
    // SAFETY: all-zero bytes are valid for these plain C structs.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut names: [libc::sockaddr_storage; BATCH] = unsafe { mem::zeroed() };
    let mut controls = [Control([0; CONTROL]); BATCH];
    // SAFETY: as above.
    let mut slices: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
    let mut count = 0;
    for (i, slot) in batch.buffer.chunks_mut(batch.slot).take(BATCH).enumerate() {
        slices[i] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = ptr::from_mut(&mut names[i]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_iov = &raw mut slices[i];
        header.msg_iovlen = 1;
        header.msg_control = controls[i].0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL;
        count += 1;
    }
    // SAFETY: the first `count` headers point at names, control buffers, slices and slots that outlive the call and
    // are not otherwise borrowed; their lengths are those of what they point at.
    let got = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    for (header, name) in headers.iter().zip(&names).take(got) {
        // A name of another family cannot come; such a datagram has no sender and stays an empty one of nobody's.
        let remote = read_name(name).unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
        let ip = read_control(&header.msg_hdr).unwrap_or(bound.ip());
        batch.received.push(Received {
            len: header.msg_len as usize,
            remote,
            local: SocketAddr::new(ip, bound.port()),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        });
    }
    Ok(())
}

/// Sends the first of `waiting` and as many after it as one call takes; the error is that of the first.
pub(super) fn send(socket: &UdpSocket, waiting: &[Outgoing]) -> io::Result<usize> {
    // SAFETY: all-zero bytes are valid for these plain C structs.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut names: [libc::sockaddr_storage; BATCH] = unsafe { mem::zeroed() };
    let mut controls = [Control([0; CONTROL]); BATCH];
    // SAFETY: as above.
    let mut slices: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
    let mut count = 0;
    for (i, out) in waiting.iter().take(BATCH).enumerate() {
        // The kernel only reads through this pointer, which has no const form.
        slices[i] = libc::iovec { iov_base: out.bytes.as_ptr().cast_mut().cast(), iov_len: out.bytes.len() };
        let header = &mut headers[i].msg_hdr;
        header.msg_namelen = write_name(out.to, &mut names[i]);
        header.msg_name = ptr::from_mut(&mut names[i]).cast();
        header.msg_iov = &raw mut slices[i];
        header.msg_iovlen = 1;
        if let Some(from) = out.from {
            header.msg_control = controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
            write_control(header, from);
        }
        count += 1;
    }
    // SAFETY: the first `count` headers point at names, control buffers, slices and payloads that outlive the call;
    // their lengths are those of what they point at. The kernel writes nothing but msg_len.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn read_name(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is larger than and as aligned as a sockaddr_in, and says that it is one.
            let v4 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the storage is larger than and as aligned as a sockaddr_in6, and says that it is one.
            let v6 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn write_name(addr: SocketAddr, name: &mut libc::sockaddr_storage) -> libc::socklen_t {
    match addr {
        SocketAddr::V4(addr) => {
            // SAFETY: the storage is larger than and as aligned as a sockaddr_in; all its bytes are initialised.
            let v4 = unsafe { &mut *ptr::from_mut(name).cast::<libc::sockaddr_in>() };
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = addr.port().to_be();
            v4.sin_addr.s_addr = u32::from(*addr.ip()).to_be();
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(addr) => {
            // SAFETY: the storage is larger than and as aligned as a sockaddr_in6; all its bytes are initialised.
            let v6 = unsafe { &mut *ptr::from_mut(name).cast::<libc::sockaddr_in6>() };
            v6.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            v6.sin6_port = addr.port().to_be();
            v6.sin6_addr.s6_addr = addr.ip().octets();
            v6.sin6_scope_id = addr.scope_id();
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// The destination address in the control messages that the kernel wrote.
fn read_control(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel filled `msg_control` up to `msg_controllen`, which the CMSG functions stay within; data are
    // read unaligned and only after level and type have said what they are.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        while !at.is_null() {
            match ((*at).cmsg_level, (*at).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(at).cast());
                    return Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(at).cast());
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                _ => at = libc::CMSG_NXTHDR(header, at),
            }
        }
    }
    None
}

/// Writes one control message that sets the source address, and its length into the header.
fn write_control(header: &mut libc::msghdr, from: IpAddr) {
    match from {
        IpAddr::V4(ip) => {
            // SAFETY: all-zero bytes are a valid in_pktinfo: any interface, no address.
            let mut info: libc::in_pktinfo = unsafe { MaybeUninit::zeroed().assume_init() };
            info.ipi_spec_dst.s_addr = u32::from(ip).to_be();
            put_control(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        IpAddr::V6(ip) => {
            // SAFETY: all-zero bytes are a valid in6_pktinfo.
            let mut info: libc::in6_pktinfo = unsafe { MaybeUninit::zeroed().assume_init() };
            info.ipi6_addr.s6_addr = ip.octets();
            put_control(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
}

fn put_control<T: Copy>(header: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, data: T) {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: `msg_control` points at CONTROL zeroed bytes, more than CMSG_SPACE of either packet info, so the first
    // header is not null and its data lie within.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let at = libc::CMSG_FIRSTHDR(header);
        (*at).cmsg_level = level;
        (*at).cmsg_type = kind;
        (*at).cmsg_len = libc::CMSG_LEN(size) as usize;
        ptr::write_unaligned(libc::CMSG_DATA(at).cast::<T>(), data);
    }
}

// Both packet infos fit the room for control messages.
const _: () = assert!(size_of::<libc::cmsghdr>() + size_of::<libc::in6_pktinfo>() + 8 <= CONTROL);
