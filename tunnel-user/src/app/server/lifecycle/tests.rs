use super::*;

const DRAIN: Duration = Duration::from_secs(30);

const ALONE: Circumstances = Circumstances {
    takes_over: false,
    in_a_pod: false,
    drain_timeout: DRAIN,
};
const TAKES_OVER: Circumstances = Circumstances {
    takes_over: true,
    ..ALONE
};
const IN_A_POD: Circumstances = Circumstances {
    in_a_pod: true,
    ..ALONE
};

/// What a server that was not handed over does when it begins to leave.
const STOPPING: [Action; 5] = [
    Action::TellNotReady,
    Action::LeaveCharge,
    Action::CloseGate,
    Action::ReleasePins,
    Action::TakeNoClients,
];
/// The same, where a successor has everything.
const HANDED_OVER: [Action; 8] = [
    Action::AwaitNoSuccessor,
    Action::TellNotReady,
    Action::LeaveCharge,
    Action::LeaveSockets,
    Action::LeaveQueue,
    Action::StopMeta,
    Action::ReleasePins,
    Action::TakeNoClients,
];
const ENDS: [Action; 4] = [
    Action::StopMeta,
    Action::EndEverything,
    Action::RemoveAddresses,
    Action::Tell(Notice::Stopped),
];
const ENDS_HANDED_OVER: [Action; 3] = [
    Action::StopMeta,
    Action::EndEverything,
    Action::Tell(Notice::Stopped),
];
const TAKES_CLIENTS_OVER: [Action; 6] = [
    Action::AnswerStatus,
    Action::CheckPredecessor,
    Action::TakeClients,
    Action::AwaitSuccessor,
    Action::DismissPredecessor,
    Action::UseRangesWhenAlone,
];

/// A life, and the time in it.
struct World {
    life: Lifecycle,
    now: Instant,
}

impl World {
    fn new(circumstances: Circumstances) -> Self {
        let now = Instant::now();
        let life = Lifecycle::new(circumstances, now);
        Self { life, now }
    }

    fn serving(circumstances: Circumstances) -> Self {
        let mut world = Self::new(circumstances);
        world.on(Event::NodesKnown);
        world.on(Event::Certified);
        world.on(Event::AgentsCame);
        assert_eq!(world.life.phase, Phase::Serving);
        world
    }

    /// A successor has the offer.
    fn handing_over(circumstances: Circumstances) -> Self {
        let mut world = Self::serving(circumstances);
        world.on(Event::SuccessorCame);
        world.on(Event::OfferTaken);
        assert!(matches!(world.life.phase, Phase::HandingOver { .. }));
        world
    }

    fn handed_over(circumstances: Circumstances) -> Self {
        let mut world = Self::handing_over(circumstances);
        assert_eq!(world.on(Event::SuccessorReady), HANDED_OVER);
        world
    }

    fn stopping() -> Self {
        let mut world = Self::serving(ALONE);
        assert_eq!(world.on(Event::ToldToStop), STOPPING);
        world
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.life.on(event, self.now)
    }

    /// The next deadline comes, after so long; nothing happens a moment earlier.
    fn after(&mut self, wait: Duration) -> Vec<Action> {
        let deadline = self.now + wait;
        assert_eq!(self.life.next_deadline(), Some(deadline));
        let phase = self.life.phase;
        self.now = deadline - Duration::from_millis(1);
        assert_eq!(self.on(Event::TimePassed), []);
        assert_eq!(self.life.phase, phase);
        self.now = deadline;
        self.on(Event::TimePassed)
    }
}

#[test]
fn a_server_takes_clients_once_it_knows_the_nodes() {
    let mut world = World::new(ALONE);
    assert_eq!(world.life.next_deadline(), None, "it has all the time");
    assert_eq!(world.on(Event::Certified), []);
    let actions = world.on(Event::NodesKnown);
    let taken = [
        Action::TakeClients,
        Action::AwaitSuccessor,
        Action::UseRanges,
    ];
    assert_eq!(actions, taken);
    assert_eq!(world.life.phase, Phase::Serving);
    assert_eq!(world.life.next_deadline(), None);
}

#[test]
fn a_server_alone_needs_no_certificate_to_begin() {
    let mut world = World::new(ALONE);
    assert!(world.on(Event::NodesKnown).contains(&Action::TakeClients));
}

