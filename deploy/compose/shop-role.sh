# Runs when the shop's database is made, before its tables: the role that the gateway comes as.
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\set password `cat /run/shop/shop_agent`
create role shop_agent login password :'password';
SQL
