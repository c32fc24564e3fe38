-- What a person does in psql. The transcript through the gateway must be the transcript without it.
\set VERBOSITY verbose
\set SHOW_CONTEXT always
\pset null '(null)'

\echo == schema
drop schema if exists clients_psql cascade;
create schema clients_psql;
set search_path = clients_psql;
create table items (
    id bigint generated always as identity primary key,
    name text not null check (name <> ''),
    price numeric(10, 2),
    tags text[] not null default '{}',
    detail jsonb,
    data bytea
);

\echo == empty query
;
select;

\echo == rows of many types
insert into items (name, price, tags, detail, data) values
    ('plain', 1.50, '{a,b}', '{"k": [1, 2]}', '\x00ff'),
    ('quoted ''it''', null, '{}', null, null),
    ('wide ünïcødé 漢字 🙂', -0.01, array['x y', '"'], '"s"', decode(repeat('ab', 40), 'hex'))
returning *;
table items order by id;
\x on
select * from items where name = 'plain';
\x off

\echo == several statements in one message
select 1 as first\; select 2 as second\; select 3 as third;
insert into items (name) values ('rolled back')\; select 1 / 0\; select 'never reached';
select count(*) from items;

\echo == errors and notices
select no_such_column from items;
selec 1;
insert into items (name) values ('');
do $$ begin raise notice 'a notice'; raise warning 'a warning' using detail = 'its detail', hint = 'its hint'; end $$;
do $$ begin raise exception 'raised' using errcode = 'P0042', detail = 'its detail', table = 'items'; end $$;
drop table if exists not_there;

\echo == transactions and savepoints
begin;
insert into items (name) values ('kept');
savepoint one;
insert into items (name) values ('undone');
select 1 / 0;
select 'in a failed transaction';
rollback to savepoint one;
release savepoint one;
commit;
begin;
delete from items;
rollback;
commit;
select name from items order by id;
begin isolation level serializable read only deferrable;
show transaction_isolation;
insert into items (name) values ('read only');
end;

\echo == settings the server reports
set time zone 'Asia/Tokyo';
select timestamptz '2024-01-02 03:04:05+00';
set datestyle = 'German, DMY';
select timestamptz '2024-01-02 03:04:05+00';
set intervalstyle = 'iso_8601';
select interval '1 day 02:03';
set application_name = 'clients psql';
show application_name;
set bytea_output = 'escape';
select data from items where data is not null order by id;
reset all;
set search_path = clients_psql;

\echo == prepared statements in SQL
prepare by_name (text) as select id, name from items where name = $1;
execute by_name ('plain');
execute by_name ('kept');
deallocate by_name;
execute by_name ('plain');

\echo == cursors
begin;
declare c scroll cursor for select g from generate_series(1, 100) g;
fetch 3 from c;
fetch backward 2 from c;
move forward 90 in c;
fetch all from c;
close c;
commit;

\echo == results fetched by a cursor of psql
\set FETCH_COUNT 777
select count(*), sum(length(x)) from (select repeat('x', g % 50) x from generate_series(1, 5000) g) s;
\o /dev/null
select g, repeat('y', 20) from generate_series(1, 5000) g;
\o
\unset FETCH_COUNT

\echo == COPY
copy items (name, price) from stdin;
copied	2.25
with\ttab	\N
\.
copy items (name, price) from stdin (format csv, header);
name,price
"csv, quoted",3
\.
copy items (name, price) from stdin;
good	1
bad	not a number
\.
copy items (name) from stdin;
\.
copy items (name, price, tags) to stdout;
copy (select name, price from items order by id) to stdout (format csv, header, force_quote *);
\copy (select * from items order by id) to program 'md5sum' with (format binary)
\copy items (name, price) from program 'printf "programmed\t9\n"'
copy not_there from stdin;
\.
copy not_there to stdout;
select count(*) from items;

\echo == LISTEN and NOTIFY
listen clients_psql;
notify clients_psql, 'to myself';
select pg_notify('clients_psql', 'by function');
unlisten *;
notify clients_psql, 'nobody hears';

\echo == large objects, by SQL functions
select lo_unlink(424242) from pg_largeobject_metadata where oid = 424242;
select lo_from_bytea(424242, '\xdeadbeef');
select lo_put(424242, 4, '\x00ff');
begin;
select lo_open(424242, 393216) as fd;
select loread(0, 3), lowrite(0, '\x11'), lo_tell64(0), lo_close(0);
commit;
select lo_get(424242);
select lo_unlink(424242);

\echo == what psql asks of the catalogs
\d items
\dt clients_psql.*
\df clients_psql.*
\dn clients_psql

\echo == gdesc, gexec, crosstabview
select 1::int as a, 'x'::text as b \gdesc
select format('select %s as n', g) from generate_series(1, 3) g \gexec
select 'r' || a as r, 'c' || b as c, a * b as v from generate_series(1, 2) a, generate_series(1, 2) b \crosstabview

\echo == a value of 20 MB
select length(repeat('0123456789', 2000000)), md5(repeat('0123456789', 2000000));
\copy (select repeat('0123456789', 2000000)) to program 'md5sum'

\echo == session state
select pg_advisory_lock(7)\; select pg_advisory_unlock(7);
create temp table t as select 1 as one;
table t;
discard all;
table t;
drop schema clients_psql cascade;
