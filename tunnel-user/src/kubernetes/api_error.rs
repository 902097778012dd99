//! What the API server, or the lack of one, says to us.

use std::error::Error;

use kube::core::Status;

use crate::model::printable_up_to;

/// The longest text that is passed on: an answer may quote what it was asked.
const LONGEST: usize = 1024;

/// An error with its causes, as one line. What the API server itself says stands alone; and some
/// of `kube`'s errors contain the text of their cause already.
pub(super) fn describe(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<&(dyn Error + 'static)> =
        std::iter::successors(Some(error), |error| (*error).source()).collect();
    if let Some(status) = causes.iter().find_map(|error| answer(*error)) {
        return printable_up_to(&status.message, LONGEST);
    }
    let line = causes
        .iter()
        .skip(1)
        .fold(error.to_string(), |line, cause| {
            let cause = cause.to_string();
            if line.contains(&cause) {
                line
            } else {
                format!("{line}: {cause}")
            }
        });
    printable_up_to(&line, LONGEST)
}

/// What the API server answered, where it did.
fn answer<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Status> {
    let error = error.downcast_ref::<kube::Error>()?;
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => Some(status),
        _ => None,
    }
}

/// Whether the API server answered with this HTTP status.
pub(super) fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher;

    use super::*;

    #[test]
    fn an_answer_is_told_without_what_is_around_it() {
        let message = "nodes is forbidden: User \"culvert\" cannot list resource \"nodes\"";
        let status = Status::failure(message, "Forbidden").with_code(403).boxed();
        let error = watcher::Error::InitialListFailed(kube::Error::Api(status));
        assert_eq!(describe(&error), message);
    }

    #[test]
    fn a_cause_is_told_once() {
        let refused = std::io::Error::other("Connection refused");
        let error = kube::Error::Service(Box::new(refused));
        let error = watcher::Error::WatchFailed(error);
        let line = describe(&error);
        assert!(line.starts_with("watch stream failed"), "{line}");
        assert_eq!(line.matches("Connection refused").count(), 1, "{line}");
    }
}
