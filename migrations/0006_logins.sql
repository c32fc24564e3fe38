-- Logins in a browser: who somebody is until then. The cookie's secret is not stored, its hash is.

create table logins (
    hash       text        primary key,
    issuer     text        not null,
    subject    text        not null,
    username   text        not null,
    groups     text[]      not null,
    claims     jsonb       not null,
    workflow   text,
    run        text,
    credential text        not null, -- the token that proved it: when that is withdrawn, so is this
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null
);

create index logins_expires_at on logins (expires_at);

-- What is open now is looked at often, and is little of what there is.
create index sessions_open on sessions (opened_at) where closed_at is null;
