#!/bin/sh
# Creates the secrets of compose.yaml in the folder `secrets` next to it, or in the folder given as argument: random
# passwords, and a self-signed certificate, which you should replace with a trusted one. Existing files are kept.
# Add the UI's users by hand: docs/how-to/secure.md.
set -eu
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
# Only this user can enter the folder. The files are mounted one by one, and the containers' users must be able to read them.
chmod 700 "$folder"
cd "$folder"
umask 022

password() { openssl rand -hex 24; }
keep() { [ -s "$1" ] || cat >"$1"; }

password | keep postgres_password
password | keep migrator_password
password | keep runs_password
password | keep nats_password
password | keep proxy_secret
keep migrator_url <<EOF
postgresql://backfills_migrator:$(cat migrator_password)@postgres:5432/backfills
EOF
keep runs_url <<EOF
postgresql://backfills_runs:$(cat runs_password)@postgres:5432/backfills
EOF
keep nats_url <<EOF
nats://backfills:$(cat nats_password)@nats:4222
EOF
keep nats_configuration <<EOF
port: 4222
http: 127.0.0.1:8222
jetstream { store_dir: "/data" }
authorization { user: backfills, password: "$(cat nats_password)" }
EOF
password | keep cron_secret
password | keep jobs_token
keep doors_tokens <<EOF
[{"name": "admin", "token": "$(password)", "scopes": ["imports", "jobs", "backfills"]}]
EOF
# The same secret as an nginx directive, because nginx can't read a secret from a plain file.
keep proxy_secret_header <<EOF
proxy_set_header X-Proxy-Secret "$(cat proxy_secret)";
EOF
if [ ! -s proxy_tls_key ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout proxy_tls_key -out proxy_tls_certificate 2>/dev/null
    # openssl makes it readable for this user only, but the proxy runs as another user.
    chmod 644 proxy_tls_key
fi
touch proxy_viewers proxy_operators
