//! The NG protocol (rtpengine): being written.
