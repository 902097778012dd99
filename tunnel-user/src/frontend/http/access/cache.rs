//! Answers that count for a while: each has an end of its own, and there are never more than so many.

use std::{collections::HashMap, hash::Hash};

use tokio::time::Instant;

/// Answers, by question.
pub(super) struct Cache<K, V> {
    most: usize,
    answers: HashMap<K, Answer<V>>,
}

struct Answer<V> {
    value: V,
    until: Instant,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            answers: HashMap::new(),
        }
    }

    /// The answer, as long as it counts.
    pub(super) fn get(&self, question: &K, now: Instant) -> Option<V> {
        let answer = self.answers.get(question)?;
        (now < answer.until).then(|| answer.value.clone())
    }

    /// Keeps it. Where there is no room the one goes that would end first: refusals, which anybody can cause, end
    /// before what was granted.
    pub(super) fn put(&mut self, question: K, value: V, until: Instant, now: Instant) {
        if self.answers.len() >= self.most && !self.answers.contains_key(&question) {
            self.answers.retain(|_, answer| now < answer.until);
            if self.answers.len() >= self.most {
                let first = self.answers.iter().min_by_key(|(_, answer)| answer.until);
                if let Some(first) = first.map(|(question, _)| question.clone()) {
                    self.answers.remove(&first);
                }
            }
        }
        self.answers.insert(question, Answer { value, until });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_ends_and_the_one_that_ends_first_makes_room() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut cache = Cache::new(2);
        cache.put("a", 1, after(10), start);
        cache.put("b", 2, after(2), start);
        assert_eq!(cache.get(&"b", after(1)), Some(2));
        assert_eq!(cache.get(&"b", after(2)), None, "it has ended");
        cache.put("c", 3, after(5), start);
        assert_eq!(cache.get(&"b", start), None, "it had to make room");
        assert_eq!(
            [cache.get(&"a", start), cache.get(&"c", start)],
            [Some(1), Some(3)]
        );
        // What has ended is no reason to let go of what counts; another answer takes the place of its own.
        cache.put("d", 4, after(20), after(6));
        cache.put("a", 5, after(20), after(6));
        assert_eq!(
            [cache.get(&"a", after(6)), cache.get(&"d", after(6))],
            [Some(5), Some(4)]
        );
        assert_eq!(cache.answers.len(), 2);
    }
}
