use super::*;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// A server's certificates and an agent's.
const SERVER: Signer = Signer::Cluster { exact: false };
const AGENT: Signer = Signer::Cluster { exact: true };

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds)
}

fn names(ips: &[&str]) -> CertificateNames {
    CertificateNames {
        dns: ["edge-1".to_owned()].into(),
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

fn holding(signer: Signer, ips: &[&str]) -> Rotation {
    let mut rotation = Rotation::new(signer);
    rotation.hold(names(ips), Validity::starting(at(0), HOUR), at(0), 0.5);
    rotation
}

#[test]
fn the_first_is_asked_for_as_soon_as_its_names_are_known() {
    let rotation = Rotation::new(SERVER);
    assert_eq!(rotation.next(None, at(0)), Next::AwaitNames);
    let desired = names(&["10.0.0.1"]);
    assert_eq!(
        rotation.next(Some(&desired), at(0)),
        Next::Request(Why::First)
    );
}

#[test]
fn a_missing_name_is_a_reason_for_both_and_a_superfluous_one_for_an_agent() {
    let one_more = names(&["10.0.0.1", "10.0.0.2"]);
    let one_less = names(&[]);
    for (signer, less_is_a_reason) in [(SERVER, false), (AGENT, true)] {
        let rotation = holding(signer, &["10.0.0.1"]);
        let changed = Next::Request(Why::NamesChanged);
        assert_eq!(rotation.next(Some(&one_more), at(0)), changed);
        let next = rotation.next(Some(&one_less), at(0));
        assert_eq!(next == changed, less_is_a_reason, "{next:?}");
        assert_eq!(
            rotation.next(Some(&names(&["10.0.0.1"])), at(0)),
            Next::Wait(HOUR.mul_f64(0.8))
        );
    }
}

#[test]
fn it_is_renewed_in_time_once_the_names_are_known_again() {
    let rotation = holding(SERVER, &["10.0.0.1"]);
    assert_eq!(rotation.next(None, at(0)), Next::Wait(HOUR.mul_f64(0.8)));
    assert_eq!(rotation.next(None, at(2880)), Next::AwaitNames);
    let due = rotation.next(Some(&names(&["10.0.0.1"])), at(2880));
    assert_eq!(due, Next::Request(Why::Due));
}

#[test]
fn a_certificate_that_is_due_when_it_comes_is_not_renewed_in_a_loop() {
    let mut rotation = Rotation::new(AGENT);
    let names = names(&["10.0.0.1"]);
    let validity = Validity::starting(at(0), HOUR);
    for wait in [5, 10, 20] {
        rotation.hold(names.clone(), validity, at(3500), 1.0);
        let wait = Duration::from_secs(wait);
        assert_eq!(rotation.next(Some(&names), at(3500)), Next::Wait(wait));
        let later = rotation.next(Some(&names), at(3500) + wait);
        assert_eq!(later, Next::Request(Why::Due));
    }
    rotation.hold(names.clone(), validity, at(0), 1.0);
    assert_eq!(
        rotation.next(Some(&names), at(0)),
        Next::Wait(HOUR.mul_f64(0.9))
    );
}

#[test]
fn a_refused_one_is_replaced_at_once_and_refusals_in_a_row_ever_later() {
    let mut rotation = holding(AGENT, &["10.0.0.1"]);
    let desired = names(&["10.0.0.1"]);
    let mut now = at(0);
    for wait in [0, 5, 10, 20].map(Duration::from_secs) {
        assert!(!rotation.is_refused());
        assert_eq!(rotation.refused(now, 1.0), wait);
        assert!(rotation.is_refused());
        if !wait.is_zero() {
            assert_eq!(rotation.next(Some(&desired), now), Next::Wait(wait));
        }
        now += wait;
        let next = rotation.next(Some(&desired), now);
        assert_eq!(next, Next::Request(Why::Refused));
        let validity = Validity::starting(now, HOUR);
        rotation.hold(desired.clone(), validity, now, 0.5);
    }
    now += REFUSALS_APART + FIRST_WAIT;
    assert_eq!(rotation.refused(now, 1.0), Duration::ZERO);
}

#[test]
fn what_fails_is_tried_again_ever_later_and_at_once_with_other_names() {
    let mut rotation = Rotation::new(AGENT);
    let desired = names(&["10.0.0.1"]);
    let waits: Vec<_> = (0..10).map(|_| rotation.failed(true, at(0), 1.0)).collect();
    assert_eq!(waits[..3], [5, 10, 20].map(Duration::from_secs));
    assert_eq!(waits[9], LONGEST_WAIT);
    assert_eq!(
        rotation.next(Some(&desired), at(1)),
        Next::Wait(Duration::from_secs(299))
    );
    let outage = rotation.failed(false, at(0), 1.0);
    assert_eq!(outage, LONGEST_OUTAGE_WAIT);
    let later = rotation.next(Some(&desired), at(300));
    assert_eq!(later, Next::Request(Why::First));
    rotation.names_changed();
    let changed = rotation.next(Some(&desired), at(1));
    assert_eq!(changed, Next::Request(Why::First));
}

/// A certificate of a standalone server's own CA, and the names that are wanted.
fn standalone(signer: Signer, life: Duration, jitter: f64) -> (Rotation, CertificateNames) {
    let mut rotation = Rotation::new(signer);
    let validity = Validity::starting(at(0), life);
    rotation.load(names(&[]), validity, jitter);
    (rotation, names(&[]))
}

#[test]
fn falls_due_between_70_and_90_percent_of_the_life() {
    let (earliest, names) = standalone(Signer::Server, 90 * DAY, 0.0);
    assert_eq!(earliest.next(Some(&names), at(0)), Next::Wait(63 * DAY));
    let (latest, names) = standalone(Signer::Server, 90 * DAY, 1.0);
    assert_eq!(latest.next(Some(&names), at(0)), Next::Wait(81 * DAY));
}

#[test]
fn is_due_at_once_when_its_moment_has_passed_while_the_machine_slept() {
    for signer in [Signer::Own, Signer::Server, AGENT] {
        let (rotation, names) = standalone(signer, 90 * DAY, 0.5);
        for days in [89, 1000] {
            let next = rotation.next(Some(&names), at(days * 86_400));
            assert_eq!(next, Next::Request(Why::Due));
        }
    }
}

#[test]
fn waits_twice_as_long_after_each_failure_up_to_a_limit() {
    let (mut rotation, names) = standalone(Signer::Server, 90 * DAY, 0.0);
    let due = at(0) + 63 * DAY;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let wait = rotation.failed(false, due, 1.0);
        assert_eq!(rotation.next(Some(&names), due), Next::Wait(wait));
        waits.push(wait);
    }
    assert!(
        waits
            .windows(2)
            .all(|w| w[1] == w[0] * 2 || w[1] == LONGEST_WAIT),
        "{waits:?}"
    );
    assert_eq!(waits[19], LONGEST_WAIT);
    assert_eq!(rotation.failed(false, due, 0.0), LONGEST_WAIT / 2);
}

#[test]
fn a_certificate_of_seconds_gets_several_attempts_before_it_ends() {
    let life = Duration::from_secs(10);
    let (mut rotation, names) = standalone(Signer::Server, life, 1.0);
    let mut now = at(0);
    let mut attempts = 0;
    while now < at(0) + life {
        match rotation.next(Some(&names), now) {
            Next::Wait(wait) => now += wait,
            Next::Request(_) => {
                attempts += 1;
                rotation.failed(false, now, 1.0);
            }
            Next::AwaitNames => unreachable!("they are known"),
        }
    }
    assert!(attempts >= 3, "{attempts} attempts");
}

#[test]
fn only_who_issues_by_its_own_clock_replaces_a_certificate_of_the_future() {
    let early = at(-3600);
    for signer in [Signer::Own, Signer::Server, AGENT] {
        let (rotation, names) = standalone(signer, DAY, 0.5);
        let next = rotation.next(Some(&names), early);
        let replaces = next == Next::Request(Why::ClockSetBack);
        assert_eq!(replaces, signer == Signer::Own, "{signer:?}: {next:?}");
    }
}

#[test]
fn a_wait_ends_when_the_clock_is_set_back_before_it_began() {
    let mut rotation = Rotation::new(AGENT);
    let wanted = names(&["10.0.0.1"]);
    let wait = rotation.failed(false, at(1_000_000), 1.0);
    let next = rotation.next(Some(&wanted), at(1_000_000));
    assert_eq!(next, Next::Wait(wait));
    let next = rotation.next(Some(&wanted), at(0));
    assert_eq!(next, Next::Request(Why::First));
}
