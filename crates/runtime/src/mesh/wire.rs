//! What stands on a connection between two processes: who each is, proved by the installation's key both ways, then frames.
//!
//! The one that dials says hello, the other answers with a proof, the first with its own. A frame is length (4 bytes,
//! big endian, of what follows), kind (1 byte), body. Frames of a kind that nobody here knows are acknowledged and ignored.

use super::Parcel;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use contract::{KeyRing, ProcessId, Service};
use rand::RngCore;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A frame's kind and body are at most this long, in bytes.
pub(super) const MAX_FRAME: usize = 4 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"KubePBX\x01";
const MAC: usize = contract::key::MAC_LEN;
const NONCE: usize = 16;
/// Magic, key, from, to, service, nonce.
const HELLO: usize = 8 + 1 + 8 + 8 + 1 + NONCE;
/// Key, service, nonce, proof.
const WELCOME: usize = 1 + 1 + NONCE + MAC;

const SIP: u8 = 1;
const ACK: u8 = 2;
const EVENT: u8 = 3;

/// Who is at the ends of a connection, seen from one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) local: ProcessId,
    pub(super) remote: ProcessId,
    /// Of the remote end.
    pub(super) service: Service,
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn code(service: Service) -> u8 {
    Service::ALL.iter().position(|s| *s == service).map_or(u8::MAX, |at| at as u8)
}

fn service(code: u8) -> io::Result<Service> {
    Service::ALL.get(usize::from(code)).copied().ok_or_else(|| refused("a service that is not known"))
}

/// Proves to the process at the other end who we are, and has it prove that it is `to`.
pub(super) async fn dial(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    keys: &KeyRing,
    from: (ProcessId, Service),
    to: ProcessId,
) -> io::Result<Ends> {
    let mut hello = BytesMut::with_capacity(HELLO);
    hello.put_slice(MAGIC);
    hello.put_u8(keys.current().id);
    hello.put_u64(from.0.0);
    hello.put_u64(to.0);
    hello.put_u8(code(from.1));
    hello.put_slice(&nonce());
    stream.write_all(&hello).await?;
    let mut welcome = [0; WELCOME];
    stream.read_exact(&mut welcome).await?;
    let (said, proof) = welcome.split_at(WELCOME - MAC);
    let (key, remote) = (welcome[0], service(welcome[1])?);
    if !keys.verify(key, "mesh accept", &[&hello, said], proof) {
        return Err(refused("the other end does not have the installation's key"));
    }
    let ours = keys.all().into_iter().find(|k| k.id == key).ok_or_else(|| refused("a key that is not known"))?;
    stream.write_all(&ours.mac("mesh dial", &[&hello, said])).await?;
    Ok(Ends { local: from.0, remote: to, service: remote })
}

/// The other side of [`dial`]. `ours` gives the service of a process here by its name.
pub(super) async fn accept(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    keys: &KeyRing,
    ours: impl Fn(ProcessId) -> Option<Service>,
) -> io::Result<Ends> {
    let mut hello = [0; HELLO];
    stream.read_exact(&mut hello).await?;
    let mut rest = hello.strip_prefix(MAGIC).ok_or_else(|| refused("not a process of a KubePBX"))?;
    let wanted = rest.get_u8();
    let (remote, local) = (ProcessId(rest.get_u64()), ProcessId(rest.get_u64()));
    let theirs = service(rest.get_u8())?;
    let here = ours(local).ok_or_else(|| refused("for a process that is not here"))?;
    // The key that the other end uses, if we have it: while keys are rotated one end may not have the newer yet.
    let key = keys.all().into_iter().find(|k| k.id == wanted).unwrap_or_else(|| keys.current());
    let mut welcome = BytesMut::with_capacity(WELCOME);
    welcome.put_u8(key.id);
    welcome.put_u8(code(here));
    welcome.put_slice(&nonce());
    let said = welcome.clone();
    welcome.put_slice(&key.mac("mesh accept", &[&hello, &said]));
    stream.write_all(&welcome).await?;
    let mut proof = [0; MAC];
    stream.read_exact(&mut proof).await?;
    if !keys.verify(key.id, "mesh dial", &[&hello, &said], &proof) {
        return Err(refused("the other end does not have the installation's key"));
    }
    Ok(Ends { local, remote, service: theirs })
}

fn nonce() -> [u8; NONCE] {
    let mut bytes = [0; NONCE];
    crate::entropy().fill_bytes(&mut bytes);
    bytes
}

/// What a frame brings.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Frame {
    Parcel(Parcel),
    /// How many frames, acknowledgements not counted, were taken on this connection.
    Ack(u64),
    /// Of a later release.
    Unknown,
}

/// Writes an acknowledgement.
pub(super) fn put_ack(out: &mut BytesMut, count: u64) {
    out.put_u32(9);
    out.put_u8(ACK);
    out.put_u64(count);
}

/// The kind and body of a parcel.
pub(super) fn body(parcel: &Parcel) -> (u8, Bytes) {
    match parcel {
        Parcel::Sip(bytes) => (SIP, bytes.clone()),
        // Of plain fields, so this cannot fail.
        Parcel::Event(event) => (EVENT, serde_json::to_vec(event).unwrap_or_default().into()),
    }
}

