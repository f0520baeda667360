#!/usr/bin/env bash
# Starts one process of a team's Ronghe, in the foreground:
#   start.sh code | webserver | daemon  [SETTINGS, a file like ronghe.env.example]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$(dirname "$here")")"
what="${1:-}"
settings="${2:-/etc/ronghe/ronghe.env}"

fail() {
  echo "start.sh: $1" >&2
  exit 2
}

[[ -r "$settings" ]] || fail "cannot read $settings; copy $here/ronghe.env.example there and fill it in"
set -a
# shellcheck source=/dev/null
source "$settings"
set +a
for name in RONGHE_CATALOG RONGHE_STORE DAGSTER_HOME DAGSTER_POSTGRES_URL \
  DAGSTER_CODE_HOST DAGSTER_CODE_PORT; do
  [[ -n "${!name:-}" ]] || fail "$name is not set; set it in $settings"
done
case "$DAGSTER_CODE_HOST" in
  127.* | localhost | ::1) ;;
  *)
    [[ "$RONGHE_STORE" == s3://* ]] || fail "RONGHE_STORE is $RONGHE_STORE, and the code server is \
on $DAGSTER_CODE_HOST: several machines need a store that all reach, s3://bucket/prefix"
    ;;
esac

mkdir -p "$DAGSTER_HOME"
ln -sfn "$here/dagster.yaml" "$DAGSTER_HOME/dagster.yaml"
PATH="$root/.venv/bin:$PATH"
cd "$root"
case "$what" in
  code)
    exec dagster code-server start --module-name orchestration.definitions \
      --working-directory "$root" --location-name orchestration.definitions \
      --host "${DAGSTER_CODE_LISTEN:-127.0.0.1}" --port "$DAGSTER_CODE_PORT" \
      --use-python-environment-entry-point
    ;;
  webserver)
    names=()
    for name in ${PAGE_NAMES:-}; do names+=(--host-name "$name"); done
    exec ronghe ui --no-daemon --workspace "$here/workspace.yaml" "${names[@]}" \
      --host "${DAGSTER_WEBSERVER_HOST:-127.0.0.1}" --port "${DAGSTER_WEBSERVER_PORT:-3000}"
    ;;
  daemon) exec dagster-daemon run --workspace "$here/workspace.yaml" ;;
  *) fail "the first argument is '$what'; it must be code, webserver or daemon" ;;
esac
