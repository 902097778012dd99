//! How many files this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lifts the soft limit to the hard one. The soft one is 1024 on most systems, for the sake of
/// programs that use `select()`; here every connection takes a descriptor.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(?current, now = ?maximum, "raised the limit of open files"),
        Err(error) => tracing::warn!(?current, %error, "cannot raise the limit of open files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
