-- State that people make while the gateway runs: tickets, requests and their decisions, grants, and
-- what was withdrawn. Nothing else holds it.

create table tickets (
    id         uuid        primary key,
    hash       text        not null unique, -- of the secret, which is not stored
    issuer     text        not null,
    subject    text        not null,
    username   text        not null,
    groups     text[]      not null,
    claims     jsonb       not null,
    workflow   text,
    run        text,
    made_with  text        not null, -- the credential of who made it
    target     text        not null,
    single_use boolean     not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    revoked_by text
);

create index tickets_owner on tickets (issuer, subject, id);
create index tickets_expires_at on tickets (expires_at);

-- Credentials that opened the one session that they may open.
create table used_credentials (
    credential text        primary key,
    session    uuid        not null,
    used_at    timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null
);

create index used_credentials_expires_at on used_credentials (expires_at);

-- What counts no more before its time: sessions to end, credentials to refuse, grants.
create table withdrawals (
    kind     text        not null,
    key      text        not null,
    at       timestamptz not null default clock_timestamp(),
    until    timestamptz not null,
    username text        not null,
    ended_at timestamptz, -- when the gateway of a session has ended it
    primary key (kind, key)
);

create index withdrawals_at on withdrawals (at);
create index withdrawals_until on withdrawals (until);

-- What waits for people, or waited: commands and access.
create table requests (
    id         uuid        primary key,
    kind       text        not null,
    state      text        not null,
    issuer     text        not null,
    subject    text        not null,
    username   text        not null,
    email      text,
    target     text        not null,
    protocol   text        not null,
    gateway    text,
    process    uuid,
    session    uuid,
    sequence   bigint,
    workflow   text,
    run        text,
    command    jsonb,
    exact      text,
    needs      jsonb       not null,
    cautions   jsonb       not null,
    reason     text,
    comment    text,
    seconds    bigint, -- of the access that is asked for
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    decided_at timestamptz,
    note       text
);

create index requests_open on requests (expires_at) where state in ('pending', 'approved');
create index requests_created_at on requests (created_at);
create index requests_requester on requests (issuer, subject, target) where kind = 'access';
create index requests_of_gateway on requests (gateway)
    where kind = 'command' and state in ('pending', 'approved');

create table votes (
    request  uuid        not null references requests on delete cascade,
    issuer   text        not null,
    subject  text        not null,
    username text        not null,
    groups   text[]      not null,
    verdict  text        not null,
    comment  text,
    at       timestamptz not null default clock_timestamp(),
    primary key (request, issuer, subject)
);

-- One person under two names of two issuers is one person.
create unique index votes_person on votes (request, lower(username));

create table grants (
    id         uuid        primary key,
    request    uuid        not null unique references requests,
    issuer     text        not null,
    subject    text        not null,
    username   text        not null,
    target     text        not null,
    starts_at  timestamptz not null default clock_timestamp(),
    ends_at    timestamptz not null,
    revoked_at timestamptz,
    revoked_by text
);

create index grants_holder on grants (issuer, subject, target, ends_at);
create index grants_ends_at on grants (ends_at);

-- Wakes every gateway of the database, which then looks for what is new.
create function tell_gateways() returns trigger
    language plpgsql
    as $$ begin perform pg_catalog.pg_notify('portcullis_state', ''); return null; end $$;

create trigger tell_of_withdrawals after insert or update on withdrawals
    for each statement execute function tell_gateways();
create trigger tell_of_requests after insert or update on requests
    for each statement execute function tell_gateways();
