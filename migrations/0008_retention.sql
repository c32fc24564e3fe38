-- How long recordings are kept, and what is held whatever its age.

-- What [[retention]] selects by: sessions of one target by callers of the same groups. What a
-- gateway recorded of itself has the target ''. There are few of these, so what is due is found
-- without looking at what stays.
create table retention_classes (
    id     bigint generated always as identity primary key,
    hash   bytea  not null unique,
    target text   not null,
    groups text[] not null
);

create table retained (
    session  uuid        primary key,
    gateway  text        not null,
    class    bigint      not null references retention_classes,
    ended_at timestamptz not null,
    state    text        not null default 'kept' -- 'held'; 'gone': its rows are still to go
);

create index retained_due on retained (gateway, class, ended_at, session) where state = 'kept';
create index retained_held on retained (gateway) where state = 'held';
create index retained_gone on retained (gateway) where state = 'gone';

-- Notes sealed recordings: [{"session": …, "closed_us": …}]. A clock that stood in the past does
-- not make one old: the time in the id counts too, and none before 2020.
create function note_retained(sealed json) returns void
    language sql
    as $$
        with ends as (
            select r.session, r.gateway, coalesce(s.target, '') as target,
                coalesce((select array_agg(g order by g) from unnest(s.groups) g), '{}') as groups,
                greatest(
                    coalesce(s.closed_at, to_timestamp(e.closed_us / 1000000.0), now()),
                    to_timestamp(('x' || left(replace(r.session::text, '-', ''), 12))::bit(48)::bigint
                        / 1000.0)) as ended_at
            from json_to_recordset(sealed) e (session uuid, closed_us bigint)
            join recordings r on r.session = e.session
            left join sessions s on s.id = r.session
        ), hashed as (
            select *, sha256(convert_to(json_build_array(target, groups)::text, 'UTF8')) as hash
            from ends
        ), added as (
            insert into retention_classes (hash, target, groups)
            select distinct on (hash) hash, target, groups from hashed
            on conflict (hash) do update set target = excluded.target
            returning id, hash
        )
        insert into retained (session, gateway, class, ended_at)
        select h.session, h.gateway, a.id,
            case when h.ended_at < '2020-01-01 00:00+00' then now() else h.ended_at end
        from hashed h join added a on a.hash = h.hash
        on conflict (session) do nothing
    $$;

select note_retained((select coalesce(json_agg(json_build_object('session', session)), '[]')
    from recordings where sealed));

-- The time that each gateway's retention goes by: a clock that jumped ahead is not believed.
create table retention_clocks (
    gateway text        primary key,
    at      timestamptz not null
);

-- What must stay. A hold covers the sessions that its filter finds, whenever they come.
create table holds (
    id          uuid        primary key,
    reason      text        not null,
    filter      jsonb       not null,
    set_at      timestamptz not null default clock_timestamp(),
    set_by      text        not null,
    lifted_at   timestamptz,
    lifted_by   text,
    lift_reason text
);

create index holds_in_force on holds (set_at) where lifted_at is null;

-- The files that stand beside recordings.
create table hold_files (
    hold    uuid not null,
    session uuid not null,
    gateway text not null,
    primary key (hold, session)
);

create index hold_files_session on hold_files (session);

create trigger tell_of_holds after insert or update on holds
    for each statement execute function tell_gateways();
