//! Dialplan patterns, substitution and steps, shared by the compiler and the router.
