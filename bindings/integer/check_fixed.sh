#!/bin/sh
# ap_fixed and ac_fixed = C99, for the configs of vectors/: sh check_fixed.sh FOLDER [cases [config]], the templates of hls4ml
set -eu
here=$(cd "$(dirname "$0")" && pwd)
headers=$1
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for vectors in "$here"/vectors/${3:-*}.txt; do
    config=$(head -n 1 "$vectors" | sed 's/ cases.*//')
    cc -std=c99 -O2 $config -c "$here/eqk_int.c" -o "$build/eqk_int.o"
    for types in ap:vivado/ap_types ac:catapult/ac_types/include; do
        c++ -std=c++14 -O2 -w $config "-DEQK_TYPES=\"eqk_${types%%:*}.hpp\"" -I"$here" -I"$headers/${types#*:}" \
            "$here/check_fixed.cpp" "$build/eqk_int.o" -o "$build/check"
        "$build/check" "${2:-3000}"
    done
done