#[test]
fn a_takeover_waits_for_nodes_certificate_and_agents() {
    for able in [
        [Event::NodesKnown, Event::Certified],
        [Event::Certified, Event::NodesKnown],
    ] {
        let mut world = World::new(TAKES_OVER);
        for event in able {
            assert!(!world.life.awaits_agents());
            assert_eq!(world.on(event), []);
        }
        assert!(world.life.awaits_agents());
        assert_eq!(world.on(Event::AgentsCame), TAKES_CLIENTS_OVER);
        assert_eq!(world.life.phase, Phase::Serving);
    }
}

#[test]
fn a_takeover_does_not_wait_for_ever_for_agents() {
    let mut world = World::new(TAKES_OVER);
    world.on(Event::NodesKnown);
    world.on(Event::Certified);
    let actions = world.after(AGENTS_COME);
    let (told, taken) = actions.split_first().unwrap();
    assert_eq!(told, &Action::Tell(Notice::AgentsMissing));
    assert_eq!(taken, TAKES_CLIENTS_OVER);
}

#[test]
fn a_takeover_is_given_up_where_the_server_does_not_become_able() {
    for missing in [Event::NodesKnown, Event::Certified] {
        let mut world = World::new(TAKES_OVER);
        world.on(missing);
        assert_eq!(world.after(ABLE), [Action::GiveUp]);
        assert!(world.life.has_ended());
    }
}

#[test]
fn a_server_that_is_told_to_stop_before_it_takes_clients_touches_nothing() {
    for (circumstances, happened, told) in [
        (ALONE, &[][..], Notice::StoppedBeforeAble),
        (TAKES_OVER, &[Event::NodesKnown], Notice::StoppedBeforeAble),
        (
            TAKES_OVER,
            &[Event::NodesKnown, Event::Certified],
            Notice::StoppedBeforeTakeover,
        ),
    ] {
        let mut world = World::new(circumstances);
        for event in happened {
            world.on(*event);
        }
        assert_eq!(world.on(Event::ToldToStop), [Action::Tell(told)]);
        assert!(world.life.has_ended());
    }
}

#[test]
fn a_successor_is_offered_the_sockets_then_the_agents_and_gets_everything() {
    let mut world = World::serving(ALONE);
    let actions = world.on(Event::SuccessorCame);
    assert_eq!(actions, [Action::LeaveCharge, Action::OfferSockets]);
    assert_eq!(world.on(Event::OfferTaken), [Action::AskAgentsToMove]);
    assert_eq!(world.on(Event::SuccessorReady), HANDED_OVER);
    let actions = world.on(Event::ClientsGone);
    assert_eq!(actions, [Action::ResetClients, Action::EndSessions]);
    assert_eq!(world.on(Event::SessionsGone), ENDS_HANDED_OVER);
    assert!(world.life.has_ended());
}

#[test]
fn a_successor_that_dies_is_let_go_and_a_later_one_succeeds() {
    let mut world = World::serving(ALONE);
    world.on(Event::SuccessorCame);
    assert_eq!(world.on(Event::SuccessorFailed), [Action::GoOn]);
    assert_eq!(world.life.phase, Phase::Serving);
    world.on(Event::SuccessorCame);
    world.on(Event::OfferTaken);
    assert_eq!(world.on(Event::SuccessorFailed), [Action::GoOn]);
    assert_eq!(world.life.next_deadline(), None);
    // Nothing of the former ones is left: this one's agents are asked when it has the offer.
    let actions = world.on(Event::SuccessorCame);
    assert_eq!(actions, [Action::LeaveCharge, Action::OfferSockets]);
    assert_eq!(world.on(Event::OfferTaken), [Action::AskAgentsToMove]);
    assert_eq!(world.on(Event::SuccessorReady), HANDED_OVER);
}

#[test]
fn a_successor_that_hangs_is_let_go() {
    let mut world = World::serving(ALONE);
    world.on(Event::SuccessorCame);
    assert_eq!(world.after(OFFER_TIME), [Action::GoOn]);
    let mut world = World::handing_over(ALONE);
    assert_eq!(world.after(READY_TIME), [Action::GoOn]);
    assert_eq!(world.life.phase, Phase::Serving);
}

#[test]
fn what_comes_with_its_deadline_has_come() {
    let mut world = World::serving(ALONE);
    world.on(Event::SuccessorCame);
    world.now += OFFER_TIME;
    assert_eq!(world.on(Event::OfferTaken), [Action::AskAgentsToMove]);
    world.now += READY_TIME;
    assert_eq!(world.on(Event::SuccessorReady), HANDED_OVER);
}

