select id from customers where email = 'alice.secret@example.com'
select id from customers where email <> 'alice.secret@example.com' order by id
select id from customers where email like '0%' or email like 'a%' or email like '4%' order by id
select id from customers where email between '0' and '5' order by id
select id from customers where email in ('alice.secret@example.com') order by id
select id from customers where email is null
select id from customers where email ~ '^[0-9]' order by id
select id from customers where length(email) > 11 order by id
select id from customers order by email, id
select id from customers order by email desc, id limit 1
select count(distinct email) from customers
select email, count(*) from customers group by email order by 2, 1
select count(*) from customers group by left(email, 1) order by 1
select min(email), max(email) from customers
select sum(ascii(email)) from customers
select string_agg(email, ',' order by id) from customers
select id, rank() over (order by email) from customers order by id
select id, first_value(id) over (order by email, id) from customers order by id
select distinct email from customers
select distinct on (email) id from customers order by email, id
select email from customers intersect select 'alice.secret@example.com'
select email from customers except select 'alice.secret@example.com' order by 1
select email from customers union select 'alice.secret@example.com' order by 1
select exists (select from customers where email = 'alice.secret@example.com')
select a.id, b.id from customers a join customers b on a.email < b.email order by 1, 2
select a.id from customers a join (values ('alice.secret@example.com')) v (x) on v.x = a.email order by 1
select id from customers where email = any (array['alice.secret@example.com']) order by id
select id from customers where (email, id) > ('alice.secret@example.com', 0) order by id
select id from customers c where (select count(*) from customers d where d.email <= c.email) = 1 order by id
select count(*) from customers having max(email) > 'b'
select 1 / (case when email like '0%' then 0 else 1 end) from customers order by id
select email::int from customers
select email::date from customers
select ('{' || email || '}')::jsonb from customers
select (select email from customers)
select generate_series(1, ascii(email) % 3) from customers where id = 1
select id from customers limit (select ascii(min(email)) % 3 from customers)
select id from customers where md5(email) like '0%' order by id
explain (costs off) select id from customers where email = 'alice.secret@example.com'
explain (analyze, costs off, timing off, summary off) select id from customers where email = 'alice.secret@example.com'
explain select id from customers where email < 'alice.secret@example.com'
with x as (select email as v, id from customers) select id from x where v = 'alice.secret@example.com'
with recursive r(v, i) as (select email, 1 from customers where id = 1 union all select v, i + 1 from r where i < ascii(v) % 4) select count(*) from r
select id from (select id, email z from customers) q where z = 'alice.secret@example.com'
select q.id from customers q, lateral (select q.email as z) s where s.z = 'alice.secret@example.com'
select v from customers c, jsonb_each_text(to_jsonb(c)) as t(k, v) where k = 'email' and v = 'alice.secret@example.com'
update customers set note = 'y' where email = 'alice.secret@example.com'
delete from customers where email = 'alice.secret@example.com'
update orders o set note = c.email from customers c where c.id = o.customer_id and c.email = 'alice.secret@example.com' returning o.id
merge into orders o using customers c on c.id = o.customer_id and c.email = 'alice.secret@example.com' when matched then update set note = 'z'
insert into vendors select id, 'x' from customers where email = 'alice.secret@example.com' returning id
prepare pemail (text) as select id from customers where email = $1; execute pemail('alice.secret@example.com'); deallocate pemail
begin; declare cur cursor for select id from customers where email = 'alice.secret@example.com'; fetch all from cur; commit
copy (select id from customers where email = 'alice.secret@example.com') to stdout
select row_number() over (partition by email order by id) from customers order by id
select percentile_disc(0.5) within group (order by email) from customers
select width_bucket(ascii(email), 0, 128, 8) from customers order by id
select coalesce(nullif(email, 'alice.secret@example.com'), 'same') from customers order by id
select id from customers where ssn = '078-05-1120'
select id from customers where ssn <> '078-05-1120' order by id
select id from customers where ssn like '0%' or ssn like 'a%' or ssn like '4%' order by id
select id from customers where ssn between '0' and '5' order by id
select id from customers where ssn in ('078-05-1120') order by id
select id from customers where ssn is null
select id from customers where ssn ~ '^[0-9]' order by id
select id from customers where length(ssn) > 11 order by id
select id from customers order by ssn, id
select id from customers order by ssn desc, id limit 1
select count(distinct ssn) from customers
select ssn, count(*) from customers group by ssn order by 2, 1
select count(*) from customers group by left(ssn, 1) order by 1
select min(ssn), max(ssn) from customers
select sum(ascii(ssn)) from customers
select string_agg(ssn, ',' order by id) from customers
select id, rank() over (order by ssn) from customers order by id
select id, first_value(id) over (order by ssn, id) from customers order by id
select distinct ssn from customers
select distinct on (ssn) id from customers order by ssn, id
select ssn from customers intersect select '078-05-1120'
select ssn from customers except select '078-05-1120' order by 1
select ssn from customers union select '078-05-1120' order by 1
select exists (select from customers where ssn = '078-05-1120')
select a.id, b.id from customers a join customers b on a.ssn < b.ssn order by 1, 2
select a.id from customers a join (values ('078-05-1120')) v (x) on v.x = a.ssn order by 1
select id from customers where ssn = any (array['078-05-1120']) order by id
select id from customers where (ssn, id) > ('078-05-1120', 0) order by id
select id from customers c where (select count(*) from customers d where d.ssn <= c.ssn) = 1 order by id
select count(*) from customers having max(ssn) > 'b'
select 1 / (case when ssn like '0%' then 0 else 1 end) from customers order by id
select ssn::int from customers
select ssn::date from customers
select ('{' || ssn || '}')::jsonb from customers
select (select ssn from customers)
select generate_series(1, ascii(ssn) % 3) from customers where id = 1
select id from customers limit (select ascii(min(ssn)) % 3 from customers)
select id from customers where md5(ssn) like '0%' order by id
explain (costs off) select id from customers where ssn = '078-05-1120'
explain (analyze, costs off, timing off, summary off) select id from customers where ssn = '078-05-1120'
explain select id from customers where ssn < '078-05-1120'
with x as (select ssn as v, id from customers) select id from x where v = '078-05-1120'
with recursive r(v, i) as (select ssn, 1 from customers where id = 1 union all select v, i + 1 from r where i < ascii(v) % 4) select count(*) from r
select id from (select id, ssn z from customers) q where z = '078-05-1120'
select q.id from customers q, lateral (select q.ssn as z) s where s.z = '078-05-1120'
select v from customers c, jsonb_each_text(to_jsonb(c)) as t(k, v) where k = 'ssn' and v = '078-05-1120'
update customers set note = 'y' where ssn = '078-05-1120'
delete from customers where ssn = '078-05-1120'
update orders o set note = c.ssn from customers c where c.id = o.customer_id and c.ssn = '078-05-1120' returning o.id
merge into orders o using customers c on c.id = o.customer_id and c.ssn = '078-05-1120' when matched then update set note = 'z'
insert into vendors select id, 'x' from customers where ssn = '078-05-1120' returning id
prepare pssn (text) as select id from customers where ssn = $1; execute pssn('078-05-1120'); deallocate pssn
begin; declare cur cursor for select id from customers where ssn = '078-05-1120'; fetch all from cur; commit
copy (select id from customers where ssn = '078-05-1120') to stdout
select row_number() over (partition by ssn order by id) from customers order by id
select percentile_disc(0.5) within group (order by ssn) from customers
select width_bucket(ascii(ssn), 0, 128, 8) from customers order by id
select coalesce(nullif(ssn, '078-05-1120'), 'same') from customers order by id
select id from customers where card_number = '4111111111111111'
select id from customers where card_number <> '4111111111111111' order by id
select id from customers where card_number like '0%' or card_number like 'a%' or card_number like '4%' order by id
select id from customers where card_number between '0' and '5' order by id
select id from customers where card_number in ('4111111111111111') order by id
select id from customers where card_number is null
select id from customers where card_number ~ '^[0-9]' order by id
select id from customers where length(card_number) > 11 order by id
select id from customers order by card_number, id
select id from customers order by card_number desc, id limit 1
select count(distinct card_number) from customers
select card_number, count(*) from customers group by card_number order by 2, 1
select count(*) from customers group by left(card_number, 1) order by 1
select min(card_number), max(card_number) from customers
select sum(ascii(card_number)) from customers
select string_agg(card_number, ',' order by id) from customers
select id, rank() over (order by card_number) from customers order by id
select id, first_value(id) over (order by card_number, id) from customers order by id
select distinct card_number from customers
select distinct on (card_number) id from customers order by card_number, id
select card_number from customers intersect select '4111111111111111'
select card_number from customers except select '4111111111111111' order by 1
select card_number from customers union select '4111111111111111' order by 1
select exists (select from customers where card_number = '4111111111111111')
select a.id, b.id from customers a join customers b on a.card_number < b.card_number order by 1, 2
select a.id from customers a join (values ('4111111111111111')) v (x) on v.x = a.card_number order by 1
select id from customers where card_number = any (array['4111111111111111']) order by id
select id from customers where (card_number, id) > ('4111111111111111', 0) order by id
select id from customers c where (select count(*) from customers d where d.card_number <= c.card_number) = 1 order by id
select count(*) from customers having max(card_number) > 'b'
select 1 / (case when card_number like '0%' then 0 else 1 end) from customers order by id
select card_number::int from customers
select card_number::date from customers
select ('{' || card_number || '}')::jsonb from customers
select (select card_number from customers)
select generate_series(1, ascii(card_number) % 3) from customers where id = 1
select id from customers limit (select ascii(min(card_number)) % 3 from customers)
select id from customers where md5(card_number) like '0%' order by id
explain (costs off) select id from customers where card_number = '4111111111111111'
explain (analyze, costs off, timing off, summary off) select id from customers where card_number = '4111111111111111'
explain select id from customers where card_number < '4111111111111111'
with x as (select card_number as v, id from customers) select id from x where v = '4111111111111111'
with recursive r(v, i) as (select card_number, 1 from customers where id = 1 union all select v, i + 1 from r where i < ascii(v) % 4) select count(*) from r
select id from (select id, card_number z from customers) q where z = '4111111111111111'
select q.id from customers q, lateral (select q.card_number as z) s where s.z = '4111111111111111'
select v from customers c, jsonb_each_text(to_jsonb(c)) as t(k, v) where k = 'card_number' and v = '4111111111111111'
update customers set note = 'y' where card_number = '4111111111111111'
delete from customers where card_number = '4111111111111111'
update orders o set note = c.card_number from customers c where c.id = o.customer_id and c.card_number = '4111111111111111' returning o.id
merge into orders o using customers c on c.id = o.customer_id and c.card_number = '4111111111111111' when matched then update set note = 'z'
insert into vendors select id, 'x' from customers where card_number = '4111111111111111' returning id
prepare pcard_number (text) as select id from customers where card_number = $1; execute pcard_number('4111111111111111'); deallocate pcard_number
begin; declare cur cursor for select id from customers where card_number = '4111111111111111'; fetch all from cur; commit
copy (select id from customers where card_number = '4111111111111111') to stdout
select row_number() over (partition by card_number order by id) from customers order by id
select percentile_disc(0.5) within group (order by card_number) from customers
select width_bucket(ascii(card_number), 0, 128, 8) from customers order by id
select coalesce(nullif(card_number, '4111111111111111'), 'same') from customers order by id
select id from customers where birth_year > 1975 order by id
select avg(birth_year) from customers
select id from customers order by birth_year nulls last, id
select 1 / (birth_year - 1970) from customers order by id
select shout from made where shout like '078%'
select id from made order by shout
select count(*) from made where ssn = '078-05-1120'
select most_common_vals, histogram_bounds from pg_stats where tablename = 'customers' order by attname
select attname from pg_stats where tablename = 'customers' and histogram_bounds::text like '%alice%'
select attname from pg_stats where tablename = 'customers' and most_common_vals::text like '%alice%'
select contact from v_customers where contact like 'alice%'
select * from v_upper where shout like 'ALICE%'
select count(*) from v_same natural join customers
select x from v_union order by x
select * from v_row where j->>'ssn' like '0%'
select contact from mv_customers where contact > 'b' order by contact
select email from people where email like 'alice%'
select id from people_p1 order by email
select email from cust_child where email > 'k'
select customers from customers where customers::text like '%078%'
select count(*) from customers c where c is distinct from null and c::text like '%078%'
select (c).ssn from customers c where (c).ssn like '0%'
select get_contact(1) like 'alice%'
select 1 where through(1) like 'alice%'
select id from list_contacts() where ssn like '0%'
select count(*) from list_contacts() l join customers c on c.id = l.id where l.ssn like '0%'
insert into customers (id, note) values (1, '') on conflict (id) do update set note = customers.ssn
insert into customers (id, email) values (90, 'x') on conflict (email) do nothing
alter table customers add check (ssn like '7%')
create index on orders ((note)) where id > 0
select c.id, c.name, max(c.ssn) from customers c group by c.id having max(c.ssn) > '1' order by 1
