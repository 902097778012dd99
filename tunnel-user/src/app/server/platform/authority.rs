//! Whether the server's own CA is of use at the time that the clock says: outside of its life nobody trusts what it
//! issues.

use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{certificates::CLOCK_CHECK, observability::readiness::Condition, pki::Validity};

/// Tells, until the end, whenever the clock has moved.
pub(super) async fn compare_with_clock(
    validity: Validity,
    condition: Condition,
    end: CancellationToken,
) {
    let mut told = false;
    loop {
        let reason = reason(validity, OffsetDateTime::now_utc());
        match &reason {
            Some(reason) => condition.not_ready(reason),
            None => condition.ready(),
        }
        if let Some(reason) = reason.as_ref().filter(|_| !told) {
            tracing::warn!(reason, "no agent can be let in");
        }
        told = reason.is_some();
        tokio::select! {
            () = sleep(CLOCK_CHECK) => {}
            () = end.cancelled() => return,
        }
    }
}

fn reason(validity: Validity, now: OffsetDateTime) -> Option<String> {
    let Validity { issued, expires } = validity;
    if !validity.has_begun(now) {
        return Some(format!(
            "this machine's clock says {now}, and the CA is of use from {issued} on: set the clock"
        ));
    }
    validity.has_ended(now).then(|| {
        format!(
            "this machine's clock says {now}, and the CA ended at {expires}: set the clock; or, if it is right, move \
             ca.pem and ca.key out of the state directory and start the server again, for which every agent has to \
             enrol anew"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_outside_of_its_life_is_a_reason_and_the_way_out_depends() {
        let day = time::Duration::DAY;
        let now = OffsetDateTime::now_utc();
        let validity = Validity::starting(now, std::time::Duration::from_hours(24 * 365));
        assert_eq!(reason(validity, now), None);
        let early = reason(validity, now - day).unwrap();
        assert!(
            early.contains("set the clock") && !early.contains("enrol anew"),
            "{early}"
        );
        let late = reason(validity, now + 366 * day).unwrap();
        assert!(
            late.contains("set the clock") && late.contains("enrol anew"),
            "{late}"
        );
    }
}
