//! Transports towards the outside: UDP in batches and TCP connections with SIP framing.
