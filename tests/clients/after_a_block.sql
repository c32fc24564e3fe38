\set VERBOSITY sqlstate
drop table kept;
select 'goes on';
begin;
insert into kept values (40);
savepoint s;
select 1; drop table kept;
\echo :SQLSTATE
rollback to s;
insert into kept values (41);
drop table kept;
select 'not in a failed transaction';
rollback;
begin; insert into kept values (42); commit;
drop table kept \;
select 'one message';
insert into kept values (43);
select i from kept where i >= 40 order by i;
