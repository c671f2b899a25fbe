#!/bin/sh
# Makes the role with which Grafana reads: it can read what the role melete makes, now and later, and change nothing.
set -eu
psql -v ON_ERROR_STOP=1 -v password="$READER_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE reader LOGIN PASSWORD :'password';
ALTER ROLE reader SET default_transaction_read_only = on;
ALTER ROLE reader SET statement_timeout = '15s';
GRANT USAGE ON SCHEMA public TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE melete IN SCHEMA public GRANT SELECT ON TABLES TO reader;
SQL
