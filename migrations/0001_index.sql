-- The index: what the recordings say, for search. All of it can be rebuilt from them.

create table sessions (
    id                uuid        primary key,
    gateway           text        not null,
    protocol          text        not null,
    target            text        not null,
    database          text,
    client            text        not null,
    issuer            text        not null,
    subject           text        not null,
    username          text        not null,
    groups            text[]      not null,
    workflow          text,
    workflow_proved   boolean,
    run               text,
    run_proved        boolean,
    client_parameters jsonb       not null,
    policy            text        not null,
    gateway_version   text        not null,
    opened_at         timestamptz not null,
    closed_at         timestamptz,
    ended             text,
    ended_text        text,
    commands          bigint      not null,
    allowed           bigint      not null,
    approved          bigint      not null,
    blocked           bigint      not null,
    overridden        bigint      not null,
    failed            bigint      not null,
    rows              bigint      not null,
    bytes_up          bigint      not null,
    bytes_down        bigint      not null,
    missing_events    bigint      not null
) with (fillfactor = 80); -- room for the counters to change in place

create index sessions_opened_at on sessions (opened_at, id);
create index sessions_username on sessions (username, opened_at);
create index sessions_target on sessions (target, opened_at);
create index sessions_run on sessions (run, opened_at) where run is not null;
create index sessions_workflow on sessions (workflow, opened_at) where workflow is not null;
create index sessions_protocol on sessions (protocol, opened_at);
create index sessions_blocked on sessions (opened_at) where blocked > 0;
create index sessions_approved on sessions (opened_at) where approved > 0;
create index sessions_groups on sessions using gin (groups);

-- One row is one thing that a client had done, or tried: see docs/index.md. Partitions go by the
-- month in the session's id, a UUIDv7, so everything about one session is in one of them and a
-- session is found without knowing when. The gateway makes them as months come.
create table commands (
    session       uuid        not null,
    sequence      bigint      not null,
    at            timestamptz not null,
    protocol      text        not null,
    target        text        not null,
    username      text        not null,
    workflow      text,
    run           text,
    form          text        not null,
    text          text,
    cut           boolean     not null,
    attributes    jsonb       not null,
    effects       jsonb       not null,
    verdict       text        not null,
    rules         text[]      not null,
    reason        text,
    overridden    text,
    overridden_rules text[]   not null,
    status        text,
    rows          bigint,
    error_code    text,
    error_message text,
    duration_us   bigint,
    primary key (session, sequence)
) partition by range (session);

create table commands_other partition of commands default;

-- Words of a command, with the punctuation of SQL, paths and JSON between them. It stays on both
-- sides of a search alike; quotes and hyphens are left, which mean something to web search.
create function command_words(command text) returns text
    language sql immutable strict parallel safe
    return pg_catalog.translate(command, './\@:;,=+*<>%#~&|^!?()[]{}$''`', '                             ');

-- Groups and protocols are looked up by session: few of those are many commands.
create index commands_at on commands (at);
create index commands_username on commands (username, at);
create index commands_target on commands (target, at);
create index commands_run on commands (run, at) where run is not null;
create index commands_workflow on commands (workflow, at) where workflow is not null;
create index commands_verdict on commands (verdict, at) where verdict <> 'allow';
create index commands_words on commands
    using gin (to_tsvector('pg_catalog.simple', command_words(text)));

-- How far each recording is indexed: the place behind a block.
create table recordings (
    session       uuid    primary key,
    gateway       text    not null,
    file_offset   bigint  not null,
    blocks        bigint  not null,
    events        bigint  not null,
    raw_bytes     bigint  not null,
    next_sequence bigint  not null,
    chain         text    not null,
    sealed        boolean not null,
    failed        text
);

create index recordings_to_follow on recordings (gateway) where not sealed and failed is null;

-- How far each gateway's ledger was read.
create table ledgers (
    gateway     text   primary key,
    file_offset bigint not null
);
