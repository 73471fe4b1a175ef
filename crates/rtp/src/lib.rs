//! Media without IO: session descriptions, RTP and RTCP, DTMF, codecs, mixing, tones and jitter.
//!
//! Nothing here opens a socket, reads a clock or takes randomness: bytes and times come in, bytes and times go out.

pub mod codec;
pub mod conceal;
pub mod dtmf;
pub mod g711;
pub mod jitter;
pub mod mix;
pub mod packet;
pub mod resample;
pub mod rtcp;
pub mod sdp;
pub mod stats;
pub mod talk;
pub mod tone;
