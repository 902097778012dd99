use super::*;

fn asker(name: &str) -> RequesterKey {
    RequesterKey {
        username: name.to_owned(),
        pod_node: Vec::new(),
    }
}

fn queue(names: &[(&str, u32)]) -> Queue<u32, ()> {
    let mut queue = Queue::new();
    for (name, created) in names {
        queue.put(name, (*created, asker("one")), (), Instant::now());
    }
    queue
}

fn next(queue: &mut Queue<u32, ()>, now: Instant) -> Option<String> {
    queue.next(now).map(|(name, _, _)| name)
}

fn all(queue: &mut Queue<u32, ()>, now: Instant) -> Vec<String> {
    std::iter::from_fn(|| next(queue, now)).collect()
}

fn node(name: &str) -> Dependency {
    Dependency::Node(name.parse().unwrap())
}

#[test]
fn the_oldest_comes_first_and_each_once() {
    let now = Instant::now();
    let mut queue = queue(&[("c", 2), ("a", 3), ("b", 2)]);
    assert_eq!(all(&mut queue, now), ["b", "c", "a"]);
    queue.put("b", (2, asker("one")), (), Instant::now());
    assert_eq!(next(&mut queue, now), None, "asked already");
}

#[test]
fn who_asks_much_and_early_delays_nobody_else() {
    let now = Instant::now();
    let mut queue = queue(&[("m1", 1), ("m2", 2), ("m3", 3), ("m4", 4)]);
    queue.put("x1", (10, asker("other")), (), Instant::now());
    queue.put("x2", (11, asker("other")), (), Instant::now());
    queue.put("z1", (12, asker("third")), (), Instant::now());
    let order = ["m1", "x1", "z1", "m2", "x2", "m3", "m4"];
    assert_eq!(all(&mut queue, now), order);
}

#[test]
fn nobody_is_passed_by_whoever_asks_later_under_a_name_that_follows() {
    let now = Instant::now();
    let mut queue = queue(&[]);
    queue.put("m1", (1, asker("m")), (), now);
    assert_eq!(next(&mut queue, now).as_deref(), Some("m1"));
    queue.put("a1", (2, asker("a")), (), now);
    queue.put("n1", (3, asker("n")), (), now);
    queue.put("z1", (4, asker("z")), (), now);
    assert_eq!(all(&mut queue, now), ["a1", "n1", "z1"]);
}

#[test]
fn the_turn_passes_on_while_one_keeps_asking() {
    let now = Instant::now();
    let mut queue = queue(&[("m", 1)]);
    queue.put("x", (100, asker("other")), (), Instant::now());
    queue.put("a", (100, asker("another")), (), Instant::now());
    let mut seen = HashSet::new();
    for created in 2..5 {
        let name = next(&mut queue, now).unwrap();
        queue.put(
            &format!("m{created}"),
            (created, asker("one")),
            (),
            Instant::now(),
        );
        seen.insert(name);
    }
    assert_eq!(seen, ["m", "x", "a"].map(str::to_owned).into());
}

#[test]
fn who_is_left_or_fails_does_not_hold_up_the_others_and_comes_back() {
    let now = Instant::now();
    let mut queue = queue(&[("a", 1), ("b", 2), ("c", 3)]);
    for _ in 0..2 {
        next(&mut queue, now);
    }
    assert!(queue.leave("a", Dependency::Names, None, "why".to_owned()));
    queue.failed("b", now);
    assert_eq!(queue.due(), Some(now + FIRST_WAIT));
    assert_eq!(next(&mut queue, now).as_deref(), Some("c"));
    assert_eq!(queue.left(), 1);

    queue.reconsider(|dependency| *dependency == Dependency::Names);
    assert_eq!(queue.left(), 0);
    assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
    let is_news = queue.leave("a", Dependency::Names, None, "why".to_owned());
    assert!(!is_news, "said before");
    assert_eq!(next(&mut queue, now + FIRST_WAIT).as_deref(), Some("b"));
    queue.failed("b", now);
    assert_eq!(queue.due(), Some(now + 2 * FIRST_WAIT));
}

#[test]
fn only_what_waits_for_the_change_is_decided_again() {
    let now = Instant::now();
    let mut queue = queue(&[("a", 1), ("b", 2), ("c", 3)]);
    all(&mut queue, now);
    queue.leave("a", node("e1"), None, "why".to_owned());
    queue.leave("b", node("e2"), None, "why".to_owned());
    queue.leave("c", Dependency::Request, None, "why".to_owned());
    queue.reconsider(|dependency| *dependency == node("e2"));
    assert_eq!(all(&mut queue, now), ["b"]);
    assert_eq!(queue.left(), 2);
}