#[test]
fn one_that_may_not_have_the_sockets_changes_nothing() {
    let mut world = World::serving(ALONE);
    assert_eq!(world.on(Event::SuccessorFailed), [Action::GoOn]);
    assert_eq!(world.life.phase, Phase::Serving);
    assert_eq!(world.on(Event::TimePassed), []);
}

#[test]
fn a_stop_lets_clients_finish_then_sessions_and_takes_the_addresses_away() {
    let mut world = World::stopping();
    let gone = [
        Action::AwaitNoSuccessor,
        Action::ResetClients,
        Action::EndSessions,
    ];
    assert_eq!(world.on(Event::ClientsGone), gone);
    assert_eq!(world.on(Event::SessionsGone), ENDS);
    assert!(world.life.has_ended());
}

#[test]
fn clients_that_outlive_the_drain_are_reset_and_sessions_get_some_time_all_the_same() {
    let mut world = World::stopping();
    let actions = world.after(DRAIN);
    let reset = [
        Action::Tell(Notice::ClientsOutlivedDrain),
        Action::AwaitNoSuccessor,
        Action::ResetClients,
    ];
    assert_eq!(actions, reset);
    assert_eq!(world.life.next_deadline(), None, "they are gone at once");
    assert_eq!(world.on(Event::ClientsGone), [Action::EndSessions]);
    let mut actions = world.after(SESSIONS_END);
    let told = actions.remove(0);
    assert_eq!(told, Action::Tell(Notice::AgentsOutlivedSessions));
    assert_eq!(actions, ENDS);
}

#[test]
fn sessions_have_what_clients_leave_of_the_drain() {
    let mut world = World::stopping();
    world.now += Duration::from_secs(5);
    world.on(Event::ClientsGone);
    world.after(DRAIN.checked_sub(Duration::from_secs(5)).unwrap());
    assert!(world.life.has_ended());
}

#[test]
fn a_second_signal_cuts_each_wait_short() {
    const CUT_SHORT: [Action; 2] = [Action::AwaitNoSuccessor, Action::ResetClients];
    let mut world = World::stopping();
    assert_eq!(world.on(Event::Aborted), CUT_SHORT);
    let mut ended = vec![Action::EndSessions];
    ended.extend(ENDS);
    assert_eq!(world.on(Event::ClientsGone), ended);

    let mut world = World::stopping();
    world.on(Event::ClientsGone);
    assert_eq!(world.on(Event::Aborted), ENDS);

    // Before the first has had its effect.
    let mut world = World::serving(ALONE);
    assert_eq!(world.on(Event::Aborted), []);
    let actions = world.on(Event::ToldToStop);
    assert_eq!(actions[..STOPPING.len()], STOPPING);
    assert_eq!(actions[STOPPING.len()..], CUT_SHORT);
}

/// What a server that has stopped does for a successor that takes clients.
const HANDED_OVER_LATE: [Action; 3] = [
    Action::AwaitNoSuccessor,
    Action::LeaveSockets,
    Action::StopMeta,
];

#[test]
fn a_stop_while_handing_over_closes_the_gate_and_the_successor_goes_on() {
    let mut world = World::serving(ALONE);
    world.on(Event::SuccessorCame);
    assert_eq!(world.on(Event::ToldToStop), STOPPING);
    assert_eq!(world.on(Event::OfferTaken), [Action::AskAgentsToMove]);
    let mut world = World::handing_over(ALONE);
    assert_eq!(world.on(Event::ToldToStop), STOPPING);
    assert_eq!(
        world.on(Event::ClientsGone),
        [],
        "the successor has need of it"
    );
    let mut handed_over = HANDED_OVER_LATE.to_vec();
    handed_over.extend([Action::ResetClients, Action::EndSessions]);
    assert_eq!(world.on(Event::SuccessorReady), handed_over);
    assert_eq!(world.on(Event::SessionsGone), ENDS_HANDED_OVER);
}

#[test]
fn who_comes_while_a_stopped_server_drains_takes_over_from_it() {
    let mut world = World::stopping();
    assert_eq!(world.on(Event::SuccessorCame), [Action::OfferSockets]);
    assert_eq!(world.on(Event::SuccessorFailed), [Action::LetSuccessorGo]);
    assert_eq!(world.on(Event::SuccessorCame), [Action::OfferSockets]);
    assert_eq!(world.on(Event::OfferTaken), [Action::AskAgentsToMove]);
    assert_eq!(world.on(Event::SuccessorReady), HANDED_OVER_LATE);
    let gone = [Action::ResetClients, Action::EndSessions];
    assert_eq!(world.on(Event::ClientsGone), gone);
    assert_eq!(world.on(Event::SessionsGone), ENDS_HANDED_OVER);
}

