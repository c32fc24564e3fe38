//! How the descriptors that a process may open are divided.
//!
//! Whoever connects takes one without having proved anything. So what nobody has proved is bounded by the
//! limit, and so are connections that ask one request after another: what is left is for sessions, each
//! of which needs several at once to be recorded.

use crate::config::Listen;

/// What a session takes: its client's connection, its target's, its recording, and one that is opened for
/// a moment.
const OF_SESSION: usize = 4;
/// What the gateway takes for itself: listeners, the database, ledger and archive, timers.
const OWN: usize = 64;
/// Connections that have not shown who they are yet, where there is room. Each costs some 10 KiB.
const MAX_UNPROVED: usize = 2_048;
/// Connections of the listener for HTTP, where there is room.
const MAX_HTTP: usize = 8_192;
/// Connections of the listener for the API, and of that for figures. People and dashboards need few.
const MAX_WEB: usize = 576;

/// So many there may be of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Connections to the listeners of clients that have not shown who they are.
    pub unproved: usize,
    /// Connections for HTTP.
    pub http: usize,
    /// Connections to the API, and as many for figures.
    pub web: usize,
    /// Sessions.
    pub sessions: usize,
}

impl Room {
    /// The room that there is with so many descriptors; `None` is for no limit.
    pub fn of(descriptors: Option<u64>, listen: &Listen, max_sessions: usize) -> Self {
        let most =
            Self { unproved: MAX_UNPROVED, http: MAX_HTTP, web: MAX_WEB, sessions: max_sessions };
        let descriptors =
            descriptors.map_or(usize::MAX, |most| most.try_into().unwrap_or(usize::MAX));
        if descriptors >= needed(listen, max_sessions) {
            return most;
        }
        let usable = descriptors.saturating_sub(OWN);
        let (unproved, web) = (MAX_UNPROVED.min(usable / 8), MAX_WEB.min(usable / 16));
        let fixed = unproved + web * webs(listen);
        let spare =
            usable.saturating_sub(fixed).saturating_sub(max_sessions.saturating_mul(OF_SESSION));
        let http = MAX_HTTP.min(spare.max(usable / 4));
        let taken = fixed + if listen.http.is_some() { http } else { 0 };
        let sessions = usable.saturating_sub(taken) / OF_SESSION;
        Self { unproved, http, web, sessions: sessions.min(max_sessions) }
    }
}

/// How many descriptors a configuration could use.
pub fn needed(listen: &Listen, max_sessions: usize) -> usize {
    let http = if listen.http.is_some() { MAX_HTTP } else { 0 };
    let connections = OWN + MAX_UNPROVED + http + MAX_WEB * webs(listen);
    max_sessions.saturating_mul(OF_SESSION).saturating_add(connections)
}

fn webs(listen: &Listen) -> usize {
    usize::from(listen.web.is_some()) + usize::from(listen.metrics.is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Listen {
        let address = Some("127.0.0.1:1".parse().unwrap());
        Listen { http: address, web: address, metrics: address, ..Listen::default() }
    }

    #[test]
    fn with_descriptors_enough_everything_has_its_most() {
        let most = Room { unproved: 2_048, http: 8_192, web: 576, sessions: 10_000 };
        assert_eq!(Room::of(None, &all(), 10_000), most);
        assert_eq!(needed(&all(), 10_000), 51_456);
        assert_eq!(Room::of(Some(51_456), &all(), 10_000), most);
        assert_eq!(Room::of(Some(51_455), &all(), 10_000).sessions, 9_999);
    }

    proptest! {
        #[test]
        fn what_is_given_away_is_there(
            descriptors in 80u64..60_000,
            sessions in 1usize..12_000,
            with_http in any::<bool>(),
        ) {
            let mut listen = all();
            listen.http = listen.http.filter(|_| with_http);
            let room = Room::of(Some(descriptors), &listen, sessions);
            let http = if with_http { room.http } else { 0 };
            let taken = OWN + room.unproved + http + 2 * room.web + OF_SESSION * room.sessions;
            prop_assert!(taken <= usize::try_from(descriptors).unwrap(), "{room:?}");
            prop_assert!(room.sessions == sessions || room.sessions * 8 + 8 > (usize::try_from(descriptors).unwrap() - OWN) / 2);
        }
    }
}
