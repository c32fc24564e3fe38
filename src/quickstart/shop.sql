-- The demonstration shop. The same rows on every machine, and nobody real among them: example.com
-- receives no mail, 555-01xx are nobody's telephones, no social security number begins with 9, and
-- the card numbers hold the check digit (Luhn) in a test issuer's range.

create table customers (
    id          int generated always as identity primary key,
    name        text not null,
    email       text not null unique,
    phone       text not null,
    ssn         text not null,
    card_number text not null,
    country     text not null,
    created_at  timestamptz not null
);

create table orders (
    id          int generated always as identity primary key,
    customer_id int not null references customers,
    product     text not null,
    quantity    int not null check (quantity > 0),
    total       numeric(10, 2) not null,
    status      text not null check (status in ('open', 'paid', 'shipped', 'returned')),
    placed_at   timestamptz not null
);

create index on orders (customer_id);

create function pg_temp.card_number(n int) returns text language sql immutable as $$
    with payload as (select '400000' || lpad((n * 7919 % 1000000000)::text, 9, '0') as digits),
    doubled as (
        select digits, i, substr(digits, i, 1)::int * (1 + i % 2) as d
        from payload, generate_series(1, 15) as i
    )
    select digits || (10 - sum(d / 10 + d % 10) % 10) % 10 from doubled group by digits
$$;

insert into customers (name, email, phone, ssn, card_number, country, created_at)
select
    first || ' ' || last,
    lower(first || '.' || last) || n || '@example.com',
    format('+1-%s-555-01%s', 201 + n % 700, lpad((n % 100)::text, 2, '0')),
    format('9%s-%s-%s', lpad((n % 100)::text, 2, '0'), lpad((1 + n % 49)::text, 2, '0'),
        lpad((n * 37 % 10000)::text, 4, '0')),
    pg_temp.card_number(n),
    (array['US', 'DE', 'FR', 'JP', 'BR', 'IN'])[1 + n % 6],
    timestamptz '2025-01-01 00:00:00+00' + n * interval '2 hours'
from
    generate_series(1, 2000) as n,
    lateral (select
        (array['Ada', 'Grace', 'Alan', 'Edsger', 'Barbara', 'Ken', 'Frances', 'Donald', 'Radia',
            'Leslie', 'Margaret', 'Tony'])[1 + n % 12] as first,
        (array['Abbott', 'Berger', 'Costa', 'Dubois', 'Endo', 'Fischer', 'Gupta', 'Hansen', 'Ito',
            'Jensen', 'Khan', 'Lopez', 'Moreau'])[1 + n % 13] as last) as names;

insert into orders (customer_id, product, quantity, total, status, placed_at)
select
    1 + n * 31 % 2000,
    (array['keyboard', 'monitor', 'desk lamp', 'notebook', 'headphones', 'chair', 'cable'])[1 + n % 7],
    1 + n % 4,
    (1 + n % 4) * (array[89.00, 329.50, 39.90, 4.20, 149.00, 412.00, 9.95])[1 + n % 7],
    (array['open', 'paid', 'shipped', 'shipped', 'returned'])[1 + n % 5],
    timestamptz '2025-06-01 00:00:00+00' + n * interval '40 minutes'
from generate_series(1, 6000) as n;

create view open_orders as
    select o.id, c.name as customer, o.product, o.quantity, o.total, o.placed_at
    from orders as o join customers as c on c.id = o.customer_id
    where o.status = 'open';

create function spent(customer int) returns numeric language sql stable as $$
    select coalesce(sum(total), 0) from orders where customer_id = customer and status <> 'returned'
$$;

-- The gateway's role may connect. What it may do here, `portcullis policy harden` says, from the
-- gateway's rules and masks.
revoke all on database shop from public;
grant connect on database shop to shop_agent;
