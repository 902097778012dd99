//! System calls that no library offers. All of this crate's `unsafe` is here.

pub(crate) mod bpf;
pub(crate) mod socket;
