-- How far each gateway's ledger is known to go: what shows that its end was cut.

create table ledger_heads (
    gateway text        primary key,
    lines   bigint      not null,
    hash    text        not null,
    at      timestamptz not null default clock_timestamp()
);
