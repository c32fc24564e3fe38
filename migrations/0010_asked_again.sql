-- A command whose client does not wait but asks again: for how long a yes counts from when it is
-- given, and whether the client was told that the request ended.

alter table requests add column again_seconds bigint;
alter table requests add column told boolean not null default false;

create index requests_asked_again on requests (exact)
    where again_seconds is not null and not told and state <> 'consumed';