/// Writes a parcel's kind and body.
pub(super) fn put(out: &mut BytesMut, kind: u8, body: &[u8]) {
    out.put_u32(u32::try_from(body.len() + 1).unwrap_or(u32::MAX));
    out.put_u8(kind);
    out.put_slice(body);
}

/// Takes the first frame, once it is there as a whole.
pub(super) fn take(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let bad = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length == 0 || length > MAX_FRAME {
        return Err(bad("a frame without an end"));
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    let mut body = buffer.split_to(length).freeze();
    Ok(Some(match body.get_u8() {
        SIP => Frame::Parcel(Parcel::Sip(body)),
        ACK => Frame::Ack(body.try_get_u64().map_err(|_| bad("a short acknowledgement"))?),
        // One that cannot be read is of a later release.
        EVENT => serde_json::from_slice(&body).map_or(Frame::Unknown, |event| Frame::Parcel(Parcel::Event(event))),
        _ => Frame::Unknown,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::InstallationKey;
    use contract::media::{MediaEvent, MediaEventKind};

    const A: ProcessId = ProcessId(0xa);
    const B: ProcessId = ProcessId(0xb);

    fn ring(ids: &[u8]) -> KeyRing {
        let mut keys = ids.iter().map(|id| InstallationKey::new(*id, [*id; 32]));
        let ring = KeyRing::new(keys.next().unwrap());
        keys.fold(ring, KeyRing::accepting)
    }

    async fn meet(dialler: &KeyRing, acceptor: &KeyRing, to: ProcessId) -> (io::Result<Ends>, io::Result<Ends>) {
        let (mut one, mut two) = tokio::io::duplex(4096);
        let here = |process| (process == B).then_some(Service::Router);
        let dialled = async move { dial(&mut one, dialler, (A, Service::Balancer), to).await };
        let accepted = async move { accept(&mut two, acceptor, here).await };
        tokio::join!(dialled, accepted)
    }

    #[tokio::test]
    async fn both_ends_learn_who_the_other_is_also_while_keys_are_rotated() {
        for (one, two) in [(&[1][..], &[1][..]), (&[1], &[2, 1]), (&[2, 1], &[1]), (&[2, 1], &[2, 1])] {
            let (dialled, accepted) = meet(&ring(one), &ring(two), B).await;
            assert_eq!(dialled.unwrap(), Ends { local: A, remote: B, service: Service::Router });
            assert_eq!(accepted.unwrap(), Ends { local: B, remote: A, service: Service::Balancer });
        }
    }

    #[tokio::test]
    async fn a_wrong_key_and_a_wrong_process_are_refused() {
        let stranger = KeyRing::new(InstallationKey::new(1, [9; 32]));
        for (one, two) in [(&ring(&[1]), &stranger), (&ring(&[1]), &ring(&[2]))] {
            let (dialled, accepted) = meet(one, two, B).await;
            assert!(dialled.is_err() && accepted.is_err());
        }
        let (dialled, accepted) = meet(&ring(&[1]), &ring(&[1]), ProcessId(0xc)).await;
        assert!(dialled.is_err() && accepted.is_err());
    }

    #[tokio::test]
    async fn an_echo_of_our_own_proof_proves_nothing() {
        let keys = ring(&[1]);
        let (mut one, mut two) = tokio::io::duplex(4096);
        let mirror = async move {
            let mut hello = [0; HELLO];
            two.read_exact(&mut hello).await.unwrap();
            let mut welcome = vec![1, 2];
            welcome.extend(nonce());
            // What a dialler would say to the same words.
            let mac = ring(&[1]).current().mac("mesh dial", &[&hello, &welcome]);
            welcome.extend(mac);
            two.write_all(&welcome).await.unwrap();
        };
        let (dialled, ()) = tokio::join!(dial(&mut one, &keys, (A, Service::Balancer), B), mirror);
        assert_eq!(dialled.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let event = MediaEvent { seq: 3, call: "c".into(), tag: None, kind: MediaEventKind::Silent };
        let parcels = [Parcel::Sip(Bytes::from_static(b"OPTIONS")), Parcel::Event(event), Parcel::Sip(Bytes::new())];
        let mut out = BytesMut::new();
        for parcel in &parcels {
            let (kind, body) = body(parcel);
            put(&mut out, kind, &body);
        }
        put_ack(&mut out, 77);
        put(&mut out, 200, b"later");
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for byte in out {
            buffer.put_u8(byte);
            got.extend(take(&mut buffer).unwrap());
        }
        let mut want: Vec<Frame> = parcels.into_iter().map(Frame::Parcel).collect();
        want.extend([Frame::Ack(77), Frame::Unknown]);
        assert_eq!(got, want);
        for bad in [&[0, 0, 0, 0][..], &[255, 0, 0, 0], &[0, 0, 0, 3, ACK, 0, 0]] {
            assert!(take(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }
}
