-- State: who looked at what, who decided what. Nothing else holds it.

create table audit_log (
    id       bigint      generated always as identity primary key,
    at       timestamptz not null default clock_timestamp(),
    issuer   text,
    subject  text,
    username text        not null,
    client   text,
    action   text        not null,
    object   text,
    outcome  text        not null,
    detail   jsonb       not null
);

create index audit_log_username on audit_log (username, id);
create index audit_log_action on audit_log (action, id);
create index audit_log_object on audit_log (object, id) where object is not null;
create index audit_log_at on audit_log using brin (at);
