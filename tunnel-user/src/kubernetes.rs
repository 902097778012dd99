//! Culvert in a Kubernetes cluster: the API server says which nodes exist and on which ports they
//! are reached, and signs the certificates of both ends.
//!
//! Whatever is learnt is kept on disk as well: without the API server nothing changes, and nothing
//! stops, not even over a restart.

mod access;
mod certificate_names;
mod object_name;

pub use access::{Access, AccessError};
pub use certificate_names::CertificateNames;
pub use object_name::{InvalidObjectName, ObjectName};