#[test]
fn what_is_left_until_a_time_comes_back_then_and_only_once() {
    let now = Instant::now();
    let later = now + LONGEST_WAIT;
    let mut queue = queue(&[("a", 1), ("b", 2), ("c", 3)]);
    all(&mut queue, now);
    for name in ["a", "b", "c"] {
        queue.leave(name, node("e1"), Some(later), "why".to_owned());
    }
    assert_eq!(queue.due(), Some(later));
    assert_eq!(next(&mut queue, now), None);
    queue.remove("c");
    queue.reconsider(|_| true);
    assert_eq!(queue.due(), None, "ready before its time");
    assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
    queue.leave("a", node("e1"), Some(later), "why".to_owned());
    assert_eq!(all(&mut queue, later), ["a", "b"]);
    assert_eq!((queue.left(), queue.due()), (0, None));
}

#[test]
fn what_is_gone_is_not_asked_for() {
    let now = Instant::now();
    let mut queue = queue(&[("a", 1), ("b", 2), ("c", 3)]);
    queue.remove("a");
    queue.retain(&["c".to_owned()].into(), |()| true);
    queue.failed("a", now);
    assert_eq!(next(&mut queue, now).as_deref(), Some("c"));
    assert_eq!(next(&mut queue, now), None);
}

#[test]
fn a_new_request_of_an_old_name_takes_its_place() {
    let now = Instant::now();
    let mut queue = queue(&[("a", 1), ("b", 2)]);
    queue.put("a", (3, asker("one")), (), Instant::now());
    assert_eq!(all(&mut queue, now), ["b", "a"]);
}

#[test]
fn the_age_counts_from_the_first_sight_also_of_what_is_listed_anew() {
    let start = Instant::now();
    let mut queue: Queue<u32, ()> = Queue::new();
    queue.put("a", (1, asker("one")), (), start);
    queue.put("a", (1, asker("one")), (), start + FIRST_WAIT);
    let next = queue.next(start + LONGEST_WAIT);
    assert_eq!(
        next,
        Some(("a".to_owned(), Turn::Decide(&()), LONGEST_WAIT))
    );

    queue.put("a", (2, asker("one")), (), start + LONGEST_WAIT);
    let next = queue.next(start + LONGEST_WAIT);
    assert_eq!(
        next,
        Some(("a".to_owned(), Turn::Decide(&()), Duration::ZERO)),
        "another"
    );
}

#[test]
fn of_one_that_asks_without_end_the_oldest_are_denied_and_others_are_not_touched() {
    let now = Instant::now();
    let mut queue = queue(&[]);
    queue.put("other", (0, asker("other")), (), now);
    for n in 0..1000 {
        queue.put(&format!("m{n:04}"), (n, asker("one")), (), now);
        // All that can be decided has its turn: nothing can, the node is not known.
        while let Some((name, turn, _)) = queue.next(now) {
            if turn == Turn::Deny {
                queue.remove(&name);
            } else {
                queue.leave(&name, node("e1"), None, "why".to_owned());
            }
        }
    }
    assert_eq!(queue.left(), MOST_OF_ONE + 1);
    queue.reconsider(|_| true);
    let names = all(&mut queue, now);
    assert!(names.contains(&"other".to_owned()) && names.contains(&"m0999".to_owned()));
    assert!(!names.contains(&"m0967".to_owned()), "{names:?}");
}

#[test]
fn what_is_kept_is_bounded_and_whoever_has_most_makes_room() {
    let now = Instant::now();
    let mut queue = queue(&[]);
    let many = u32::try_from(MOST).unwrap();
    for n in 0..many {
        // Four each.
        queue.put(
            &format!("m{n}"),
            (n, asker(&format!("a{}", n / 4))),
            (),
            now,
        );
    }
    queue.put("newcomer", (many, asker("newcomer")), (), now);
    assert_eq!((queue.undecided_count, queue.left_out), (MOST, false));
    assert_eq!(queue.undecided[&asker("newcomer")].len(), 1);
    let denied = std::iter::from_fn(|| {
        queue
            .next(now)
            .map(|(name, turn, _)| (name, turn == Turn::Deny))
    });
    assert_eq!(denied.filter(|(_, denied)| *denied).count(), 1);
}

#[test]
fn what_is_left_out_is_listed_anew_once_there_is_room() {
    let now = Instant::now();
    let mut queue = queue(&[]);
    for n in 0..=u32::try_from(MOST).unwrap() {
        queue.put(&format!("m{n}"), (n, asker(&format!("a{n}"))), (), now);
    }
    assert_eq!(queue.waiting.len(), MOST);
    assert!(!queue.take_left_out(), "no room yet");
    for n in 0..u32::try_from(MOST / 2).unwrap() {
        queue.remove(&format!("m{n}"));
    }
    assert!(queue.take_left_out() && !queue.take_left_out());
}
