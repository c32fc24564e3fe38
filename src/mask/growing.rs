//! Whether the end of a text could be the beginning of a match: only that is held back.

use std::sync::Arc;

use parking_lot::Mutex;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, MatchKind};

use super::scanner::MASK_END;

/// Follows an expression from a place to the end of a text. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Growing(Option<Arc<Automaton>>);

#[derive(Debug)]
struct Automaton {
    dfa: DFA,
    /// The states that were met so far.
    cache: Mutex<Cache>,
}

impl Growing {
    /// For an expression that compiled. Of one that no automaton follows everything could grow.
    pub(super) fn new(expression: &str, unicode: bool, most: usize) -> Self {
        let thompson = thompson::Config::new().utf8(false).nfa_size_limit(Some(most));
        // Every way in which a match may go on, not only those that an expression would prefer.
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .unicode_word_boundary(true)
            .skip_cache_capacity_check(true);
        let dfa = DFA::builder()
            .syntax(syntax::Config::new().unicode(unicode).utf8(false))
            .thompson(thompson)
            .configure(config)
            .build(expression);
        let automaton = dfa.ok().map(|dfa| {
            let cache = Mutex::new(dfa.create_cache());
            Arc::new(Automaton { dfa, cache })
        });
        Self(automaton)
    }

    /// The first place from `from` on where a match could begin that the text does not decide.
    pub(super) fn first(&self, text: &[u8], from: usize, begins: fn(u8) -> bool) -> Option<usize> {
        let places = (from..).zip(text.get(from..)?).filter(|(_, byte)| begins(**byte));
        let mut places = places.map(|(at, _)| at);
        let Some(automaton) = &self.0 else { return places.next() };
        let mut cache = automaton.cache.lock();
        places.find(|at| {
            let before = at.checked_sub(1).and_then(|before| text.get(before)).copied();
            let rest = text.get(*at..).unwrap_or_default();
            // What stands before may be masked by then.
            [before, Some(MASK_END)].iter().any(|&byte| automaton.lives(&mut cache, byte, rest))
        })
    }
}

impl Automaton {
    /// Whether a match may begin with all of this text, or end with it.
    fn lives(&self, cache: &mut Cache, before: Option<u8>, text: &[u8]) -> bool {
        let start = start::Config::new().anchored(Anchored::Yes).look_behind(before);
        let Ok(mut state) = self.dfa.start_state(cache, &start) else { return true };
        for byte in text {
            match self.dfa.next_state(cache, state, *byte) {
                Ok(next) if next.is_dead() => return false,
                Ok(next) if !next.is_quit() => state = next,
                _ => return true,
            }
        }
        true
    }
}
