#!/usr/bin/env bash
# Creates the user and the database for Dagster, where they are missing:
#   create-database.sh [NAME]           (both are called "ronghe" when NAME is left out)
# Run it as a superuser of the server: `sudo -u postgres`, or with PGHOST and PGUSER set. Then give
# the user a password: psql -d postgres -c '\password ronghe'. Dagster makes its tables itself.
set -euo pipefail
name="${1:-ronghe}"
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="$name" --dbname postgres <<'SQL'
SELECT format('CREATE ROLE %I LOGIN', :'name')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
SQL
echo "database $name is there and belongs to user $name"
