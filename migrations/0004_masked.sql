-- How many values of a command's results were masked, by mask.

alter table commands add column masked jsonb not null default '{}';
