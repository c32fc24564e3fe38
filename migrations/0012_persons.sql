-- One person under two accounts is one person also by the address that an issuer verified; a session
-- may be ended without its token; and which session a token was withdrawn with.

alter table votes add column email text;

alter table withdrawals add column keep_credential boolean not null default false;
alter table withdrawals add column session uuid;

create index withdrawals_session on withdrawals (session) where session is not null;

-- How many requests one identity, one session and one target have open.
create index requests_of_identity on requests (issuer, subject, created_at);
create index requests_of_session on requests (session)
    where session is not null and state in ('pending', 'approved');
create index requests_of_target on requests (target) where state in ('pending', 'approved');
