#!/bin/sh
# RTL = C99 in Verilator, on 3,000 cases for each variant: sh check_rtl.sh [folder to build in] [only this variant]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$(mktemp -d)} only=${2:-}
mkdir -p "$build"
build=$(cd "$build" && pwd)

# name, then the parameters of eqk_unit.sv, which are the macros of eqk_int.h without their prefix
check() {
    name=$1; shift
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    macros="-DEQK_INT_DIFFERENCE=1"; parameters=""; rates="-DRATE1=10 -DRATE2=10"
    for setting in "$@"; do
        case $setting in
        RATE* | LEARN=*) rates="$rates -U${setting%=*} -D$setting" ;;
        *) macros="$macros -DEQK_$setting" ;;
        esac
        parameters="$parameters -G$setting"
    done
    mkdir -p "$build/$name"
    cc -std=c99 -O2 $macros -I"$here/.." -c "$here/../eqk_int.c" -o "$build/$name/eqk_int.o"
    verilator --cc --exe --build -O3 -Wall -Wno-WIDTH -Wno-UNUSEDSIGNAL -Wno-DECLFILENAME --Mdir "$build/$name" -y "$here" \
        $parameters -CFLAGS "-O1 -I$here/.. $macros $rates" "$here/eqk_unit.sv" "$here/check_rtl.cpp" \
        "$build/$name/eqk_int.o" > "$build/$name/log" 2>&1 || { cat "$build/$name/log"; exit 1; }
    "$build/$name/Veqk_unit" 3000
}

check int8        NX=65 NH=16 NO=10 T_FREE=3 T_NUDGED=3 LEAK=0 GAMMA=5
check ternary     NX=65 NH=16 NO=10 T_FREE=3 T_NUDGED=3 LEAK=0 GAMMA=2 SHIFT1=3 SHIFT2=2 THRESHOLD=8 RATE1=11 RATE2=12
check long        NX=65 NH=16 NO=10 T_FREE=20 T_NUDGED=8
check odd         NX=7 NH=5 NO=3 T_FREE=5 T_NUDGED=2 LEAK=2 FRAC=4 BETA=4 GAMMA=1 SHIFT1=6 SHIFT2=5 RATE1=6 RATE2=7 STOCHASTIC=0
check wide        NX=9 NH=35 NO=19 T_FREE=4 T_NUDGED=4 FRAC=0 BETA=0 RATE1=4 RATE2=0
check far         NX=2 NH=2 NO=2 T_FREE=5 T_NUDGED=3 LEAK=0 FRAC=0 BETA=0 GAMMA=12 SHIFT1=15 SHIFT2=0 THRESHOLD=8 RATE1=0 RATE2=0
check int8-fixed  NX=65 NH=16 NO=10 T_FREE=3 LEAK=0 GAMMA=5 LEARN=0
check ternary-fixed NX=65 NH=16 NO=10 T_FREE=3 LEAK=0 GAMMA=2 SHIFT1=3 SHIFT2=2 THRESHOLD=8 LEARN=0
