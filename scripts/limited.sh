#!/usr/bin/env bash
# Runs a test program with the limit STRATAFS_TEST_LIMIT, and says so if the limit ends it: scripts/limited.sh PROGRAM...
# `scripts/test.sh` has cargo start each program by it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
name=${1##*/}
limited "the test program ${name%-*}" "$@"
