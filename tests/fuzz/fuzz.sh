#!/bin/sh
# Fuzzes the C ABI with libFuzzer and sanitizers: fuzz.sh SECONDS FOLDER, what it learns stays in
# FOLDER/corpus; fuzz.sh probe says whether it can.
set -eu
echo 'int LLVMFuzzerTestOneInput(const char *data, unsigned long size) { return data && size ? 0 : 0; }' |
    clang -fsanitize=fuzzer -xc - -o /dev/null 2> /dev/null || {
    echo "fuzzing needs clang with libFuzzer; on Debian and Ubuntu: apt install clang libclang-rt-dev" >&2
    exit 1
}
[ "$1" != probe ] || exit 0
seconds=$1 folder=$2 here=${0%/*} bindings=${0%/*}/../../bindings
flags="-std=c99 -g -O1 -ffp-contract=off -fno-sanitize-recover=all -I$bindings/include"
mkdir -p "$folder/corpus"
objects= stale=
for source in "$here/abi.c" "$bindings"/src/*.c; do
    object=$folder/$(basename "$source" .c).o
    objects="$objects $object"
    if [ ! -e "$object" ] || [ -n "$(find "$here" "$bindings/src" "$bindings/include" -newer "$object")" ]; then
        stale="$stale $source"
    fi
done
export flags folder
[ -z "$stale" ] || printf '%s\n' $stale | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} sh -c '
    echo "compiling $(basename {})"
    clang $flags -fsanitize=fuzzer-no-link,address,undefined -c {} -o "$folder/$(basename {} .c).o"'
clang -fsanitize=fuzzer,address,undefined $objects -lm -o "$folder/fuzz"
exec "$folder/fuzz" -max_len=256 -timeout=60 -max_total_time="$seconds" -artifact_prefix="$folder/" "$folder/corpus"