#[test]
fn a_stopped_server_waits_for_no_successor_that_hangs() {
    let mut world = World::stopping();
    world.on(Event::SuccessorCame);
    assert_eq!(world.on(Event::ClientsGone), []);
    let mut let_go = vec![Action::LetSuccessorGo, Action::AwaitNoSuccessor];
    let_go.extend([Action::ResetClients, Action::EndSessions]);
    assert_eq!(world.after(OFFER_TIME), let_go);
    assert_eq!(world.on(Event::SessionsGone), ENDS);
}

#[test]
fn a_handed_over_server_in_a_pod_waits_for_the_pods_end() {
    let mut world = World::handed_over(IN_A_POD);
    world.on(Event::ClientsGone);
    let waits = [Action::Tell(Notice::AwaitsPodEnd)];
    assert_eq!(world.on(Event::SessionsGone), waits);
    assert_eq!(world.life.next_deadline(), None);
    assert_eq!(world.on(Event::TimePassed), []);
    assert_eq!(world.on(Event::ToldToStop), ENDS_HANDED_OVER);
    assert!(world.life.has_ended());
}

#[test]
fn a_pod_that_is_deleted_during_the_drain_ends_after_it() {
    let mut world = World::handed_over(IN_A_POD);
    assert_eq!(world.on(Event::ToldToStop), [], "clients may finish");
    world.on(Event::ClientsGone);
    let mut actions = world.on(Event::SessionsGone);
    assert_eq!(actions.remove(0), Action::Tell(Notice::AwaitsPodEnd));
    assert_eq!(actions, ENDS_HANDED_OVER);
}

#[test]
fn a_server_that_is_stopped_in_a_pod_ends() {
    let mut world = World::serving(IN_A_POD);
    world.on(Event::ToldToStop);
    world.on(Event::ClientsGone);
    assert_eq!(world.on(Event::SessionsGone), ENDS);
}

#[test]
fn a_task_that_fails_ends_a_server_as_a_stop_does() {
    for mut world in [World::serving(ALONE), World::handing_over(ALONE)] {
        assert!(world.life.needs_all_tasks());
        assert_eq!(world.on(Event::TaskFailed), STOPPING);
        assert!(!world.life.needs_all_tasks(), "they end now");
    }
}

#[test]
fn a_task_that_fails_before_the_server_takes_clients_leaves_everything_as_it_is() {
    let able = [Event::NodesKnown, Event::Certified];
    for (circumstances, happened) in [
        (ALONE, &[][..]),
        (TAKES_OVER, &[]),
        // The predecessor's agents are on their way.
        (TAKES_OVER, &able),
    ] {
        let mut world = World::new(circumstances);
        for event in happened {
            world.on(*event);
        }
        assert!(world.life.needs_all_tasks());
        assert_eq!(world.on(Event::TaskFailed), []);
        assert!(world.life.has_ended());
    }
}

#[test]
fn tasks_may_end_once_they_are_told_to() {
    let mut world = World::stopping();
    for event in [Event::ClientsGone, Event::SessionsGone] {
        assert!(!world.life.needs_all_tasks());
        assert!(!world.life.has_ended());
        world.on(event);
    }
    assert!(!World::handed_over(ALONE).life.needs_all_tasks());
}

#[test]
fn nobody_is_waited_for_who_has_gone_before_his_time() {
    // The task that accepts clients, or agents, may be the one that fails.
    let mut world = World::serving(ALONE);
    assert_eq!(world.on(Event::ClientsGone), []);
    assert_eq!(world.on(Event::SessionsGone), []);
    let actions = world.on(Event::TaskFailed);
    let (stopping, rest) = actions.split_at(STOPPING.len());
    assert_eq!(stopping, STOPPING);
    let gone = [
        Action::AwaitNoSuccessor,
        Action::ResetClients,
        Action::EndSessions,
    ];
    assert_eq!(rest[..3], gone);
    assert_eq!(rest[3..], ENDS);
}

#[test]
fn after_the_end_nothing_happens() {
    let mut world = World::stopping();
    world.on(Event::Aborted);
    world.on(Event::ClientsGone);
    assert!(world.life.has_ended());
    for event in [Event::TimePassed, Event::SessionsGone, Event::TaskFailed] {
        assert_eq!(world.on(event), []);
    }
    assert_eq!(world.life.next_deadline(), None);
}
