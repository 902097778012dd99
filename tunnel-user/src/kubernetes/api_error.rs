//! What the API server, or the lack of one, says to us.

use kube::Error;

/// An error in one line, without the whole answer that `kube` prints besides.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        error => crate::kubernetes::chain(error),
    }
}

/// Whether the API server answered with this HTTP status.
pub(super) fn is_status(error: &Error, code: u16) -> bool {
    matches!(error, Error::Api(status) if status.code == code)
}
