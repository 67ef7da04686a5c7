#!/bin/sh
# Builds the core's test programs under the address and undefined-behaviour sanitizers, then under the thread
# sanitizer, and runs them. Usage: native/tests/sanitize.sh [build folder]
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$source/build/sanitize}
for sanitizer in address,undefined thread; do
    folder=$build/$(echo "$sanitizer" | tr , -)
    cmake -S "$source" -B "$folder" -DBPTT_PYTHON=OFF -DBPTT_TESTS=ON -DBPTT_SANITIZE=$sanitizer \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo > /dev/null
    cmake --build "$folder" --target bptt_core bptt_online bptt_online_kernels --parallel 2
    echo "== $sanitizer"
    "$folder/native/bptt_core"
    "$folder/native/bptt_online"
    "$folder/native/bptt_online_kernels"
done
