#!/bin/sh
# Asks the servable "add" by HTTP with JSON, with curl; what the server says of itself first.
#   sh rest_client.sh [http://127.0.0.1:5501 [options of curl]]
url=${1:-http://127.0.0.1:5501}
[ $# -gt 0 ] && shift
set -eu

curl -sSf "$@" "$url/healthz/ready"; echo
curl -sSf "$@" "$url/model/add:add_common" \
  -d '{"instances": [{"x1": [[1.5, 2.5], [3.5, 4.5]], "x2": [[1.0, 1.0], [1.0, 1.0]]}]}'; echo
# A version by its number, a deadline, an id for the logs.
curl -sSf "$@" "$url/model/add/version/1:add_cast" -H "x-request-timeout: 5" -H "x-request-id: from-curl" \
  -d '{"instances": [{"x1": [[1, 1], [1, 1]], "x2": [[4.5, 4.5], [4.5, 4.5]]}]}'; echo
# What is wrong is said with status 200, as MindSpore Serving does.
curl -sSf "$@" "$url/model/add:add_all" -d '{"instances": [{"x1": 1}]}'; echo
