//! State: what people decide while the gateway runs, and nothing else holds. Each write is kept
//! when its function returns; while the database cannot be reached, each is refused.

mod grants;
mod holds;
mod ledger_heads;
mod listen;
mod logins;
mod requests;
mod sight;
mod tickets;
mod users;
mod withdrawals;

pub use grants::AccessGrant;
pub(super) use holds::in_force;
pub use holds::{Hold, HoldFilter, HoldSet, OneSession};
pub use listen::StateNews;
pub use logins::Login;
pub use requests::{
    Answer, Command as CommandRequest, DecideError, Decided, Need, NewRequest, Request,
    RequestKind, RequestLimits, RequestState, Standing, Vote, VoteVerdict, Voter,
};
pub use sight::PROMISE;
pub use tickets::{NewTicket, StoredTicket, Ticket, TicketLimits, TicketMade};
pub use users::RevokedUser;
pub use withdrawals::{
    Known, ReadTo, Withdrawal, WithdrawalPage, WithdrawalPlace, Withdrawn, WithdrawnKind,
    WithdrawnToken,
};
