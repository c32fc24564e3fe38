create table customers (
    id int primary key, name text, email text unique, ssn text, card_number varchar(19),
    birth_year int, phone text, note text
);
insert into customers values
    (1, 'Alice', 'alice.secret@example.com', '078-05-1120', '4111111111111111', 1970, '+15550001', ''),
    (2, 'Bob', 'bob.secret@example.com', '219-09-9999', '5500005555555559', 1980, '+15550002', '');
create table orders (
    id int primary key, customer_id int references customers (id), total numeric, note text
);
insert into orders select g, 1 + g % 2, g * 10, '' from generate_series(1, 10) g;
create table vendors (id int, email text);
insert into vendors values (1, 'sales@vendor.example');
create view v_customers as select id, name, email as contact from customers;
create view v_same as select * from customers;
create view v_upper as select id, upper(email) as shout, upper(name) as loud from customers;
create view v_over as select shout, loud from v_upper;
create view v_row as select id, to_jsonb(c) as j from customers c;
create view v_union as select name as x from customers union all select ssn from customers;
create view v_harmless as select id, upper(name) as loud, 1 as one from customers;
create materialized view mv_customers as select id, email as contact from customers;
create function get_contact(i int) returns text language sql stable
    as 'select email from customers where id = i';
create function list_contacts() returns setof customers language sql stable
    as 'select * from customers';
create function tells() returns void language plpgsql as $$
begin raise notice 'it is %', (select email from customers where id = 1); end $$;
create function total(i int) returns numeric language sql stable
    as 'select sum(total) from orders where customer_id = i';
create function through(i int) returns text language plpgsql as $$
begin return get_contact(i); end $$;
create function dynamic(t text) returns text language plpgsql as $$
declare found text; begin execute 'select email from cust' || t into found; return found; end $$;
create view v_function as select get_contact(1) as c, 1 as one;
create table people (id int, email text) partition by range (id);
create table people_p1 partition of people for values from (0) to (100);
insert into people values (1, 'alice.secret@example.com');
create table cust_child (extra text) inherits (customers);
insert into cust_child values
    (50, 'Kid', 'kid.secret@example.com', '111-22-3333', '4111111111111111', 2010, '', '', 'x');
create table made (id int, ssn text, shout text generated always as (upper(ssn)) stored);
insert into made values (1, '078-05-1120');
create table typed (
    t text, v varchar(40), c char(40), j json, jb jsonb, b bytea, x xml, i int, l bigint, n numeric,
    d date, ts timestamptz, o boolean, u uuid, a text[], ia int[], r int4range, f float8, ip inet
);
insert into typed values (
    'sentinel', 'sentinel', 'sentinel', '"sentinel"', '"sentinel"', 'sentinel', 'sentinel', 1, 2, 3.5,
    '2020-01-01', now(), true, gen_random_uuid(), '{sentinel}', '{1,2}', '[1,3)', 1.5, '10.0.0.1'
);
create sequence sq;
analyze;
