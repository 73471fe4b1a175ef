//! Media without IO: RTP, RTCP, SDP, DTMF, codecs.
