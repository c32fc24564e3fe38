create extension if not exists btree_gist;
create table customers (
    id int primary key, tenant_id text not null, name text, email text unique, amount int, note text
);
insert into customers values
    (1, 'acme', 'Ann', 'ann@acme.example', 10, 'a'), (2, 'acme', 'Abe', 'abe@acme.example', 20, 'b'),
    (101, 'globex', 'Sentinel-Gus', 'gus@sentinel.example', 7777001, 'sentinel-note'),
    (102, 'globex', 'Sentinel-Gil', 'gil@sentinel.example', 7777002, '12x');
create table cust_child (extra text) inherits (customers);
insert into cust_child values
    (3, 'acme', 'Kid', 'kid@acme.example', 30, 'c', 'x'),
    (103, 'globex', 'Sentinel-Kid', 'kid@sentinel.example', 7777003, 'n', 'sentinel-extra');
create table orders (
    id int primary key, tenant_id text, customer_id int references customers (id), total numeric
);
insert into orders values (1, 'acme', 1, 5), (2, 'acme', 2, 6), (101, 'globex', 101, 7777004);
create table events (id int, tenant_id text, what text) partition by range (id);
create table events_p1 partition of events for values from (0) to (100);
create table events_p2 partition of events for values from (100) to (1000);
insert into events values (1, 'acme', 'in'), (2, 'globex', 'sentinel-in'), (101, 'globex', 'sentinel-out');
create table seats (org int, during int4range, who text, exclude using gist (org with =, during with &&));
insert into seats values (42, '[1,3)', 'ours'), (7, '[7777005,7777009)', 'sentinel-seat');
create table rooms (org int, seat int4range, who text, exclude using gist (seat with &&));
insert into rooms values (42, '[1,3)', 'ours'), (7, '[7777005,7777009)', 'sentinel-room');
create table notes (id int, tenant_id text, text text);
insert into notes values (1, 'acme', 'open'), (2, 'globex', 'open, too');
create table odd (id int, "Tenant ""x""" text, odd text);
insert into odd values (1, 'acme', 'ours'), (2, 'globex', 'sentinel-odd');
create view v_customers as select * from customers;
create view v_names as select id, name from customers where amount > 0;
create view v_count as select count(*) as n, sum(amount) as s from customers;
create view v_any as select exists (select from customers where name like 'Sentinel%') as any;
create view v_join as
    select o.id, c.name, o.total from orders o join customers c on c.id = o.customer_id;
create view v_nested as select upper(name) as loud from v_names;
create view v_open as select n.id, n.text from notes n;
create materialized view mv_customers as select id, tenant_id, name from customers;
create materialized view mv_own as select id, tenant_id, name from customers;
create function list_customers() returns setof customers language sql stable
    as 'select * from customers';
create function count_customers() returns bigint language sql stable
    as 'select count(*) from customers';
create function dynamic(t text) returns text language plpgsql as $$
declare found text; begin execute 'select name from cust' || t into found; return found; end $$;
create view v_function as select name from list_customers();
create schema other;
create table other.customers (id int, tenant_id text, name text);
insert into other.customers values (1, 'globex', 'not filtered');
create table sink (t text);
analyze;
