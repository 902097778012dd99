use super::*;

const LONG: Duration = Duration::from_mins(1);

/// Addresses and the servers behind each, dialled as the session set wants, without a socket.
struct World {
    now: Instant,
    session_set: SessionSet,
    /// Behind each address these, in turn.
    behind: BTreeMap<String, Vec<&'static str>>,
    /// What every server says.
    count: u32,
    links: u64,
    dials: u32,
}

impl World {
    fn new(behind: &[(&str, &[&'static str])], count: u32) -> Self {
        Self::with_most(None, behind, count)
    }

    fn with_most(most: Option<u32>, behind: &[(&str, &[&'static str])], count: u32) -> Self {
        let most = most.and_then(NonZeroU32::new);
        let now = Instant::now();
        let mut world = Self {
            now,
            session_set: SessionSet::new(most, now),
            behind: BTreeMap::new(),
            count,
            links: 0,
            dials: 0,
        };
        world.list(behind);
        world
    }

    fn list(&mut self, behind: &[(&str, &[&'static str])]) {
        let listed: Vec<_> = behind.iter().map(|(host, _)| addr(host)).collect();
        self.session_set.list(&listed, self.now);
        for (host, servers) in behind {
            self.behind.insert((*host).to_owned(), servers.to_vec());
        }
    }

    /// Lets this much time pass; returns what was let go.
    fn pass(&mut self, time: Duration) -> Vec<SessionId> {
        let until = self.now + time;
        let mut drained = Vec::new();
        loop {
            let step = self.session_set.next(self.now);
            drained.extend(step.drain);
            for server in &step.dial {
                self.answer(server);
            }
            match step.again_at {
                _ if !step.dial.is_empty() => {}
                Some(again_at) if again_at <= until => self.now = again_at,
                _ => break,
            }
        }
        self.now = until;
        drained
    }

    fn answer(&mut self, server: &ServerAddr) {
        self.dials += 1;
        let behind = self.behind.get_mut(server.host_and_port().0).unwrap();
        if behind.is_empty() {
            return self.session_set.failed(server, self.now);
        }
        behind.rotate_left(1);
        let id = *behind.last().unwrap();
        if self
            .session_set
            .sessions_with()
            .iter()
            .any(|held| held == id)
        {
            return self
                .session_set
                .already_held(server, (id, self.count), self.now);
        }
        self.links += 1;
        let session = SessionId(self.links);
        self.session_set
            .established(session, server, (id, self.count), self.now);
    }

    fn dials_within(&mut self, time: Duration) -> u32 {
        let before = self.dials;
        self.pass(time);
        self.dials - before
    }

    fn link_with(&self, id: &str) -> SessionId {
        let mut sessions = self.session_set.sessions.iter();
        *sessions.find(|(_, held)| held.server_id == id).unwrap().0
    }

    fn lose(&mut self, id: &str) {
        let session = self.link_with(id);
        self.session_set.ended(session, LONG, self.now);
    }

    /// The server is no more, and the others know.
    fn remove(&mut self, id: &str) {
        for behind in self.behind.values_mut() {
            behind.retain(|other| *other != id);
        }
        self.lose(id);
    }

    fn tell(&mut self, count: u32) {
        self.count = count;
        let links: Vec<_> = self.session_set.sessions.keys().copied().collect();
        for session in links {
            self.session_set.counted(session, count, self.now);
        }
    }
}

fn addr(host: &str) -> ServerAddr {
    host.parse().unwrap()
}

#[test]
fn every_address_has_its_session_and_nobody_is_dialled_again() {
    let mut world = World::new(&[("a", &["s-1"]), ("b", &["s-2"])], 1);
    assert_eq!(world.dials_within(LONG), 2);
    assert_eq!(world.session_set.sessions_with(), ["s-1", "s-2"]);
    assert_eq!(world.session_set.next(world.now), Step::default());
}

#[test]
fn several_servers_behind_one_address_are_all_found_and_then_left_alone() {
    let mut world = World::new(&[("lb", &["s-1", "s-2", "s-3"])], 3);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.session_set.sessions_with(), ["s-1", "s-2", "s-3"]);
    assert_eq!(world.dials_within(LONG), 0);
}

#[test]
fn addresses_that_lead_to_the_same_servers_share_their_sessions() {
    let all: &[&str] = &["s-1", "s-2", "s-3"];
    let mut world = World::new(&[("n1", all), ("n2", all), ("n3", all)], 3);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.session_set.sessions_with(), all);
    assert_eq!(world.dials_within(LONG), 0);
    let mut world = World::new(&[("lb", &["s-1"]), ("n1", &["s-1"])], 1);
    world.pass(LONG);
    assert_eq!(world.session_set.sessions.len(), 1);
    // The session goes: either address may lead to the server again.
    world.lose("s-1");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.session_set.sessions_with(), ["s-1"]);
}

#[test]
fn a_server_more_is_looked_for_as_soon_as_it_is_told_of() {
    let mut world = World::new(&[("lb", &["s-1", "s-2"])], 2);
    world.pass(LONG);
    world.behind.insert("lb".into(), vec!["s-1", "s-2", "s-3"]);
    assert_eq!(world.dials_within(LONG), 0);
    world.tell(3);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.session_set.sessions_with(), ["s-1", "s-2", "s-3"]);
}

#[test]
fn a_server_that_went_away_is_looked_for_ever_more_seldom_until_the_others_say_so() {
    let mut world = World::new(&[("lb", &["s-1", "s-2"])], 2);
    world.pass(LONG);
    world.remove("s-2");
    let first = world.dials_within(LONG);
    assert!((4..=12).contains(&first), "{first}");
    let later = world.dials_within(LONG);
    assert!((2..=6).contains(&later), "{later}");
    world.tell(1);
    assert_eq!(world.dials_within(LONG), 0);
    // Another one in its place, so that the number is the same again.
    world.tell(2);
    world.behind.insert("lb".into(), vec!["s-1", "s-9"]);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.session_set.sessions_with(), ["s-1", "s-9"]);
}

#[test]
fn the_one_who_takes_a_leaving_servers_place_is_found_at_once() {
    let mut world = World::new(&[("lb", &["s-1", "s-2"])], 2);
    world.pass(LONG);
    let leaving = world.link_with("s-1");
    world.behind.insert("lb".into(), vec!["s-2", "s-1b"]);
    world.session_set.asked_to_move(leaving, world.now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.session_set.sessions_with(), ["s-1b", "s-2"]);
    // What it still carries ends some time.
    world.session_set.ended(leaving, LONG, world.now);
    assert_eq!(world.dials_within(LONG), 0);
}

#[test]
fn the_only_server_may_ask_to_move_too() {
    let mut world = World::new(&[("a", &["s-1"])], 1);
    world.pass(LONG);
    world.behind.insert("a".into(), vec!["s-2"]);
    world.session_set.asked_to_move(SessionId(1), world.now);
    world.pass(Duration::ZERO);
    assert_eq!(world.session_set.sessions_with(), ["s-2"]);
}

#[test]
fn a_server_that_does_not_answer_is_tried_for_ever_and_not_hammered() {
    let mut world = World::new(&[("a", &["s-1"]), ("b", &[])], 1);
    world.pass(LONG);
    let dials = world.dials_within(LONG);
    assert!((6..=12).contains(&dials), "{dials}");
    world.behind.insert("b".into(), vec!["s-2"]);
    world.pass(crate::backoff::CAP);
    assert_eq!(world.session_set.sessions_with(), ["s-1", "s-2"]);
}

#[test]
fn a_server_that_claims_a_session_nobody_has_is_not_hammered() {
    let mut world = World::new(&[("a", &["s-1"])], 1);
    let mut dials = 0;
    for _ in 0..30 {
        for server in world.session_set.next(world.now).dial {
            dials += 1;
            world
                .session_set
                .already_held(&server, ("s-9", 1), world.now);
        }
        world.now += Duration::from_secs(1);
    }
    assert!((4..=10).contains(&dials), "{dials}");
}

#[test]
fn of_two_sessions_with_one_server_the_newest_stays() {
    // A server that does not know the question answers with another session.
    let mut world = World::new(&[("a", &["s-1"]), ("b", &["s-1"])], 1);
    let step = world.session_set.next(world.now);
    assert_eq!(step.dial, [addr("a"), addr("b")]);
    let told = ("s-1", 1);
    let replaced = world
        .session_set
        .established(SessionId(1), &addr("a"), told, world.now);
    assert_eq!(replaced, []);
    let replaced = world
        .session_set
        .established(SessionId(2), &addr("b"), told, world.now);
    assert_eq!(replaced, [SessionId(1)]);
    world.session_set.ended(SessionId(1), LONG, world.now);
    assert_eq!(world.dials_within(LONG), 0);
}

#[test]
fn a_session_outlives_its_address_until_the_server_is_reached_otherwise() {
    let mut world = World::new(&[("old", &["s-1"])], 1);
    world.pass(LONG);
    world.list(&[("new", &["s-1"])]);
    assert_eq!(world.pass(Duration::from_secs(2)), []);
    assert_eq!(world.session_set.sessions_with(), ["s-1"]);
    // The server ends the one that it has got a newer one for.
    assert_eq!(
        world.session_set.sessions[&SessionId(1)].state,
        EntryState::Leaving
    );
}

#[test]
fn sessions_of_addresses_that_are_gone_end_once_nobody_is_missing() {
    let mut world = World::new(&[("a", &["s-1"]), ("b", &["s-2"])], 2);
    world.pass(LONG);
    let gone = world.link_with("s-2");
    world.list(&[("a", &["s-1"])]);
    // As long as there are two, the other one is of use.
    assert_eq!(world.pass(LONG), []);
    world.tell(1);
    assert_eq!(world.pass(LONG), [gone]);
    // An empty list is trouble, not a wish.
    world.list(&[]);
    assert_eq!(world.pass(LONG), []);
}

#[test]
fn an_address_that_is_back_in_time_keeps_its_session() {
    let mut world = World::new(&[("a", &["s-1"]), ("b", &["s-2"])], 2);
    world.pass(LONG);
    world.list(&[("a", &["s-1"])]);
    world.pass(Duration::from_secs(1));
    world.list(&[("a", &["s-1"]), ("b", &["s-2"])]);
    assert_eq!(world.session_set.sessions_with(), ["s-1", "s-2"]);
    assert_eq!(world.dials_within(LONG), 0);
}

#[test]
fn with_a_new_certificate_every_session_begins_anew_and_counts_until_then() {
    let mut world = World::new(&[("lb", &["s-1", "s-2", "s-3"])], 3);
    world.pass(Duration::from_secs(3));
    let older: Vec<_> = world.session_set.sessions.keys().copied().collect();
    assert_eq!(older.len(), 3);
    world.session_set.proved_anew(LONG, world.now);
    world.session_set.proved_anew(LONG, world.now);
    assert_eq!(world.session_set.next(world.now).renew, []);
    let dials = world.dials;
    let step = world.session_set.next(world.now + SPREAD);
    assert_eq!(step.renew, older);
    for server in &step.dial {
        world.answer(server);
    }
    world.pass(Duration::from_secs(5));
    assert_eq!(world.session_set.sessions_with(), ["s-1", "s-2", "s-3"]);
    assert!(
        older
            .iter()
            .all(|session| world.session_set.sessions[session].state == EntryState::Leaving)
    );
    assert!(world.dials - dials <= 6, "{}", world.dials - dials);
    assert_eq!(world.dials_within(LONG), 0);
}

#[test]
fn new_sessions_begin_well_before_the_old_certificate_ends() {
    let left = Duration::from_millis(900);
    let mut world = World::new(&[("a", &["s-1"])], 1);
    world.pass(LONG);
    world.session_set.proved_anew(left, world.now);
    let step = world.session_set.next(world.now + left / 10);
    assert_eq!(step.renew.len(), 1);
    assert_eq!(step.dial, [addr("a")]);
    // One that has ended already, or ends at once, is not waited for at all.
    let mut world = World::new(&[("a", &["s-1"])], 1);
    world.pass(LONG);
    world.session_set.proved_anew(Duration::ZERO, world.now);
    assert_eq!(world.session_set.next(world.now).renew.len(), 1);
}

#[test]
fn a_server_that_refused_the_old_certificate_is_dialled_soon_with_the_new_one() {
    let mut world = World::new(&[("a", &[])], 1);
    world.pass(LONG);
    world.behind.insert("a".to_owned(), vec!["s-1"]);
    world.session_set.proved_anew(Duration::MAX, world.now);
    world.pass(SPREAD);
    assert_eq!(world.session_set.sessions_with(), ["s-1"]);
}

#[test]
fn an_agent_that_may_have_two_sessions_keeps_two_whichever_server_is_lost() {
    let behind: [(&str, &[&str]); 3] = [("a", &["s-1"]), ("b", &["s-2"]), ("c", &["s-3"])];
    let mut world = World::with_most(Some(2), &behind, 3);
    world.pass(LONG);
    assert_eq!(
        (world.session_set.sessions_with().len(), world.dials),
        (2, 2)
    );
    for _ in 0..10 {
        let lost = *world.session_set.sessions.keys().next().unwrap();
        let server = world.session_set.sessions[&lost].server.clone();
        world.session_set.ended(lost, LONG, world.now);
        // Its address answers nobody for a while.
        let host = server.host_and_port().0.to_owned();
        let gone = std::mem::take(world.behind.get_mut(&host).unwrap());
        world.pass(Duration::from_secs(3));
        assert_eq!(
            world.session_set.sessions_with().len(),
            2,
            "the third takes its place at once"
        );
        world.behind.insert(host, gone);
        world.pass(LONG);
        assert_eq!(world.session_set.sessions_with().len(), 2);
    }
}

#[test]
fn behind_one_address_no_more_are_searched_than_there_may_be() {
    let mut world = World::with_most(Some(2), &[("lb", &["s-1", "s-2", "s-3"])], 3);
    world.pass(LONG);
    assert_eq!(
        (world.session_set.sessions_with().len(), world.dials),
        (2, 2)
    );
}

#[test]
fn a_server_that_asks_for_another_session_gets_it_although_others_are_free() {
    let behind: [(&str, &[&str]); 2] = [("a", &["s-1"]), ("b", &["s-2"])];
    let mut world = World::with_most(Some(1), &behind, 2);
    world.pass(LONG);
    let asks = *world.session_set.sessions.keys().next().unwrap();
    let address = world.session_set.sessions[&asks].server.clone();
    let host = address.host_and_port().0.to_owned();
    world.behind.insert(host, vec!["s-new"]);
    world.session_set.asked_to_move(asks, world.now);
    world.pass(LONG);
    assert_eq!(world.session_set.sessions_with(), ["s-new"]);
}

#[test]
fn agents_that_need_one_server_spread_over_all() {
    let behind: [(&str, &[&str]); 2] = [("a", &["s-1"]), ("b", &["s-2"])];
    let held: BTreeSet<_> = (0..64)
        .map(|_| {
            let mut world = World::with_most(Some(1), &behind, 2);
            world.pass(LONG);
            world.session_set.sessions_with().join(" ")
        })
        .collect();
    assert_eq!(held.len(), 2);
}
