//! The limit of open files: raised as far as it goes, and whether that is enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::listener::room::{self, Room};

/// Raises the soft limit to the hard one, and gives the one that is in force; `None` is for no limit. The
/// usual soft limit of 1,024 ends at some hundred sessions.
pub(super) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let in_force = getrlimit(Resource::Nofile).current;
    tracing::info!(soft = ?current, hard = ?maximum, ?in_force, "limit of open files");
    in_force
}

/// What a configuration could use and may not open, where the process that asks is limited like the gateway.
pub fn doubts(config: &Config) -> Vec<String> {
    let (listen, max_sessions) = (&config.listen, config.server.max_sessions);
    let needed = room::needed(listen, max_sessions);
    let limit = getrlimit(Resource::Nofile).maximum;
    let low = limit.filter(|limit| usize::try_from(*limit).is_ok_and(|limit| limit < needed));
    let doubt = |limit| {
        let Room { unproved, http, sessions, .. } = Room::of(Some(limit), listen, max_sessions);
        let http = listen.http.map(|_| format!(", {http} connections for HTTP"));
        format!(
            "a process started from here may open {limit} files, and [server] max_sessions = {max_sessions} \
             could use {needed}: there is room for {sessions} sessions{} and {unproved} connections that \
             have not logged in. Raise the limit (LimitNOFILE, ulimit -Hn) or lower max_sessions",
            http.unwrap_or_default()
        )
    };
    low.map(doubt).into_iter().collect()
}
