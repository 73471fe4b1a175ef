//! What the processes of a PBX tell each other.
