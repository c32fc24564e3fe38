-- :sessions sessions of :a_session commands each, over three months of 2026.
create function v7(t timestamptz, n bigint) returns uuid language sql immutable return
    (lpad(to_hex((extract(epoch from t) * 1000)::bigint), 12, '0')
        || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid;
create function first_v7(t timestamptz) returns uuid language sql immutable return
    (lpad(to_hex((extract(epoch from t) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

do $$
declare month timestamptz;
begin
    for month in select * from generate_series('2026-01-01 00:00+00'::timestamptz,
            '2026-03-01 00:00+00', '1 month') loop
        execute format('create table %I partition of commands for values from (%L) to (%L)',
            to_char(month, '"commands_"YYYY_MM'), first_v7(month),
            first_v7(month + interval '1 month'));
    end loop;
end $$;

insert into sessions
select v7(t, n), 'gateway', 'postgres', 'target-' || n % 20, 'db', '127.0.0.1:1', 'https://issuer',
    's' || u, 'user-' || u, array['group-' || u % 10, 'team-' || u], 'workflow-' || n % 50, true,
    'run-' || n / 5, true, '{}', 'policy', '0.1.0', t, t + interval '5 min', 'client', null,
    :a_session, :a_session - 3, 1, (n % 3 = 0)::int, 0, 0, 100, 1000, 1000, 0
from (
    select n, '2026-01-01 00:00+00'::timestamptz + n * interval '89 days' / :sessions t,
        case n when :sessions / 2 then 199 else floor(200 * power(random(), 2))::int end u
    from generate_series(1, :sessions) n
) s;

insert into commands
select s.id, i * 4, s.opened_at + i * interval '3 s' + random() * interval '1 s', s.protocol,
    s.target, s.username, s.workflow, s.run, case when i % 3 = 0 then 'execute' else 'query' end,
    case i % 7
        when 0 then 'select id, email from public.customers where id = ' || (random() * 1e6)::int
        when 1 then 'update orders set status = ''shipped'', note = '''
            || substr(md5(random()::text), 1, 12) || ''' where order_id = ' || (random() * 1e6)::int
        when 2 then 'insert into audit_trail (actor, what, at) values (''' || s.username || ''', '''
            || md5(random()::text) || ''', now())'
        when 3 then 'SELECT o.id, o.total, c.email FROM orders o JOIN customers c '
            || 'ON c.id = o.customer_id WHERE o.created_at > now() - interval ''1 day'' AND o.total > '
            || (random() * 1000)::int || ' ORDER BY o.total DESC LIMIT 100'
        when 4 then 'begin'
        when 5 then 'commit'
        else 'delete from carts where token = ''tok_' || md5(random()::text) || ''''
    end || case when i = 50 and s.run = 'run-7' then ' /* needle */' else '' end,
    false, '{}', '[{"action": "sql.select", "object": "table:public.customers"}]',
    case when random() < 0.02 then 'block' when random() < 0.01 then 'approve' else 'allow' end,
    '{}', null, null, '{}', 'SELECT 1', 1, null, null, (random() * 10000)::int
from sessions s, generate_series(1, :a_session) i
order by s.id, i;
